"""Proximal operators of sparsity penalties."""

import torch
from torch import Tensor


def _shrink(x: Tensor, magnitude: Tensor, threshold: Tensor | float) -> Tensor:
    kept = magnitude > threshold
    safe = torch.where(kept, magnitude, torch.ones_like(magnitude))
    return x * torch.where(kept, 1 - threshold / safe, torch.zeros_like(magnitude))


def soft_threshold(x: Tensor, threshold: Tensor | float) -> Tensor:
    """max(|x| - threshold, 0) x / |x|."""
    if x.is_complex():
        return _shrink(x, x.abs(), threshold)
    return x - x.clamp(
        -torch.as_tensor(threshold, dtype=x.dtype, device=x.device),
        torch.as_tensor(threshold, dtype=x.dtype, device=x.device),
    )


def hard_threshold(x: Tensor, threshold: Tensor | float) -> Tensor:
    """x where |x| > threshold, else 0."""
    return torch.where(x.abs() > threshold, x, torch.zeros_like(x))


def group_soft_threshold(x: Tensor, threshold: Tensor | float, dim: int | tuple[int, ...]) -> Tensor:
    """max(1 - threshold / ||x||, 0) x, the norm over `dim`; the threshold has size 1 there."""
    return _shrink(x, torch.linalg.vector_norm(x, dim=dim, keepdim=True), threshold)
