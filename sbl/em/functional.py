"""Linear functionals of x under a posterior of Kronecker structure."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .kronecker_posterior import KroneckerPosterior, kronecker_posterior
from .state import State, shrink
from .units import Units


class Functional(NamedTuple):
    """Posterior mean and variance of (kron B_i) x: (..., R_1, ..., R_I), of y's dtype and real."""

    mean: Tensor
    variance: Tensor


class Functionals(NamedTuple):
    """The posterior that an estimate came from, of x', which `units` relates to x; None where it is x.

    posterior: under the prior variances of `state`; None where it is still to be formed. batch: what B stands for.
    """

    state: State
    posterior: KroneckerPosterior | None
    units: Units | None
    batch: torch.Size
    lengths: tuple[int, ...]
    dtype: torch.dtype

    def __call__(self, B: Sequence[Tensor]) -> Functional:
        """See `Estimate.functional`."""
        self._check(B)
        posterior = self.posterior or kronecker_posterior(shrink(self.state))
        kept = [self._on_kept(posterior.state.positions[i], i, b) for i, b in enumerate(B)]
        if self.units is not None:
            weights = self.units.weights(posterior.state.positions)
            kept = [b * w.unsqueeze(-2) for b, w in zip(kept, weights, strict=True)]
        mean, variance = posterior.functional(kept)
        rows = [b.shape[-2] for b in B]
        return Functional(
            mean.to(self.dtype).reshape(*self.batch, *rows),
            variance.to(self.dtype.to_real()).reshape(*self.batch, *rows),
        )

    def _on_kept(self, index: Tensor, i: int, b: Tensor) -> Tensor:
        """B_i on the columns that are kept: (B or 1, R_i, n_i)."""
        y = self.state.y
        b = b.to(torch.promote_types(b.dtype, y.dtype) if y.is_complex() else y.dtype)
        if b.ndim > 2:
            b = b.expand(*self.batch, *b.shape[-2:]).reshape(len(y), *b.shape[-2:])
        if index.shape[-1] < self.lengths[i]:
            columns = index.unsqueeze(-2).expand(-1, b.shape[-2], -1)
            b = b.expand(len(y), -1, -1).gather(-1, columns)
        elif b.ndim == 2:
            b = b.unsqueeze(0)
        return b

    def _check(self, B: Sequence[Tensor]) -> None:
        if len(B) != len(self.lengths):
            raise ValueError(f"B must hold {len(self.lengths)} matrices, one a factor, got {len(B)}")
        real = not self.state.y.is_complex()
        for i, (b, length) in enumerate(zip(B, self.lengths, strict=True)):
            if b.ndim < 2 or b.shape[-1] != length:
                raise ValueError(f"B[{i}] must be (..., R, {length}), got shape {tuple(b.shape)}")
            if real and b.is_complex():
                raise ValueError(f"B[{i}] is complex, but x is real")
            try:
                b.expand(*self.batch, *b.shape[-2:])
            except RuntimeError:
                raise ValueError(
                    f"the batch shape {tuple(b.shape[:-2])} of B[{i}] does not expand to {tuple(self.batch)}"
                ) from None
