"""The largest singular value and its vectors."""

from typing import NamedTuple

import torch
from torch import Tensor


class LeadingTriplet(NamedTuple):
    """The best rank-one approximation sigma u v^H."""

    sigma: Tensor
    u: Tensor
    v: Tensor


def leading_singular_triplet(matrix: Tensor) -> LeadingTriplet:
    """Leading singular value and vectors; the entry of u of largest modulus is real and positive."""
    U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
    u, v = U[..., 0], Vh[..., 0, :].conj()
    pivot = u.gather(-1, u.abs().argmax(-1, keepdim=True))
    phase = (pivot / pivot.abs()).conj()
    return LeadingTriplet(S[..., 0], u * phase, v * phase)
