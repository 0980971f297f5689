"""E-step of a Kronecker-structured prior: everything through eigenproblems of the factors' size.

With a_i = A_i diag(g_i) A_i^H = U_i diag(p_i) U_i^H, P = p_1 kron ... kron p_I and
W_i = diag(g_i) A_i^H U_i (He and Joseph, IEEE Trans. Signal Processing 2024, section III),

    mean     = (kron W_i) (z / (s2 + P)),                z = (kron U_i^H) y,
    variance = kron g_i - (kron |W_i|^2) (1 / (s2 + P)).

Where p_i vanishes its columns are zero: at s2 = 0 these are the pseudo-inverses of A_i diag(sqrt(g_i)).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from kernels import eigh, kron_matvec
from sbl.algebra import kron_vectors, reciprocal, root, squared_modulus
from sbl.state import State


class KroneckerPosterior(NamedTuple):
    """The posterior in the factors' eigenbases; every field carries a flat batch axis B first."""

    state: State
    W: tuple[Tensor, ...]  # (B, n_i, k_i)
    P: Tensor  # (B, k_1 ... k_I)
    z: Tensor  # (B, k_1 ... k_I)
    D: Tensor  # (B, k_1 ... k_I): 1 / (s2 + P), zero where P is

    def mean(self) -> Tensor:
        """(B, n_1 ... n_I)."""
        return kron_matvec(self.W, self.z * self.D)

    def variance(self) -> Tensor:
        """(B, n_1 ... n_I), real."""
        spectral = kron_matvec([squared_modulus(W) for W in self.W], self.D)
        return (kron_vectors(self.state.g) - spectral).clamp(min=0)

    def cost(self) -> Tensor:
        """log det(s2 I + A G A^H) + y^H (s2 I + A G A^H)^-1 y, up to constants of s2 = 0: (B,)."""
        s2 = self.state.noise_variance.unsqueeze(-1)
        total, energy = s2 + self.P, squared_modulus(self.z)
        inverse = reciprocal(total)
        log_det = torch.where(total > 0, total, 1).log().sum(-1)
        rest = self.state.y.shape[-1] - self.P.shape[-1]
        log_det = log_det + rest * torch.where(s2 > 0, s2, 1).log().squeeze(-1)
        return log_det + (energy * inverse).sum(-1) + self._outside() * reciprocal(s2).squeeze(-1)

    def residual(self) -> Tensor:
        """||y - A mean||^2: (B,)."""
        left = squared_modulus(self.z) * (1 - self.P * self.D).square()
        return left.sum(-1) + self._outside()

    def degrees_of_freedom(self) -> Tensor:
        """The sum of 1 - variance / g over the kept entries: (B,)."""
        return (self.P * self.D).sum(-1)

    def _outside(self) -> Tensor:
        """Energy of y outside the span of the eigenvectors that are kept: (B,)."""
        energy = squared_modulus(self.state.y).sum(-1) - squared_modulus(self.z).sum(-1)
        return energy.clamp(min=0)


def kronecker_posterior(state: State) -> KroneckerPosterior:
    """The posterior under prior variances kron g_i."""
    p, U, W = zip(*(_spectrum(A, g) for A, g in zip(state.factors, state.g, strict=True)), strict=True)
    P = kron_vectors(p)
    s2 = state.noise_variance.unsqueeze(-1)
    D = torch.where(P > 0, reciprocal(s2 + P), 0)
    z = kron_matvec([u.mH for u in U], state.y)
    return KroneckerPosterior(state, W, P, z, D)


def _spectrum(A: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """p (B, k), U (B, M, k) and W (B, n, k) with k = min(M, n), from the smaller of the two Gram matrices."""
    amplitude = root(g)
    S = A * amplitude.unsqueeze(-2)
    thin = S.shape[-1] < S.shape[-2]
    p, vectors = eigh(S.mH @ S if thin else S @ S.mH)
    p = torch.where(p > p[..., -1:] * (torch.finfo(p.dtype).eps * max(S.shape[-2:])), p, 0)
    if thin:
        sigma = root(p)
        U = S @ vectors * reciprocal(sigma).unsqueeze(-2)
        right = vectors * sigma.unsqueeze(-2)
    else:
        U = vectors
        right = S.mH @ vectors * (p > 0).unsqueeze(-2)
    return p, U, right * amplitude.unsqueeze(-1)
