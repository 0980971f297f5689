"""Thin batched singular value decomposition."""

from typing import NamedTuple

import torch
from torch import Tensor


class SVD(NamedTuple):
    """A = U diag(S) Vh."""

    U: Tensor
    S: Tensor
    Vh: Tensor


def svd(matrix: Tensor) -> SVD:
    """Thin SVD of a batch of matrices."""
    return SVD(*torch.linalg.svd(matrix, full_matrices=False))


def svdvals(matrix: Tensor) -> Tensor:
    """Singular values of a batch of matrices, descending."""
    return torch.linalg.svdvals(matrix)
