"""A coordinate of paths, such as a beam or a delay, and what is observed over several."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Axis(NamedTuple):
    """A coordinate c of paths, whose response is weights * exp(j phases c).

    phases: (n,), or (B, n) of each problem. weights: (n,). candidates: (m,), where paths are looked for.
    """

    phases: Tensor
    weights: Tensor
    candidates: Tensor

    def waves(self, positions: Tensor) -> Tensor:
        """(..., n, P) of positions (..., P)."""
        phase = self.phases.unsqueeze(-1) * positions.unsqueeze(-2)
        return self.weights.unsqueeze(-1) * torch.polar(torch.ones_like(phase), phase)

    def slopes(self, waves: Tensor) -> Tensor:
        """Their derivatives by the position."""
        return 1j * self.phases.unsqueeze(-1) * waves

    def resolution(self) -> float:
        """2 pi / (n spacing of the phases); 1 where there is one place."""
        n, extent = len(self.phases), float(self.phases.max() - self.phases.min())
        return 2 * math.pi * (n - 1) / (n * extent) if extent else 1.0


def check_observation(
    axes: Sequence[Axis], y: Tensor, profile: Tensor, noise_variance: Tensor | None
) -> None:
    """Raise ValueError, which names the argument, for what is no observation (B, L, n_1, ..., n_d) over axes."""
    if not axes or not all(isinstance(axis, Axis) for axis in axes):
        raise ValueError("axes must hold at least one sbl.ofdm.axis.Axis")
    sizes = tuple(axis.phases.shape[-1] for axis in axes)
    if y.dtype != torch.complex128 or y.ndim != len(sizes) + 2 or y.shape[2:] != sizes:
        raise ValueError(f"y must be complex128, (B, L, *{sizes}), got {y.dtype}, {tuple(y.shape)}")
    if not y.isfinite().all():
        raise ValueError("y must be finite")
    _check_powers("profile", profile, y.shape[1])
    if not profile.any():
        raise ValueError("profile must be positive somewhere")
    if noise_variance is not None:
        _check_powers("noise_variance", noise_variance, len(y))


def _check_powers(name: str, x: Tensor, count: int) -> None:
    if x.shape != (count,) or not x.is_floating_point() or not (x.isfinite() & (x >= 0)).all():
        raise ValueError(
            f"{name} must be real, ({count},), finite and not negative, got {x.dtype}, {tuple(x.shape)}"
        )
