"""Kernels in Triton and CUDA C, each beside the operation of `kernels` that it speeds up on a GPU."""
