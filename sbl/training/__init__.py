"""Training of the unfolded estimator on simulated channels, and its weights as files."""
