"""The networks, each a stage and the loop over stages, and their weights as files."""
