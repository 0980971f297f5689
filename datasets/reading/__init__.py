"""From files to grey levels and masks: decoding, depth, orientation, pages, frames."""
