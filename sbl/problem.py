"""What every estimator takes: validation of the arguments and one flat batch axis."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..kernels.dispatch.checks import broadcast_batches


class Problem(NamedTuple):
    """y = (A_1 kron ... kron A_I) x + noise for a flat batch of B problems.

    factors: (B, M_i, N_i), or (1, M_i, N_i) where all share one; y: (B, M);
    noise_variance: (B,) real, None if unknown; batch: the shape that B stands for; prior: prior variances to start
    at, (B, N_i) each or one (B, N) for an unstructured prior, None if none were given.
    """

    factors: tuple[Tensor, ...]
    y: Tensor
    noise_variance: Tensor | None
    batch: torch.Size
    prior: tuple[Tensor, ...] | None = None

    @property
    def lengths(self) -> tuple[int, ...]:
        """N_1, ..., N_I."""
        return tuple(factor.shape[-1] for factor in self.factors)

    def pick(self, members: Tensor | slice) -> "Problem":
        """The problems of the flat batch at these indices."""
        factors = tuple(f if f.shape[0] == 1 else f[members] for f in self.factors)
        noise = None if self.noise_variance is None else self.noise_variance[members]
        y = self.y[members]
        prior = None if self.prior is None else tuple(g[members] for g in self.prior)
        return Problem(factors, y, noise, y.shape[:1], prior)


def pose(factors: Sequence[Tensor], y: Tensor, noise_variance: Tensor | float | None) -> Problem:
    """Check an estimator's arguments and flatten their batch shape.

    Args:
        factors: (..., M_i, N_i), all of one dtype (float32, float64 or their complex types) and device.
        y: (..., prod M_i), of the factors' dtype; the batch shapes broadcast.
        noise_variance: real; its shape broadcasts with the batch; None where unknown.

    Raises:
        ValueError: names the argument whose shape, type or value is wrong.

    >>> pose([torch.eye(2), torch.eye(3)], torch.zeros(4, 5, 6), 0.1).y.shape
    torch.Size([20, 6])
    """
    _check_tensors(factors, y)
    batch = broadcast_batches("factors and y", *(f.shape[:-2] for f in factors), y.shape[:-1])
    noise = None if noise_variance is None else _noise(noise_variance, y)
    if noise is not None:
        batch = broadcast_batches("noise_variance and the others", noise.shape, batch)
    size = math.prod(batch)
    flat = tuple(
        f.reshape(1, *f.shape[-2:])
        if math.prod(f.shape[:-2]) == 1
        else f.expand(*batch, *f.shape[-2:]).reshape(size, *f.shape[-2:])
        for f in factors
    )
    return Problem(
        flat,
        y.expand(*batch, y.shape[-1]).reshape(size, y.shape[-1]),
        None if noise is None else noise.expand(batch).reshape(size),
        batch,
    )


def with_prior(problem: Problem, prior: Sequence[Tensor], lengths: Sequence[int]) -> Problem:
    """The problem with prior variances to start at.

    prior: (..., length) for each of `lengths`, real, finite and not negative; their batch shapes expand to that of
        the problem.

    Raises:
        ValueError: says which one is wrong, and how.

    >>> problem = pose([torch.eye(2)], torch.zeros(3, 2), 0.1)
    >>> with_prior(problem, [torch.tensor([1.0, 0.0])], [2]).prior[0].shape
    torch.Size([3, 2])
    """
    if len(prior) != len(lengths):
        raise ValueError(f"prior must hold {len(lengths)} vectors, got {len(prior)}")
    flat = []
    for i, (g, length) in enumerate(zip(prior, lengths, strict=True)):
        if g.ndim < 1 or g.shape[-1] != length or g.is_complex():
            raise ValueError(
                f"prior[{i}] must be real of shape (..., {length}), got {tuple(g.shape)}, {g.dtype}"
            )
        _check_finite(f"prior[{i}]", g)
        if not values_hidden() and bool((g < 0).any()):
            raise ValueError(f"prior[{i}] must not be negative")
        try:
            g = g.to(problem.y.real.dtype).expand(*problem.batch, length)
        except RuntimeError:
            raise ValueError(
                f"the batch shape {tuple(g.shape[:-1])} of prior[{i}] does not expand to {tuple(problem.batch)}"
            ) from None
        flat.append(g.reshape(problem.y.shape[0], length))
    return problem._replace(prior=tuple(flat))


def _check_tensors(factors: Sequence[Tensor], y: Tensor) -> None:
    if not isinstance(factors, Sequence) or len(factors) == 0:
        raise ValueError("factors must be a non-empty sequence of matrices")
    for name, x in [*((f"factors[{i}]", factor) for i, factor in enumerate(factors)), ("y", y)]:
        if not isinstance(x, Tensor):
            raise ValueError(f"{name} must be a tensor, got {type(x).__name__}")
    for i, factor in enumerate(factors):
        if factor.ndim < 2 or 0 in factor.shape[-2:]:
            raise ValueError(
                f"factors[{i}] must be a (..., M_i, N_i) matrix, got shape {tuple(factor.shape)}"
            )
        if factor.dtype != y.dtype or factor.device != y.device:
            raise ValueError(
                f"factors[{i}] is {factor.dtype} on {factor.device}, but y is {y.dtype} on {y.device}"
            )
        _check_finite(f"factors[{i}]", factor)
    if not (y.is_floating_point() or y.is_complex()):
        raise ValueError(f"y must be real or complex floating point, got {y.dtype}")
    rows = math.prod(factor.shape[-2] for factor in factors)
    if y.ndim < 1 or y.shape[-1] != rows:
        raise ValueError(
            f"y must have shape (..., {rows}), the product of the factors' rows, got {tuple(y.shape)}"
        )
    _check_finite("y", y)


def _noise(noise_variance: Tensor | float, y: Tensor) -> Tensor:
    dtype = None if isinstance(noise_variance, Tensor) else torch.float64
    try:
        given = torch.as_tensor(noise_variance, dtype=dtype, device=y.device)
    except (TypeError, ValueError):
        raise ValueError(f"noise_variance must be a real number or tensor, got {noise_variance!r}") from None
    if given.is_complex():
        raise ValueError(f"noise_variance must be real, got {given.dtype}")
    _check_finite("noise_variance", given)
    noise = given.to(y.real.dtype)
    if values_hidden():
        return noise
    if bool((given < 0).any()):
        raise ValueError("noise_variance must not be negative")
    if given.dtype != noise.dtype and bool(noise.isinf().any() | ((noise == 0) & (given > 0)).any()):
        raise ValueError(
            f"noise_variance is out of the range of {noise.dtype}: scale y, or give it in float64"
        )
    return noise


def _check_finite(name: str, x: Tensor) -> None:
    if values_hidden() or bool(torch.isfinite(x.sum())):  # one pass; it may overflow
        return
    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"{name} has NaN or infinite entries")


def values_hidden() -> bool:
    """Whether torch.func traces: its tensors have no value to test."""
    return torch._C._are_functorch_transforms_active()
