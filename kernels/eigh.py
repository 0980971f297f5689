"""Batched Hermitian eigendecomposition."""

from typing import NamedTuple

import torch
from torch import Tensor


class Eigh(NamedTuple):
    """A = eigenvectors diag(eigenvalues) eigenvectors^H."""

    eigenvalues: Tensor
    eigenvectors: Tensor


def eigh(matrix: Tensor) -> Eigh:
    """Eigenvalues (ascending) and eigenvectors of a batch of Hermitian matrices."""
    return Eigh(*torch.linalg.eigh(matrix))
