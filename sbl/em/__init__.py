"""The EM loop that the Bayesian estimators share: state, E-steps, sweeps of the M-step, and the loop in C."""
