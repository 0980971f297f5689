"""Weights that come with the package: their files, which they are, and their cards."""
