"""The uplink of a MIMO system aided by an intelligent reflecting surface (IRS)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .arrays import angular_grid, steering_vectors

Array = int | tuple[int, int]


class Training(NamedTuple):
    """What base and mobile station agree on: pilots X (ms, K_P) and IRS patterns Theta (irs, K_I)."""

    pilots: Tensor
    patterns: Tensor


class Channel(NamedTuple):
    """One draw: H1 (irs, ms) from the mobile station to the IRS, H2 (bs, irs) from there to the base station."""

    to_irs: Tensor
    to_bs: Tensor


class Rays(NamedTuple):
    """The rays of one hop of B draws, what its channel is made of.

    gains: (B, paths, spread), CN(0, 1). arrivals: cosines, (B, paths, spread). departures: (B, paths, 1). The
    cosines of a planar array have one more axis of size 2.
    """

    gains: Tensor
    arrivals: Tensor
    departures: Tensor


@dataclass(frozen=True)
class IRSMIMO:
    """An IRS-aided MIMO uplink with arrays at half a wavelength's spacing.

    bs, ms, irs: antennas or elements; a pair (n_1, n_2) is a planar array.
    grid: points of the dictionaries' cosines; a pair for each dimension of the planar arrays.
    paths: departure directions of each hop; each arrives over `spread` neighbouring cosines.
    pilots, patterns: K_P and K_I. on_grid: directions lie on the grid; otherwise anywhere between.
    Sizes default to the paper's. Source: He and Joseph, IEEE Trans. Signal Processing 2024, section V.

    >>> system, generator = IRSMIMO(), torch.Generator().manual_seed(0)
    >>> training, channel = system.draw_training(generator), system.draw_channel(generator)
    >>> [tuple(A.shape) for A in system.factors(training)]
    [(6, 18), (3, 18), (16, 18)]
    >>> system.received(channel, training).shape
    torch.Size([288])
    """

    bs: Array = 16
    ms: Array = 6
    irs: Array = 256
    grid: int = 18
    paths: int = 1
    spread: int = 3
    pilots: int = 3
    patterns: int = 6
    on_grid: bool = True
    dtype: torch.dtype = torch.complex128

    def __post_init__(self) -> None:
        for name in ("bs", "ms", "irs", "grid", "paths", "spread", "pilots", "patterns"):
            value = getattr(self, name)
            if min(value if isinstance(value, tuple) else (value,)) < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.dtype not in (torch.complex64, torch.complex128):
            raise ValueError(f"dtype must be torch.complex64 or torch.complex128, got {self.dtype}")
        if self.spread > self.grid:
            raise ValueError(f"spread {self.spread} exceeds the grid of {self.grid}")

    @property
    def unknowns(self) -> tuple[int, int, int]:
        """Columns of the factors: points of the grid of each array."""
        irs, ms, bs = (
            self.grid if isinstance(n, int) else self.grid**2 for n in (self.irs, self.ms, self.bs)
        )
        return irs, ms, bs

    def dictionary(self, array: Array, device: torch.device | str = "cpu") -> Tensor:
        """Steering vectors on the grid as columns: (elements, grid), or (elements, grid^2) for a planar array."""
        points = self.grid if isinstance(array, int) else (self.grid, self.grid)
        return steering_vectors(angular_grid(points, self.dtype.to_real()), array).mT.to(device)

    def draw_training(self, generator: torch.Generator) -> Training:
        """QPSK pilots of modulus 1 / sqrt(ms) and patterns of +-1 / sqrt(irs)."""
        ms, irs = array_size(self.ms), array_size(self.irs)
        signs = (
            torch.randint(0, 2, (2, ms, self.pilots), generator=generator).to(self.dtype.to_real()) * 2 - 1
        )
        pilots = torch.complex(signs[0], signs[1]) / math.sqrt(2 * ms)
        patterns = torch.randint(0, 2, (irs, self.patterns), generator=generator) * 2 - 1
        return Training(pilots, patterns.to(self.dtype) / math.sqrt(irs))

    def draw_channel(self, generator: torch.Generator) -> Channel:
        """Fresh directions and CN(0, 1) gains for both hops."""
        return Channel(*(hop[0] for hop in self.draw_channels([generator])))

    def draw_channels(
        self, generators: Sequence[torch.Generator], device: torch.device | str = "cpu"
    ) -> Channel:
        """One channel from each generator: (len(generators), irs, ms) and (len(generators), bs, irs)."""
        return self.channel_of_rays(self.draw_rays(generators, device))

    def draw_rays(
        self, generators: Sequence[torch.Generator], device: torch.device | str = "cpu"
    ) -> tuple[Rays, Rays]:
        """The rays of both hops of `draw_channels`, one draw from each generator."""
        hops = ((self.ms, self.irs), (self.irs, self.bs))
        drawn = [[self._rays(source, sink, generator) for source, sink in hops] for generator in generators]
        drawn_hops = []
        for (source, sink), rays in zip(hops, zip(*drawn, strict=True), strict=True):
            gains, arrivals, departures = zip(*rays, strict=True)
            cosines = self._cosines(sink, arrivals, self.spread), self._cosines(source, departures, 1)
            drawn_hops.append(Rays(*(part.to(device) for part in (torch.stack(gains), *cosines))))
        first, second = drawn_hops
        return first, second

    def channel_of_rays(self, rays: tuple[Rays, Rays]) -> Channel:
        """Each hop is the sum over paths of (sum over its rays of gain times a(arrival)) a(departure)^H."""
        first, second = rays
        return Channel(self._hop(self.ms, self.irs, *first), self._hop(self.irs, self.bs, *second))

    def draw_noise(self, generator: torch.Generator) -> Tensor:
        """CN(0, 1) for every received sample: (bs K_P K_I,)."""
        return torch.randn(
            array_size(self.bs) * self.pilots * self.patterns, generator=generator, dtype=self.dtype
        )

    def factors(self, training: Training) -> tuple[Tensor, Tensor, Tensor]:
        """H_irs (K_I, grid), H_ms (K_P, grid) and A_bs (bs, grid): y = (H_irs kron H_ms kron A_bs) x + noise.

        The IRS only shows the difference of its departure and arrival cosines, which lies on the same grid:
        H_irs = Theta^T (a(-1) * conj(A_irs)); H_ms = X^T conj(A_ms).
        """
        device = training.pilots.device
        A_irs, A_ms, A_bs = (self.dictionary(array, device) for array in (self.irs, self.ms, self.bs))
        H_irs = training.patterns.mT @ (A_irs[:, :1] * A_irs.conj())
        return H_irs, training.pilots.mT @ A_ms.conj(), A_bs

    def cascade(self, channel: Channel, training: Training) -> Tensor:
        """H2 diag(theta_t) H1 for each pattern: (..., K_I, bs, ms)."""
        H1, H2 = channel
        reflected = training.patterns.unsqueeze(-1) * H1.unsqueeze(-2)
        every = H2 @ reflected.flatten(-2)  # the patterns side by side: one product of matrices for all
        return every.unflatten(-1, reflected.shape[-2:]).movedim(-2, -3)

    def received(self, channel: Channel, training: Training) -> Tensor:
        """Noise-free samples (..., K_I K_P bs), stacked as the factors are."""
        return self.samples(self.cascade(channel, training), training)

    def samples(self, cascade: Tensor, training: Training) -> Tensor:
        """Noise-free samples (..., K_I K_P bs) of a cascaded channel."""
        return (cascade @ training.pilots.unsqueeze(-3)).mT.flatten(-3)

    def channel_of(self, x: Tensor, training: Training) -> Tensor:
        """The cascaded channel that coefficients x (..., grid, grid, grid) describe: (..., K_I, bs, ms)."""
        seen = torch.einsum("...tn,...nmb->...tbm", self.factors(training)[0], x)
        return self.dictionary(self.bs, x.device) @ seen @ self.dictionary(self.ms, x.device).mH

    def _rays(
        self, source: Array, sink: Array, generator: torch.Generator
    ) -> tuple[Tensor, list[Any], list[Any]]:
        """Gains (paths, spread) of a hop, and where its paths' arrivals and departures begin on the grid."""
        gains, arrivals, departures = [], [], []
        for _ in range(self.paths):
            gains.append(torch.randn(self.spread, generator=generator, dtype=self.dtype))
            arrivals.append(self._first(sink, self.spread, generator))
            departures.append(self._first(source, 1, generator))
        return torch.stack(gains), arrivals, departures

    def _hop(self, source: Array, sink: Array, gains: Tensor, arrivals: Tensor, departures: Tensor) -> Tensor:
        """(..., sink, source)."""
        scale = math.sqrt(array_size(source) * array_size(sink) / (self.paths * self.spread))
        arriving = (gains.unsqueeze(-1) * steering_vectors(arrivals, sink)).sum(-2)
        departing = steering_vectors(departures, source).squeeze(-2)
        return scale * (arriving.mT @ departing.conj())

    def _first(self, array: Array, count: int, generator: torch.Generator) -> list[Any]:
        """The step of the grid at which `count` neighbouring cosines begin, and what they are behind it.

        For a planar array a pair of these.
        """
        if not isinstance(array, int):
            return [self._first(n, count, generator) for n in array]
        step = torch.randint(0, self.grid - count + 1, (), generator=generator)
        behind = 0.0 if self.on_grid else torch.rand((), generator=generator, dtype=torch.float64).item()
        return [step.item(), behind]

    def _cosines(self, array: Array, first: Sequence[list[Any]], count: int) -> Tensor:
        """`count` neighbouring cosines of each path, (..., paths, count), or (..., paths, count, 2) if planar."""
        step, behind = torch.tensor(first, dtype=torch.float64).unsqueeze(-2).unbind(-1)
        steps = step + torch.arange(count) + behind
        if self.on_grid:
            steps = steps.float()  # whole numbers, whose quotient is rounded so in the trials of every seed
        cosines = (-1 + 2 * steps / self.grid).to(self.dtype.to_real())
        return cosines if isinstance(array, int) else cosines.mT


def array_size(array: Array) -> int:
    """Antennas or elements.

    >>> array_size(16), array_size((4, 4))
    (16, 16)
    """
    return array if isinstance(array, int) else math.prod(array)
