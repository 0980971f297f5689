"""The commands: each parses its options, makes one call of a package and prints."""
