"""The EM loop for small problems on a GPU, in CUDA C."""
