"""What Kronecker-structured estimators are compared with: baselines of the same interface, genies and bounds.

All of them compute in double precision, and return the dtype of what they are given.
"""
