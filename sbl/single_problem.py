"""SVD-KroSBL of one small problem on a CPU, in NumPy.

Matrices of order 20 cost less to multiply than PyTorch takes to be called, and NumPy is called in a quarter of the
time. The equations are those of `sbl.em`, `sbl.kronecker_posterior` and `sbl.svd_krosbl`, without a batch.
"""

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from kernels.leading_triplet import SAFE, rank_one
from sbl.problem import Problem
from sbl.run import Run
from sbl.state import State

Array = NDArray[Any]
LARGEST = 2**14  # entries of x or y, up to which calls take more time than arithmetic


class Factor(NamedTuple):
    """Kept columns of A_i (M_i, n_i), their prior variances g_i and their positions among all N_i."""

    A: Array
    g: Array
    position: Array


class Spectrum(NamedTuple):
    """Of diag(g_i)^1/2 A_i^H A_i diag(g_i)^1/2 if `full`, else of A_i diag(g_i) A_i^H; see `KroneckerPosterior`.

    shares: E_i, and in a column of its own e_i where not `full`.
    """

    p: Array
    adjoint: Array
    W: Array
    shares: Array
    full: bool


def serves(problem: Problem) -> bool:
    """Whether it is one problem, on a CPU, and small."""
    largest = max(math.prod(problem.lengths), problem.y.shape[-1])
    return problem.y.shape[0] == 1 and problem.y.device.type == "cpu" and largest <= LARGEST


@np.errstate(over="ignore", invalid="ignore")
def solve(
    state: State,
    ratios: Sequence[float],
    floor: float,
    noise_unknown: bool,
    iterations: int,
    tolerance: float,
) -> Run:
    """Run EM on the one problem of `state`, from its g, until g settles: what the batched loop gives."""
    lengths = [g.shape[-1] for g in state.g]
    y, s2 = state.y[0].numpy(force=True), state.noise_variance[0].numpy(force=True)
    factors = [
        Factor(A[0].numpy(force=True), g[0].numpy(force=True), np.arange(g.shape[-1]))
        for A, g in zip(state.factors, state.g, strict=True)
    ]
    count, change = 0, math.inf
    while count < iterations and change > tolerance:
        factors = [_pruned(factor, ratio, floor) for factor, ratio in zip(factors, ratios, strict=True)]
        second_moment, s2 = _e_step(factors, y, s2, noise_unknown)
        g = _m_step(second_moment, [len(factor.g) for factor in factors])
        change = _relative_change(g, [factor.g for factor in factors])
        factors = [factor._replace(g=new) for factor, new in zip(factors, g, strict=True)]
        count += 1
    return Run(
        members=torch.zeros(1, dtype=torch.int64),
        g=tuple(_at_full_length(factor, length) for factor, length in zip(factors, lengths, strict=True)),
        noise_variance=torch.as_tensor(s2).reshape(1),
        iterations=torch.tensor([count]),
        converged=torch.tensor([change <= tolerance]),
    )


def _pruned(factor: Factor, ratio: float, floor: float) -> Factor:
    """Without the entries that are zero, below `floor` or below `ratio` of the largest; one stays in any case."""
    A, g, position = factor
    kept = (g >= max(ratio * g.max(), floor)) & (g > 0)
    if kept.all():
        return factor
    if not kept.any():
        return Factor(A[:, :1], 0 * g[:1], position[:1])
    return Factor(A[:, kept], g[kept], position[kept])


def _e_step(factors: list[Factor], y: Array, s2: Array, noise_unknown: bool) -> tuple[Array, Array]:
    """L = variance + |mean|^2 (n_1 ... n_I) and the next noise variance."""
    spectra = [_spectrum(factor) for factor in factors]
    P = _kron_vectors([spectrum.p for spectrum in spectra])
    null = P == 0
    D = 1 / (s2 + np.where(null, math.inf, P))
    z = _apply_kron([spectrum.adjoint for spectrum in spectra], y)
    mean = _apply_kron([spectrum.W for spectrum in spectra], z * D)
    kept = np.ones([spectrum.shares.shape[1] for spectrum in spectra], P.dtype)
    sizes = [len(spectrum.p) for spectrum in spectra]
    kept[tuple(slice(size) for size in sizes)] = np.where(null, 1, s2 * D).reshape(sizes)
    variance = _apply_kron([spectrum.shares for spectrum in spectra], kept)
    if noise_unknown:
        inverse = [_reciprocal(s.p) if s.full else np.ones_like(s.p) for s in spectra]
        energy = _squared_modulus(z) * _kron_vectors(inverse) * ~null
        outside = max(_squared_modulus(y).sum() - energy.sum(), 0)
        residual = (energy * (1 - P * D) ** 2).sum() + outside
        s2 = (residual + s2 * (P * D).sum()) / len(y)
    return variance + _squared_modulus(mean), s2


def _spectrum(factor: Factor) -> Spectrum:
    A, g, _ = factor
    amplitude = np.sqrt(g)
    S = A * amplitude
    full = A.shape[1] <= A.shape[0]
    p, vectors = np.linalg.eigh(S.conj().T @ S if full else S @ S.conj().T)
    p = np.where(p <= p[-1] * (np.finfo(p.dtype).eps * max(A.shape)), 0, p)
    U, W = (S @ vectors, vectors) if full else (vectors, S.conj().T @ vectors)
    W = W * amplitude[:, None]
    shares = _squared_modulus(W)
    if not full:
        shares = shares * _reciprocal(p)
        left = np.maximum(g - shares.sum(-1), 0)
        shares = np.concatenate((shares, left[:, None]), 1)
    return Spectrum(p, U.conj().T, W, shares, full)


def _m_step(second_moment: Array, lengths: list[int]) -> list[Array]:
    g, rest = [], second_moment
    for length in lengths[:-1]:
        u, image = _rank_one(rest.reshape(length, -1))
        g.append(np.abs(u))
        rest = np.abs(image)
    return [*g, rest]


def _rank_one(matrix: Array) -> tuple[Array, Array]:
    """u and sigma v of the best rank-one approximation sigma u v^T."""
    wide = matrix.astype(np.float64, copy=False)
    tall = wide.shape[0] > wide.shape[1]
    if tall:
        wide = wide.T
    gram = wide @ wide.T
    if not SAFE[0] < gram.trace() < SAFE[1]:
        _, u, image = rank_one(torch.from_numpy(matrix))
        return u.numpy(), image.numpy()
    u = np.linalg.eigh(gram)[1][:, -1]
    image = u @ wide
    if tall:
        sigma = np.linalg.norm(image)
        u, image = image / sigma, u * sigma
    return u.astype(matrix.dtype, copy=False), image.astype(matrix.dtype, copy=False)


def _relative_change(new: list[Array], old: list[Array]) -> float:
    """||kron(new) - kron(old)|| / ||kron(old)||, zero from zero to zero; see `sbl.algebra.kron_distance`."""
    pairs = [(u.astype(np.float64), v.astype(np.float64)) for u, v in zip(new, old, strict=True)]
    moved, mixed, scale = (
        math.prod(float(a @ b) for a, b in products)
        for products in ([(u, u) for u, _ in pairs], pairs, [(v, v) for _, v in pairs])
    )
    return math.sqrt(max((moved + scale - 2 * mixed) / scale, 0)) if scale > 0 else 0.0


def _kron_vectors(vectors: list[Array]) -> Array:
    return reduce(lambda u, v: np.multiply.outer(u, v).ravel(), vectors)


def _apply_kron(matrices: list[Array], x: Array) -> Array:
    for matrix in reversed(matrices):
        x = matrix @ x.reshape(-1, matrix.shape[1]).T
    return x.ravel()


def _squared_modulus(x: Array) -> Array:
    return x.real**2 + x.imag**2 if np.iscomplexobj(x) else x * x


def _reciprocal(x: Array) -> Array:
    return 1 / np.where(x > 0, x, math.inf)


def _at_full_length(factor: Factor, length: int) -> torch.Tensor:
    g = np.zeros(length, factor.g.dtype)
    g[factor.position] = factor.g
    return torch.from_numpy(g).unsqueeze(0)
