"""Estimators of a Kronecker-sparse vector, one file each: an estimator by EM is its M-step."""
