"""Linear estimation of the least mean square error, from a true or a sample covariance."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...kernels import kron_matvec
from ..em.units import double
from ..estimate import Estimate
from ..problem import Problem, pose
from .answer import answer
from .gaussian import gaussian_posterior

# Entries of a root, for all problems that are worked on at once.
ENTRIES = 2**24


@dataclass(frozen=True)
class LMMSE:
    """x^ = C A^H (A C A^H + s2 I)^-1 y, the linear estimate of the least mean square error.

    roots: of C = L L^H, either L_i (..., N_i, r_i) of C = kron L_i L_i^H, which never leaves the factors' size, or
        one L (..., N, r) for all of x; see `covariance_root` and `sample_root`. Batch shapes broadcast with y's.
    An unknown noise variance is that of the greatest likelihood of y ~ N(0, A C A^H + s2 I).
    Source: Kay, Fundamentals of Statistical Signal Processing: Estimation Theory, 1993, section 12.3.

    >>> A = [torch.eye(2), torch.eye(2)]
    >>> LMMSE([torch.eye(2), torch.diag(torch.tensor([1.0, 0.0]))])(A, torch.ones(4), 1.0).mean
    tensor([[0.5000, 0.0000],
            [0.5000, 0.0000]])
    """

    roots: Sequence[Tensor]

    def __call__(
        self, factors: Sequence[Tensor], y: Tensor, noise_variance: Tensor | float | None = None
    ) -> Estimate:
        """Estimate x (..., N_1, ..., N_I) and its variances from y (..., M).

        Raises:
            ValueError: an argument or the roots have a wrong shape, a NaN, or a negative variance; the message
                names it.
        """
        given = pose(factors, y, noise_variance)
        problem = double(given)
        roots = self._fitting(problem)
        parts = [
            _posterior(problem.pick(members), [L if len(L) == 1 else L[members] for L in roots])
            for members in _members(problem, roots)
        ]
        mean, variance, noise = (torch.cat(part) for part in zip(*parts, strict=True))
        return answer(
            given, mean, variance, noise if problem.noise_variance is None else problem.noise_variance
        )

    def _fitting(self, problem: Problem) -> list[Tensor]:
        """The roots as (B or 1, N_i, r_i) in double precision; ValueError where they do not fit."""
        lengths, N = list(problem.lengths), math.prod(problem.lengths)
        rows = [L.shape[-2] if L.ndim >= 2 else 0 for L in self.roots]
        if rows not in (lengths, [N]):
            raise ValueError(f"roots must have {lengths} rows, or one root {N}, got {rows}")
        flat = []
        for i, L in enumerate(self.roots):
            if not bool(torch.isfinite(L).all()):
                raise ValueError(f"roots[{i}] has NaN or infinite entries")
            if L.is_complex() and not problem.y.is_complex():
                raise ValueError(f"roots[{i}] must be real where y is, got {L.dtype}")
            L = L.to(device=problem.y.device, dtype=problem.y.dtype)
            if math.prod(L.shape[:-2]) == 1:
                flat.append(L.reshape(1, *L.shape[-2:]))
                continue
            try:
                flat.append(L.expand(*problem.batch, *L.shape[-2:]).reshape(-1, *L.shape[-2:]))
            except RuntimeError:
                shape, batch = tuple(L.shape), tuple(problem.batch)
                raise ValueError(
                    f"roots[{i}] of shape {shape} does not broadcast to the batch {batch}"
                ) from None
        return flat


def covariance_root(covariance: Tensor) -> Tensor:
    """L of C = L L^H, for a covariance C (..., N, N), which need not be of full rank.

    >>> L = covariance_root(torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
    >>> (L @ L.mH).round(decimals=4)
    tensor([[2., 1.],
            [1., 2.]])
    """
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt().unsqueeze(-2)


def sample_root(samples: Tensor) -> Tensor:
    """L (N, S) of the sample covariance L L^H of vectors of mean zero, samples (S, ...).

    >>> L = sample_root(torch.tensor([[1.0, 0.0], [1.0, 2.0]]))
    >>> (L @ L.mT).round(decimals=4)
    tensor([[1., 1.],
            [1., 2.]])
    """
    return samples.flatten(1).mT / math.sqrt(len(samples))


def _members(problem: Problem, roots: Sequence[Tensor]) -> Iterator[slice]:
    """Problems that are worked on together: all where they share their matrices."""
    total = len(problem.y)
    shared = len(roots) == len(problem.factors) or all(len(part) == 1 for part in (*problem.factors, *roots))
    size = total if shared else max(1, ENTRIES // roots[0][0].numel())
    return (slice(start, start + size) for start in range(0, max(1, total), max(1, size)))


def _posterior(problem: Problem, roots: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (B, N), variance (B, N) and noise variance (B,)."""
    if len(roots) == len(problem.factors):
        mixed = [A @ L for A, L in zip(problem.factors, roots, strict=True)]
    else:
        mixed = [kron_matvec([A.unsqueeze(1) for A in problem.factors], roots[0].mT).mT]
    found = gaussian_posterior(mixed, problem.y, problem.noise_variance)
    variance = found.variance(roots)
    return found.mean(roots), variance.expand(len(problem.y), -1), found.noise
