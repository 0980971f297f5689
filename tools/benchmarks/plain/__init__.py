"""The networks as their papers' code runs them, layer by layer: what ours are compared with."""
