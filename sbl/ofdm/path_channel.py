"""A stream's channel as a sum of paths off the grid: from pilots to all resource elements."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..algebra import squared_modulus
from .axis import Axis
from .grids import ArrayAxes, Pilots, trend
from .paths import OffGridKroSBL, PathPosterior

STRIDE = 8  # subcarriers between those at which the variance is computed


@dataclass(frozen=True)
class PathChannel:
    """The model of `OffGridKroSBL` for the streams of one group of pilots.

    A path has a beam on each line of the array and a delay; level and slope over time, and polarisations, are
    snapshots that share it. spacing: of subcarriers, hertz; delays: (N,), where paths are looked for, uniform;
    symbols, subcarriers: of the whole grid; slope: its prior variance beside that of the level, at the start.
    """

    group: Pilots
    array: ArrayAxes
    spacing: float
    delays: Tensor
    symbols: int
    subcarriers: Tensor
    slope: float

    def estimate(
        self, estimator: OffGridKroSBL, observed: Tensor, noise_variance: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mean and variance of h, (B, streams, antennas, symbols, F), what is left of the pilots, and whether the
        paths sufficed.

        observed: (B, streams, S x antennas x K), |p| h + noise; the third has this shape. noise_variance:
        (B, streams) or None. Where the paths did not suffice, (B, streams), the variance leaves out what remains.
        """
        B, streams = observed.shape[:2]
        y = self._snapshots(observed.to(torch.complex128)).flatten(0, 1)
        axes, T = self._at_pilots(y.device), self._times()[0].shape[-1]
        profile = torch.ones(T, y.shape[1] // T, dtype=torch.float64)
        profile[1:] = self.slope
        noise = None if noise_variance is None else noise_variance.flatten()
        paths = estimator(axes, y, profile.flatten(), noise)
        posterior = PathPosterior.of(axes, paths, y)
        enough = paths.found() < estimator.paths
        unexplained = posterior.unexplained() * enough.unsqueeze(-1)
        mean = self._over_time(posterior.mean(self._on_grid(B, self.subcarriers, y.device)))
        places = strided(len(self.subcarriers), y.device)
        few = self._on_grid(B, self.subcarriers[places.cpu()], y.device)
        variance = posterior.variance(few, observed.dtype)
        variance = variance + unexplained[(..., *[None] * len(axes))]
        variance = between(self._over_time(variance), places)
        found = self._pilots(y - posterior.residual).view_as(observed)
        mean, variance = (x.unflatten(0, (B, streams)) for x in (mean, variance))
        return mean, variance, observed - found, enough.view(B, streams)

    def _times(self) -> tuple[Tensor, Tensor]:
        """Orthonormal level and slope at the pilots, (S, T), and the same functions at all symbols."""
        pilots = self.group.symbols.double()
        Q, R = torch.linalg.qr(trend(pilots, pilots) * self.group.in_time.unsqueeze(-1))
        whole = trend(torch.arange(self.symbols, dtype=torch.float64), pilots)
        return Q, torch.linalg.solve_triangular(R, whole, upper=True, left=False)

    def _at_pilots(self, device: torch.device) -> list[Axis]:
        return self._axes(self.group.offsets.double(), self.group.in_frequency, device)

    def _on_grid(self, batch: int, subcarriers: Tensor, device: torch.device) -> list[Axis]:
        """At these subcarriers, counted from each stream's first pilot."""
        from_first = (subcarriers - self.group.first.unsqueeze(-1)).double()
        *lines, delays = self._axes(from_first, torch.ones(len(subcarriers), dtype=torch.float64), device)
        return [*lines, delays._replace(phases=delays.phases.repeat(batch, 1))]

    def _axes(self, subcarriers: Tensor, weights: Tensor, device: torch.device) -> list[Axis]:
        """Beams in units of a Fourier beam, delays in steps of `delays`, about the centres of array and pilots."""
        step = float(self.delays[1] - self.delays[0]) if len(self.delays) > 1 else 1.0
        power = self.group.in_frequency.square()
        centre = (power * self.group.offsets).sum() / power.sum()
        lines = [n for n, beams in zip(self.array.sizes, self.array.beams, strict=True) if beams and n > 1]
        found = [
            Axis(
                2 * math.pi / n * (torch.arange(n, dtype=torch.float64) - (n - 1) / 2),
                torch.ones(n, dtype=torch.float64),
                torch.arange(2 * n) / 2,
            )
            for n in lines
        ]
        phases = -2 * math.pi * self.spacing * step * (subcarriers - centre)
        found.append(Axis(phases, weights.double(), self.delays / step))
        return [Axis(*(x.to(device) for x in axis)) for axis in found]

    def _sizes(self) -> tuple[list[int], list[int], list[int]]:
        """Sizes of the array's axes, and which of them are snapshots and which lines with beams."""
        beams = [b and n > 1 for n, b in zip(self.array.sizes, self.array.beams, strict=True)]
        axes = range(len(beams))
        return list(self.array.sizes), [i for i in axes if not beams[i]], [i for i in axes if beams[i]]

    def _snapshots(self, observed: Tensor) -> Tensor:
        """(..., L, lines, K)."""
        sizes, snapshots, lines = self._sizes()
        Q = self._times()[0].to(observed)
        x = observed.unflatten(-1, (len(Q), *sizes, -1))
        x = torch.einsum("st,...sm->...tm", Q, x.flatten(observed.ndim)).unflatten(
            -1, x.shape[observed.ndim :]
        )
        first = observed.ndim
        order = [*range(first), *(first + i for i in (*snapshots, *lines)), x.ndim - 1]
        return x.permute(order).flatten(first - 1, first - 1 + len(snapshots))

    def _antennas(self, x: Tensor) -> Tensor:
        """(B, T, antennas, F) of (B, L, lines, F)."""
        sizes, snapshots, lines = self._sizes()
        x = x.unflatten(1, (-1, *(sizes[i] for i in snapshots)))
        place = {axis: 2 + k for k, axis in enumerate((*snapshots, *lines))}
        return x.permute(0, 1, *(place[i] for i in range(len(sizes))), x.ndim - 1).flatten(2, -2)

    def _over_time(self, x: Tensor) -> Tensor:
        """(B, antennas, symbols, F): of a mean, complex, or of variances, real."""
        at = self._times()[1].to(x.device)
        at = at.to(x.dtype) if x.is_complex() else squared_modulus(at)
        return torch.einsum("st,btaf->basf", at, self._antennas(x))

    def _pilots(self, x: Tensor) -> Tensor:
        """(B, S x antennas x K) of snapshots at the pilots (B, L, lines, K)."""
        return torch.einsum("st,btaf->bsaf", self._times()[0].to(x), self._antennas(x)).flatten(1)


def strided(n: int, device: torch.device) -> Tensor:
    """0, `STRIDE`, ... and n - 1."""
    return torch.unique(torch.cat((torch.arange(0, n, STRIDE), torch.tensor([n - 1])))).to(device)


def between(values: Tensor, places: Tensor) -> Tensor:
    """Linear interpolation of (..., m) at the whole numbers `places`, from 0 to n - 1: (..., n)."""
    at = torch.arange(int(places[-1]) + 1, device=places.device)
    right = torch.searchsorted(places, at).clamp(min=min(1, len(places) - 1))
    left = (right - 1).clamp(min=0)
    share = ((at - places[left]) / (places[right] - places[left]).clamp(min=1)).to(values)
    return values[..., left] * (1 - share) + values[..., right] * share
