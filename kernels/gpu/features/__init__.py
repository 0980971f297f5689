"""Kernels in CUDA C for features of 16 bits, and how they are launched."""
