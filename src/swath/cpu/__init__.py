"""Kernels that are faster on CPUs than those of PyTorch; never needed for correctness."""
