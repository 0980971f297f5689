"""Singular value thresholding and the alternation of robust principal component analysis."""

from typing import NamedTuple

import torch
from torch import Tensor

from kernels.proximal import soft_threshold


class LowRankSparse(NamedTuple):
    """One iterate of robust principal component analysis."""

    low_rank: Tensor
    sparse: Tensor
    dual: Tensor


def singular_value_threshold(
    matrix: Tensor,
    threshold: Tensor | float,
    *,
    weights: Tensor | None = None,
    partial: int = 0,
    rank: int | None = None,
) -> Tensor:
    """Soft-threshold the singular values; the threshold broadcasts against the batch shape."""
    U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
    level = torch.as_tensor(threshold, dtype=S.dtype, device=S.device)[..., None]
    level = (level if weights is None else level * weights).expand_as(S)
    index = torch.arange(S.shape[-1], device=S.device)
    shrunk = torch.where(index < partial, S, (S - level).clamp_min(0))
    shrunk = shrunk if rank is None else torch.where(index < rank, shrunk, torch.zeros_like(S))
    return (U * shrunk[..., None, :]) @ Vh


def lowrank_sparse_step(
    observation: Tensor, sparse: Tensor, dual: Tensor, mu: Tensor | float, lambda_: Tensor | float
) -> LowRankSparse:
    """One alternation of the inexact augmented Lagrangian method; mu and lambda_ broadcast against the batch shape."""
    mu = torch.as_tensor(mu, dtype=sparse.dtype, device=sparse.device)
    shift = dual / mu[..., None, None]
    low_rank = singular_value_threshold(observation - sparse + shift, 1 / mu)
    residual = observation - low_rank + shift
    new_sparse = soft_threshold(residual, (lambda_ / mu)[..., None, None])
    return LowRankSparse(low_rank, new_sparse, mu[..., None, None] * (residual - new_sparse))
