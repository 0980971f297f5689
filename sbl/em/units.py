"""The units in which EM works: columns of norm one, and x at the power that y suggests."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..algebra import kron_vectors, squared_modulus
from ..problem import Problem
from .run import Run

# Entries of x or y up to which a CPU works in double precision whatever the dtype, as `sbl.em.compiled` does.
SMALL = 2**16


class Units(NamedTuple):
    """x = amplitude (kron 1 / norms_i) x', where x' solves the problem that `equalise` gives.

    norms: (B or 1, N_i) each; amplitude: (B,); dtype: that of y, of the estimate.
    """

    norms: tuple[Tensor, ...]
    amplitude: Tensor
    dtype: torch.dtype

    def moments(self, mean: Tensor, variance: Tensor, positions: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Mean and variance of x from those of x', (B, n_1 ... n_I) at `positions` (B, n_i)."""
        weights = self.weights(positions)
        squares = [w.square() for w in weights]
        return self._cast(_weighed(mean, weights)), self._cast(_weighed(variance, squares))

    def whole(self, mean: Tensor) -> Tensor:
        """x of x', (B, N_1 ... N_I)."""
        every = tuple(_every(norm.expand(len(mean), -1)) for norm in self.norms)
        return self._cast(_weighed(mean, self.weights(every)))

    def noise(self, noise_variance: Tensor) -> Tensor:
        """That of y from that of y', (B,)."""
        return self._cast(noise_variance * self.amplitude.square())

    def prior_variances(self, g: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Those of x from those of x', (B, N_i) each."""
        weights = self.weights(tuple(map(_every, g)))
        return tuple(self._cast(v * w.square()) for v, w in zip(g, weights, strict=True))

    def run(self, run: Run, measurements: int) -> Run:
        """`run` with the noise variance, cost and prior variances of y and x for those of y' and x'."""
        power = self.amplitude.square()
        g, path = self.prior_variances(run.g), run.path
        if path is not None:
            squares = [w.square() for w in self.weights(tuple(map(_every, run.g)))]
            cost = path.cost + 2 * measurements * self.amplitude.log().unsqueeze(-1)
            noise = self._cast(path.noise_variance * power.unsqueeze(-1))
            g_path = tuple(self._cast(v * w.unsqueeze(1)) for v, w in zip(path.g, squares, strict=True))
            path = path._replace(
                cost=self._cast(cost), change=self._cast(path.change), noise_variance=noise, g=g_path
            )
        return run._replace(g=g, noise_variance=self.noise(run.noise_variance), path=path)

    def prior(self, g: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Prior variances of x' from those of x."""
        weights = self.weights(tuple(map(_every, g)))
        return tuple(v.to(w.dtype) / w.square() for v, w in zip(g, weights, strict=True))

    def weights(self, positions: tuple[Tensor, ...]) -> list[Tensor]:
        """What x is of x' at `positions`, the amplitude with the last."""
        size = self.amplitude.shape[0]
        weights = [norm.reciprocal().expand(size, -1) for norm in self.norms]
        if len(positions) < len(weights):
            weights = [kron_vectors(weights)]
        weights = [w.gather(-1, index) for w, index in zip(weights, positions, strict=True)]
        return [*weights[:-1], weights[-1] * self.amplitude.unsqueeze(-1)]

    def _cast(self, x: Tensor) -> Tensor:
        return x.to(self.dtype if x.is_complex() else self.dtype.to_real())


def equalise(problem: Problem, in_double: bool) -> tuple[Problem, Units]:
    """The same problem with columns of norm one and ||y||^2 = N, so that prior variances of one are y's scale.

    y = 0 stays zero, and so do columns that are zero to rounding. A known noise variance is at least the rounding
    of y, eps times its mean power. Small problems on a CPU, and all if `in_double`, go into double precision.

    >>> A, y = torch.tensor([[[3.0, 0.0], [4.0, 2.0]]]), torch.tensor([[0.0, 4.0]])
    >>> equal, units = equalise(Problem((A,), y, None, y.shape[:1]), False)
    >>> equal.factors[0].norm(dim=-2).float(), equal.y.square().sum().float(), units.norms[0].float()
    (tensor([[1., 1.]]), tensor(2.), tensor([[5., 2.]]))
    """
    dtype, N = problem.y.dtype, math.prod(problem.lengths)
    rounding = torch.finfo(dtype).eps
    if in_double or (problem.y.device.type == "cpu" and max(N, problem.y.shape[-1]) <= SMALL):
        problem = double(problem)
    scaled, norms = zip(*map(unit_columns, problem.factors), strict=True)
    amplitude = _norm(problem.y.unsqueeze(-1)).squeeze(-1) / math.sqrt(N)
    amplitude = torch.where(amplitude > 0, amplitude, torch.ones_like(amplitude))
    y, noise = problem.y / amplitude.unsqueeze(-1), problem.noise_variance
    if noise is not None:
        least = rounding * squared_modulus(y.detach()).mean(-1)
        noise = torch.maximum(noise / amplitude / amplitude, least)
    units = Units(norms, amplitude, dtype)
    prior = None if problem.prior is None else units.prior(problem.prior)
    return Problem(scaled, y, noise, problem.batch, prior), units


def unit_power(problem: Problem) -> tuple[Problem, Tensor]:
    """The problem with mean |y|^2 = 1, and what to multiply x by, (B,): zero where y is, which becomes ones.

    >>> y = torch.tensor([[3.0, 3.0], [0.0, 0.0]])
    >>> problem, amplitude = unit_power(Problem((torch.eye(2)[None],), y, torch.tensor([9.0, 9.0]), y.shape[:1]))
    >>> problem.y, problem.noise_variance, amplitude
    (tensor([[1., 1.],
            [1., 1.]]), tensor([1., 1.]), tensor([3., 0.]))
    """
    amplitude = _norm(problem.y.unsqueeze(-1)).squeeze(-1) / math.sqrt(problem.y.shape[-1])
    silent = amplitude == 0
    scale = amplitude.masked_fill(silent, 1)
    y = (problem.y / scale.unsqueeze(-1)).masked_fill(silent.unsqueeze(-1), 1)
    noise = problem.noise_variance
    if noise is not None:
        noise = (noise / scale / scale).masked_fill(silent, 1)
    return problem._replace(y=y, noise_variance=noise), amplitude


def _every(x: Tensor) -> Tensor:
    """The positions of all entries of x (B, n)."""
    return torch.arange(x.shape[-1], device=x.device).expand_as(x)


def double(problem: Problem) -> Problem:
    """The problem in double precision."""
    wide = torch.complex128 if problem.y.is_complex() else torch.float64
    noise = problem.noise_variance
    return Problem(
        tuple(A.to(wide) for A in problem.factors),
        problem.y.to(wide),
        None if noise is None else noise.double(),
        problem.batch,
        None if problem.prior is None else tuple(g.double() for g in problem.prior),
    )


def unit_columns(A: Tensor) -> tuple[Tensor, Tensor]:
    """A with columns of norm one, and their norms (B, n); negligible columns count as long as the longest."""
    norms = _norm(A)
    longest = norms.amax(-1, keepdim=True)
    negligible = norms <= longest * (torch.finfo(norms.dtype).eps * A.shape[-2])
    norms = torch.where(negligible, torch.where(longest > 0, longest, torch.ones_like(longest)), norms)
    return A / norms.unsqueeze(-2), norms


def _norm(A: Tensor) -> Tensor:
    """Norms of the columns (..., M, n), whose squares may overflow; zero has gradient zero."""
    largest = A.detach().abs().amax(-2, keepdim=True)
    largest = torch.where(largest > 0, largest, torch.ones_like(largest))
    return torch.linalg.vector_norm(A / largest, dim=-2) * largest.squeeze(-2)


def _weighed(x: Tensor, weights: list[Tensor]) -> Tensor:
    """(kron w_i) x of x (B, n_1 ... n_I) and w_i (B, n_i)."""
    sizes = [w.shape[-1] for w in weights]
    for i, w in enumerate(weights):
        shape = (len(x), math.prod(sizes[:i]), sizes[i], math.prod(sizes[i + 1 :]))
        x = (x.reshape(shape) * w[:, None, :, None]).flatten(1)
    return x
