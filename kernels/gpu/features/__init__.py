"""Kernels in CUDA C for features of 16 or 32 channels in bfloat16, and how they are launched."""
