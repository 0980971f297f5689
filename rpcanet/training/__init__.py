"""Training of the networks: configuration, loss, task, what a run shows and leaves."""
