"""Exact integer kernels of a training step on PyTorch tensors: GEMM, im2col, and what happens to each element between."""
