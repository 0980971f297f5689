"""E-step of a Kronecker-structured prior: everything through eigenproblems of the factors' size.

With a_i = A_i diag(g_i) A_i^H = U_i diag(p_i) U_i^H, P = p_1 kron ... kron p_I and
W_i = diag(g_i) A_i^H U_i (He and Joseph, IEEE Trans. Signal Processing 2024, section III),

    mean     = (kron W_i) (z / (s2 + P)),                z = (kron U_i^H) y,
    variance = kron g_i - (kron |W_i|^2) (1 / (s2 + P)).

A factor with fewer kept columns than rows goes through its smaller Gram matrix
diag(g_i)^1/2 A_i^H A_i diag(g_i)^1/2 = V_i diag(p_i) V_i^H, in the scale W_i = diag(g_i)^1/2 V_i and
U_i = A_i W_i, which multiplies z by sqrt(p_i) and divides W_i by it.
Where P vanishes 1 / (s2 + P) counts as zero: at s2 = 0 these are the pseudo-inverses of A_i diag(sqrt(g_i)).
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
    scale: Tensor  # (B, k_1 ... k_I): the product of p_i over the factors of the smaller Gram matrix
    z: Tensor  # (B, k_1 ... k_I)
    D: Tensor  # (B, k_1 ... k_I): 1 / (s2 + P), zero where P is

    def mean(self) -> Tensor:
        """(B, n_1 ... n_I)."""
        return kron_matvec(self.W, self.z * self.D)

    def variance(self) -> Tensor:
        """(B, n_1 ... n_I), real."""
        explained = kron_matvec([squared_modulus(W) for W in self.W], self.scale * self.D)
        return (kron_vectors(self.state.g) - explained).clamp(min=0)

    def cost(self) -> Tensor:
        """log det(s2 I + A G A^H) + y^H (s2 I + A G A^H)^-1 y: (B,); where s2 = 0, over the range of A G only."""
        s2 = self.state.noise_variance
        null = self.state.y.shape[-1] - (self.P > 0).sum(-1)
        total = s2.unsqueeze(-1) + self.P
        log_det = torch.where(self.P > 0, total, 1).log().sum(-1) + null * torch.where(s2 > 0, s2, 1).log()
        energy = self._energy()
        return log_det + (energy * self.D).sum(-1) + self._outside(energy) * reciprocal(s2)

    def residual(self) -> Tensor:
        """||y - A mean||^2: (B,)."""
        energy = self._energy()
        return (energy * (1 - self.P * self.D).square()).sum(-1) + self._outside(energy)

    def degrees_of_freedom(self) -> Tensor:
        """The sum of 1 - variance / g over the kept entries: (B,)."""
        return (self.P * self.D).sum(-1)

    def _energy(self) -> Tensor:
        """Energy of y along each eigenvector of A G A^H with P > 0."""
        return squared_modulus(self.z) * reciprocal(self.scale) * (self.P > 0)

    def _outside(self, energy: Tensor) -> Tensor:
        """Energy of y outside the range of A G: (B,)."""
        return (squared_modulus(self.state.y).sum(-1) - energy.sum(-1)).clamp(min=0)


def kronecker_posterior(state: State) -> KroneckerPosterior:
    """The posterior under prior variances kron g_i."""
    spectra = [_spectrum(A, g) for A, g in zip(state.factors, state.g, strict=True)]
    P = kron_vectors([s.p for s in spectra])
    scale = kron_vectors([s.scale for s in spectra])
    z = kron_matvec([s.U.mH for s in spectra], state.y)
    inside = (P > 0).to(P.dtype)
    D = inside / (state.noise_variance.unsqueeze(-1) + P + (1 - inside))
    return KroneckerPosterior(state, tuple(s.W for s in spectra), P, scale, z, D)


class _Spectrum(NamedTuple):
    p: Tensor
    scale: Tensor
    U: Tensor
    W: Tensor


def _spectrum(A: Tensor, g: Tensor) -> _Spectrum:
    amplitude = root(g)
    S = A * amplitude.unsqueeze(-2)
    smaller = S.shape[-1] < S.shape[-2]
    p, vectors = eigh(S.mH @ S if smaller else S @ S.mH)
    p = p * (p > p[..., -1:] * (torch.finfo(p.dtype).eps * max(S.shape[-2:])))
    if smaller:
        return _Spectrum(p, p, S @ vectors, vectors * amplitude.unsqueeze(-1))
    return _Spectrum(p, torch.ones_like(p), vectors, S.mH @ vectors * amplitude.unsqueeze(-1))
