"""E-step of a Kronecker-structured prior: everything through eigenproblems of the factors' size.

With a_i = A_i diag(g_i) A_i^H = U_i diag(p_i) U_i^H, P = p_1 kron ... kron p_I and
W_i = diag(g_i) A_i^H U_i (He and Joseph, IEEE Trans. Signal Processing 2024, section III),

    mean     = (kron W_i) (z / (s2 + P)),                z = (kron U_i^H) y,
    variance = kron g_i - (kron |W_i|^2) (1 / (s2 + P)).

The variance is summed as (kron E_i) (s2 / (s2 + P)) + kron g_i - kron (E_i 1), E_i = |W_i|^2 / p_i.
A factor with fewer kept columns than rows goes through its smaller Gram matrix
diag(g_i)^1/2 A_i^H A_i diag(g_i)^1/2 = V_i diag(p_i) V_i^H, in the scale W_i = diag(g_i)^1/2 V_i and
U_i = A_i W_i, which multiplies z by sqrt(p_i) and divides W_i by it; then E_i = |W_i|^2 and E_i 1 = g_i.
Where P vanishes 1 / (s2 + P) counts as zero: at s2 = 0 these are the pseudo-inverses of A_i diag(sqrt(g_i)).
"""

import math
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
    p: tuple[Tensor, ...]  # (B, k_i)
    full: tuple[bool, ...]  # whether a factor went by its smaller Gram matrix
    P: Tensor  # (B, k_1 ... k_I)
    z: Tensor  # (B, k_1 ... k_I)
    D: Tensor  # (B, k_1 ... k_I): 1 / (s2 + P), zero where P is

    def mean(self) -> Tensor:
        """(B, n_1 ... n_I)."""
        return kron_matvec(self.W, self.z * self.D)

    def variance(self) -> Tensor:
        """(B, n_1 ... n_I), real, without cancellation where every factor has fewer columns than rows."""
        s2 = self.state.noise_variance.unsqueeze(-1)
        shares = [_share(W, p, full) for W, p, full in zip(self.W, self.p, self.full, strict=True)]
        variance = kron_matvec(shares, (s2 * self.D).masked_fill(self.P <= 0, 1))
        if all(self.full):
            return variance
        seen = [
            g if full else share.sum(-1)
            for g, share, full in zip(self.state.g, shares, self.full, strict=True)
        ]
        return variance + (kron_vectors(self.state.g) - kron_vectors(seen)).clamp(min=0)

    def explained(self) -> Tensor:
        """(B, n_1 ... n_I): kron g - variance, the part of the prior variances that y takes away."""
        shares = [_share(W, p, full) for W, p, full in zip(self.W, self.p, self.full, strict=True)]
        return kron_matvec(shares, self.P * self.D)

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
        inverse = [
            reciprocal(p) if full else torch.ones_like(p) for p, full in zip(self.p, self.full, strict=True)
        ]
        return squared_modulus(self.z) * kron_vectors(inverse) * (self.P > 0)

    def _outside(self, energy: Tensor) -> Tensor:
        """Energy of y outside the range of A G: (B,)."""
        return (squared_modulus(self.state.y).sum(-1) - energy.sum(-1)).clamp(min=0)


def kronecker_posterior(state: State) -> KroneckerPosterior:
    """The posterior under prior variances kron g_i."""
    spectra = [_spectrum(A, g) for A, g in zip(state.factors, state.g, strict=True)]
    P = kron_vectors([s.p for s in spectra])
    z = kron_matvec([s.U.mH for s in spectra], state.y)
    D = (P.masked_fill(P <= 0, math.inf) + state.noise_variance.unsqueeze(-1)).reciprocal()
    W, p, full = (tuple(getattr(s, field) for s in spectra) for field in ("W", "p", "full"))
    return KroneckerPosterior(state, W, p, full, P, z, D)


class _Spectrum(NamedTuple):
    p: Tensor
    full: bool
    U: Tensor
    W: Tensor


def _spectrum(A: Tensor, g: Tensor) -> _Spectrum:
    amplitude = root(g)
    S = A * amplitude.unsqueeze(-2)
    smaller = S.shape[-1] < S.shape[-2]
    p, vectors = eigh(torch.bmm(S.mH, S) if smaller else torch.bmm(S, S.mH))
    negligible = p <= p.amax(-1, keepdim=True) * (torch.finfo(p.dtype).eps * max(S.shape[-2:]))
    p = p.masked_fill(negligible, 0)
    if smaller:
        return _Spectrum(p, True, torch.bmm(S, vectors), vectors * amplitude.unsqueeze(-1))
    return _Spectrum(p, False, vectors, torch.bmm(S.mH, vectors) * amplitude.unsqueeze(-1))


def _share(W: Tensor, p: Tensor, full: bool) -> Tensor:
    """E_i = |W_i|^2 / p_i in the scale of the larger Gram matrix: how g_i is shared among the eigenvectors."""
    share = squared_modulus(W)
    return share if full else share * reciprocal(p).unsqueeze(-2)
