"""E-step of a Kronecker-structured prior: everything through eigenproblems of the factors' size.

With a_i = A_i diag(g_i) A_i^H = U_i diag(p_i) U_i^H, P = p_1 kron ... kron p_I and
W_i = diag(g_i) A_i^H U_i (He and Joseph, IEEE Trans. Signal Processing 2024, section III),

    mean     = (kron W_i) (z / (s2 + P)),                z = (kron U_i^H) y,
    variance = kron g_i - (kron |W_i|^2) (1 / (s2 + P)).

A linear functional (kron B_i) x has the mean (kron B_i W_i) (z / (s2 + P)) and, with all covariances,

    variance = kron (|B_i|^2 g_i) - (kron |B_i W_i|^2) (1 / (s2 + P)).

The variance is summed as (kron [E_i, e_i]) (s2 / (s2 + P)), E_i = |W_i|^2 / p_i, where e_i = g_i - E_i 1 is what
no eigenvector has of g_i and P is zero.
A factor with no more kept columns than rows goes through its smaller Gram matrix
diag(g_i)^1/2 A_i^H A_i diag(g_i)^1/2 = V_i diag(p_i) V_i^H, in the scale W_i = diag(g_i)^1/2 V_i and
U_i = A_i W_i, which multiplies z by sqrt(p_i) and divides W_i by it; then E_i = |W_i|^2 and E_i 1 = g_i.
Where P vanishes 1 / (s2 + P) counts as zero: at s2 = 0 these are the pseudo-inverses of A_i diag(sqrt(g_i)).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from ...kernels.eigh import eigh_operator
from ...kernels.kronecker import apply_kron, product
from ..algebra import kron_vectors, reciprocal, root, squared_modulus
from .state import State

# From this share of ||y||^2 on, what is left of it is a difference.
LARGE = 1e-6


class KroneckerPosterior(NamedTuple):
    """The posterior in the factors' eigenbases; every field carries a flat batch axis B first."""

    state: State
    W: tuple[Tensor, ...]  # (B, n_i, k_i)
    p: tuple[Tensor, ...]  # (B, k_i)
    full: tuple[bool, ...]  # whether a factor went by its smaller Gram matrix
    P: Tensor  # (B, k_1 ... k_I)
    null: Tensor  # (B, k_1 ... k_I): where P is zero
    z: Tensor  # (B, k_1 ... k_I)
    D: Tensor  # (B, k_1 ... k_I): 1 / (s2 + P), zero where P is

    def mean(self) -> Tensor:
        """(B, n_1 ... n_I)."""
        return apply_kron(self.W, self.z * self.D)

    def variance(self) -> Tensor:
        """(B, n_1 ... n_I), real, without cancellation."""
        return self._left_over(self.state.g, self._shares(self.W))

    def functional(self, B: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Mean and variance of (kron B_i) x: (B, R_1 ... R_I) each, of B_i (B or 1, R_i, n_i)."""
        images = [product(b, W) for b, W in zip(B, self.W, strict=True)]
        priors = [
            product(squared_modulus(b), g.unsqueeze(-1)).squeeze(-1)
            for b, g in zip(B, self.state.g, strict=True)
        ]
        return apply_kron(images, self.z * self.D), self._left_over(priors, self._shares(images))

    def _left_over(self, priors: Sequence[Tensor], shares: list[Tensor]) -> Tensor:
        """kron priors - (kron shares) (P / (s2 + P)), summed without cancellation."""
        s2 = self.state.noise_variance.unsqueeze(-1)
        kept = (s2 * self.D).masked_fill(self.null, 1)
        if all(self.full):
            return apply_kron(shares, kept)
        kept = kept.unflatten(-1, [p.shape[-1] for p in self.p])
        margins = [margin for full in reversed(self.full) for margin in (0, int(not full))]
        shares = [
            share if full else torch.cat((share, (g - share.sum(-1)).clamp(min=0).unsqueeze(-1)), -1)
            for g, share, full in zip(priors, shares, self.full, strict=True)
        ]
        return apply_kron(shares, pad(kept, margins, value=1.0).flatten(1))

    def explained(self) -> Tensor:
        """(B, n_1 ... n_I): kron g - variance, the part of the prior variances that y takes away."""
        return apply_kron(self._shares(self.W), self.P * self.D)

    def gain(self) -> Tensor:
        """(B, n_1 ... n_I): diag(A^H K^-1 A), K = s2 I + A G A^H; zero where an entry is pruned."""
        shares = [
            share * reciprocal(g).square().unsqueeze(-1)
            for g, share in zip(self.state.g, self._shares(self.W), strict=True)
        ]
        return apply_kron(shares, self.P * self.D)

    def cost(self) -> Tensor:
        """log det(s2 I + A G A^H) + y^H (s2 I + A G A^H)^-1 y: (B,); where s2 = 0, over the range of A G only."""
        s2 = self.state.noise_variance
        outside = self.state.y.shape[-1] - self.P.shape[-1] + self.null.sum(-1)
        total = s2.unsqueeze(-1) + self.P
        log_det = total.masked_fill(self.null, 1).log().sum(-1) + outside * torch.where(s2 > 0, s2, 1).log()
        inside = (self._energy() * self.D).sum(-1)
        return log_det + torch.where(s2 > 0, self._left(self._unexplained()) * reciprocal(s2), inside)

    def residual(self) -> Tensor:
        """||y - A mean||^2: (B,)."""
        return self._left(self._unexplained().square())

    def degrees_of_freedom(self) -> Tensor:
        """The sum of 1 - variance / g over the kept entries: (B,)."""
        return (self.P * self.D).sum(-1)

    def _shares(self, images: Sequence[Tensor]) -> list[Tensor]:
        """|B_i W_i|^2 / p_i, in the scale of the larger Gram matrix, of B_i W_i: how |B_i|^2 g_i is shared among
        the eigenvectors."""
        return [
            squared_modulus(W) if full else squared_modulus(W) * reciprocal(p).unsqueeze(-2)
            for W, p, full in zip(images, self.p, self.full, strict=True)
        ]

    def _energy(self) -> Tensor:
        """Energy of y along each eigenvector of A G A^H with P > 0."""
        inverse = [
            reciprocal(p) if full else torch.ones_like(p) for p, full in zip(self.p, self.full, strict=True)
        ]
        return squared_modulus(self.z) * kron_vectors(inverse) * ~self.null

    def _unexplained(self) -> Tensor:
        """s2 / (s2 + P), the share of y's amplitude along each eigenvector that the mean leaves."""
        return self.state.noise_variance.unsqueeze(-1) * self.D

    def _left(self, shares: Tensor) -> Tensor:
        """What `shares` leave of y's energy along the eigenvectors, and all outside of the range of A G: (B,).

        As a difference, which does not see the rounding of energies along small eigenvalues, or, where that
        cancels, as a sum. Where eigenvectors with P > 0 span the space of y, nothing is outside.
        """
        energy, total = self._energy(), squared_modulus(self.state.y).sum(-1)
        difference = total - (energy * (1 - shares)).sum(-1)
        spanned = (~self.null).sum(-1) == self.state.y.shape[-1]
        outside = (total - energy.sum(-1)).clamp(min=0).masked_fill(spanned, 0)
        return torch.where(difference > LARGE * total, difference, (energy * shares).sum(-1) + outside)


def kronecker_posterior(state: State) -> KroneckerPosterior:
    """The posterior under prior variances kron g_i."""
    amplitudes = [g.sqrt() if state.dense else root(g) for g in state.g]
    spectra = [_spectrum(A, amplitude) for A, amplitude in zip(state.factors, amplitudes, strict=True)]
    p, full, adjoint, W = zip(*spectra, strict=True)
    P = kron_vectors(p)
    null = P.logical_not()
    D = (P.masked_fill(null, math.inf) + state.noise_variance.unsqueeze(-1)).reciprocal()
    return KroneckerPosterior(state, W, p, full, P, null, apply_kron(adjoint, state.y), D)


def _spectrum(A: Tensor, amplitude: Tensor) -> tuple[Tensor, bool, Tensor, Tensor]:
    """p_i, whether by the smaller Gram matrix, U_i^H and W_i.

    p_i is summed from the images of the eigenvectors; an eigenvalue is exact to eps times the largest alone.
    """
    rows, columns = A.shape[-2:]
    S = A * amplitude.unsqueeze(-2)
    adjoint = S.mH
    full = columns <= rows
    _, vectors = eigh_operator(torch.bmm(adjoint, S) if full else torch.bmm(S, adjoint))
    image = torch.bmm(S if full else adjoint, vectors)
    p = squared_modulus(image).sum(-2)
    negligible = p <= p.amax(-1, keepdim=True) * (torch.finfo(p.dtype).eps * max(rows, columns))
    U, W = (image, vectors) if full else (vectors, image)
    return p.masked_fill(negligible, 0), full, U.mH, W * amplitude.unsqueeze(-1)
