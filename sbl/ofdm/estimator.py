"""KroSBL as a channel estimator of Sionna: paths of beams and delays, off a grid or on it."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..algebra import reciprocal, squared_modulus
from ..estimate import Estimate
from ..estimators.am_krosbl import AMKroSBL
from ..estimators.unfolded import UnfoldedKroSBL
from .extra import require_sionna
from .grids import ArrayAxes, DelayGrid, Pilots, pilot_groups, responses, trend
from .path_channel import PathChannel
from .paths import OffGridKroSBL

require_sionna()
from sionna.phy.channel.tr38901 import PanelArray  # noqa: E402
from sionna.phy.ofdm import BaseChannelEstimator, ResourceGrid  # noqa: E402

# Chosen on UMi drops of seeds of their own, so that error variances are honest from -10 to 10 dB.
ITERATIONS = 25
RATIO = 0.02
NEGLIGIBLE = 0.35
ENTRIES = 2**22  # resource elements that are estimated at once on a CPU
BYTES = 256  # of a GPU's free memory for each of those that are estimated at once there
FIRST_SLOPE = 0.05  # power of the slope over that of the level, at the start
LEAST_SHARE = 0.1  # of a learned profile, spread evenly


class KroSBLChannelEstimator(BaseChannelEstimator):
    """Channel estimation by Kronecker-structured SBL over time, beams and delays, for OFDM uplinks.

    The channel of a stream is a sum of paths, each with a beam on every line of the array and a delay, of an
    amplitude for level and slope over the OFDM symbols and for each polarisation. Off the grid (`OffGridKroSBL`,
    the default) beams and delays are learned; on it (`on_grid` and other estimators of x) the channel is
    h = (T kron C_1 kron ... kron F) x with sparse x, T level and slope, C_i the beams of each axis and F the
    responses of a grid of delays. Both see the stream's pilots alone; `h_hat` and `err_var` are the posterior mean
    and variance of h on all resource elements. Off the grid the variance counts amplitudes, positions and the
    residual's power beyond the noise; what is left of a stream with more paths than are allowed is estimated on
    the grid.

    Args:
        resource_grid: with a pilot pattern whose streams each send at some symbols x some subcarriers, at no
            element together, such as Sionna's `KroneckerPilotPattern`.
        array: the receiver's `PanelArray`, or the sizes of its axes in the order of its antennas, the slowest
            first: (16,) for a line, (4, 4) for columns x rows.
        estimator: an `OffGridKroSBL`; or, on the grid, an `AMKroSBL` or another estimator of x, or a trained
            `UnfoldedKroSBL`. None is `OffGridKroSBL()`, or `on_grid()` where a prior is given.
        delays: the grid of delays, where off the grid paths are looked for.
        estimate_noise: find the noise variance from the pilots and leave `no` aside.
        prior: prior variances to start at on the grid, up to a scale, for each of `lengths`, as `learn_prior`
            gives them. Ten iterations from an average profile reach what an even start reaches in 25, up to 0 dB.
        precision, device: as of every Sionna block, the device of None that of the resource grid; the estimator
            itself works in double precision on a CPU.

    Input:
        y: (batch, num_rx, num_rx_ant, num_ofdm_symbols, fft_size), complex. no: (batch, num_rx, num_rx_ant) or its
            first axes; antennas of one receiver count with their mean.

    Output:
        h_hat: (batch, num_rx, num_rx_ant, num_tx, num_streams_per_tx, num_ofdm_symbols,
            num_effective_subcarriers), complex, and err_var, the same, real.

    Raises:
        ValueError: the pilots or the array do not fit, y has another number of antennas or entries that are not
            finite, or no is missing, negative or of another shape.

    Source: He and Joseph, IEEE Trans. Signal Processing 2024, for x; `OffGridKroSBL`; the Gaussian posterior.

    >>> from sionna.phy.ofdm import ResourceGrid
    >>> grid = ResourceGrid(14, 48, 30e3, num_tx=2, pilot_pattern="kronecker", pilot_ofdm_symbol_indices=[2, 11])
    >>> y = torch.ones(1, 1, 4, 14, 48, dtype=torch.complex64)
    >>> h_hat, err_var = KroSBLChannelEstimator(grid, (2, 2))(y, 0.1)
    >>> h_hat.shape, err_var.dtype
    (torch.Size([1, 1, 4, 2, 1, 14, 48]), torch.float32)
    """

    def __init__(
        self,
        resource_grid: ResourceGrid,
        array: PanelArray | Sequence[int],
        *,
        estimator: AMKroSBL | UnfoldedKroSBL | OffGridKroSBL | None = None,
        delays: DelayGrid | None = None,
        estimate_noise: bool = False,
        prior: Sequence[Tensor] | None = None,
        precision: str | None = None,
        device: str | None = None,
    ) -> None:
        super().__init__(resource_grid, precision=precision, device=device or resource_grid.device)
        pattern, spacing = resource_grid.pilot_pattern, float(resource_grid.subcarrier_spacing)
        self._streams = pattern.num_tx, pattern.num_streams_per_tx
        subcarriers = torch.as_tensor(resource_grid.effective_subcarrier_ind)
        mask, pilots = pattern.mask.cpu().flatten(0, 1), pattern.pilots.flatten(0, 1)
        self._groups = pilot_groups(mask, pilots, subcarriers)
        self._axes = array_axes(array)
        self._symbols, self._subcarriers = pattern.num_ofdm_symbols, subcarriers
        steps = [int(group.offsets.diff().min()) for group in self._groups if len(group.offsets) > 1]
        if not steps:
            raise ValueError("resource_grid must have pilots of each stream on two subcarriers at least")
        apart = max(steps)
        bandwidth = float(subcarriers[-1] - subcarriers[0] + 1) * spacing
        self._delays = (delays or DelayGrid()).delays(bandwidth, 1 / (apart * spacing))
        self._spacing = spacing
        estimator = estimator or (OffGridKroSBL() if prior is None else on_grid())
        self._off_grid = estimator if isinstance(estimator, OffGridKroSBL) else None
        self._estimator = on_grid() if isinstance(estimator, OffGridKroSBL) else estimator
        if estimate_noise and isinstance(estimator, UnfoldedKroSBL):
            raise ValueError(
                "estimate_noise must be False with an UnfoldedKroSBL, which does not estimate it"
            )
        self._noise_unknown = estimate_noise
        self._prior = self._profiles(prior)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Entries of each factor of x: level and slope, each axis of the array, delays."""
        slopes = min(2, *(len(group.symbols) for group in self._groups))
        return (slopes, *self._axes.sizes, len(self._delays))

    def call(self, y: Tensor, no: Tensor | float | None = None) -> tuple[Tensor, Tensor]:
        no = None if no is None else torch.as_tensor(no, dtype=y.real.dtype, device=y.device)
        self._check(y, no)
        batch, receivers, antennas = y.shape[:3]
        shape = (batch, receivers, math.prod(self._streams), antennas, self._symbols, len(self._subcarriers))
        h_hat, err_var = y.new_empty(shape), y.real.new_empty(shape)
        size = max(1, _entries(y.device) // max(1, math.prod(shape[1:])))
        for start in range(0, batch, size):
            part = slice(start, start + size)
            for group in self._groups:
                observed, noise = self._observed(group, y[part]), self._noise(y[part], no, part)
                mean, variance = self._channel(group, observed, noise)
                h_hat[part, :, group.streams] = mean.to(h_hat.dtype)
                err_var[part, :, group.streams] = variance.to(err_var.dtype)
        return self._by_transmitter(h_hat), self._by_transmitter(err_var)

    def _by_transmitter(self, x: Tensor) -> Tensor:
        """(batch, receivers, antennas, transmitters, streams, symbols, F)."""
        return x.movedim(2, 3).unflatten(3, self._streams)

    def learn_prior(self, y: Tensor, no: Tensor | float | None = None) -> tuple[Tensor, ...]:
        """The average profile of each factor over all streams of `y`, of sum one, to start other estimators at.

        A tenth of each profile is spread evenly, so that nothing is excluded.
        """
        y = self._convert(y)
        no = None if no is None else torch.as_tensor(no, dtype=y.real.dtype, device=y.device)
        self._check(y, no)
        noise = self._noise(y, no, slice(None))
        found = [self._solve(group, self._observed(group, y), noise)[0] for group in self._groups]
        profiles = [torch.ones(n, dtype=torch.float64) for n in self.lengths]
        for k, i in enumerate(self._shown()):
            profiles[i] = _profile(torch.cat([e.hyperparameters[k].flatten(0, -2) for e in found]))
        return tuple(profiles)

    def _channel(self, group: Pilots, observed: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and variance of h: (batch, receivers, streams, antennas, symbols, F)."""
        if self._off_grid is None:
            return self._solve(group, observed, noise)[1]
        model = PathChannel(
            *(group, self._axes, self._spacing, self._delays, self._symbols, self._subcarriers, FIRST_SLOPE)
        )
        level = None if noise is None else noise.expand(observed.shape[:3]).flatten(0, 1)
        found = model.estimate(self._off_grid, observed.flatten(0, 1), level)
        mean, variance, left, enough = (x.unflatten(0, observed.shape[:2]) for x in found)
        some = (~enough).flatten(1).any(-1).nonzero()[:, 0]
        if len(some) == 0:
            return mean, variance
        rest = self._solve(group, left[some], None if noise is None else noise[some])[1]
        more = ~enough[some][..., None, None, None]
        return mean.index_add(0, some, more * rest[0]), variance.index_add(0, some, more * rest[1])

    def _solve(
        self, group: Pilots, observed: Tensor, noise: Tensor | None
    ) -> tuple[Estimate, tuple[Tensor, Tensor]]:
        """The estimates of x on the grid, and mean and variance of h as `_channel` has them."""
        factors = [A.to(observed) for A in self._at_pilots(group)]
        options: dict[str, Any] = {}
        if not isinstance(self._estimator, UnfoldedKroSBL):
            options["prior"] = self._scaled_prior(factors, observed, noise)
        estimate = self._estimator(factors, observed, noise, **options)
        found = estimate.functional([B.to(observed) for B in self._on_grid(group)])
        antennas = math.prod(self._axes.sizes)

        def arranged(x: Tensor) -> Tensor:
            return x.movedim(3, -2).reshape(*x.shape[:3], antennas, *x.shape[3:4], x.shape[-1])

        return estimate, (arranged(found.mean), arranged(found.variance))

    def _observed(self, group: Pilots, y: Tensor) -> Tensor:
        """|p| h + noise at the pilots: (batch, receivers, streams, S x antennas x K)."""
        effective = self._remove_nulled_scs(y).flatten(-2)
        elements, conjugate = group.elements.to(y.device), group.conjugate.to(y)
        at_pilots = effective[..., elements] * conjugate  # (batch, receivers, antennas, streams, S, K)
        return at_pilots.permute(0, 1, 3, 4, 2, 5).flatten(3)

    def _at_pilots(self, group: Pilots) -> list[Tensor]:
        """The factors at the pilots; delays count from a stream's first pilot."""
        times = trend(group.symbols.double(), group.symbols.double())[:, : self.lengths[0]]
        F = responses(group.offsets.double() * self._spacing, self._delays)
        return [
            times * group.in_time.unsqueeze(-1) + 0j,
            *self._lines(),
            F * group.in_frequency.unsqueeze(-1),
        ]

    def _on_grid(self, group: Pilots) -> list[Tensor]:
        """The factors on all resource elements; that of the delays differs from stream to stream."""
        times = trend(torch.arange(self._symbols, dtype=torch.float64), group.symbols.double())
        from_first = (self._subcarriers - group.first.unsqueeze(-1)).double()
        F = responses(from_first * self._spacing, self._delays)
        return [times[:, : self.lengths[0]], *self._lines(), F]

    def _lines(self) -> list[Tensor]:
        """The factors of the array's axes, but for those of one antenna, which say nothing."""
        return [A for A in self._axes.factors() if len(A) > 1]

    def _shown(self) -> list[int]:
        """Which of `lengths` are those of factors."""
        last = len(self.lengths) - 1
        return [i for i, n in enumerate(self.lengths) if i in (0, last) or n > 1]

    def _noise(self, y: Tensor, no: Tensor | None, part: slice) -> Tensor | None:
        """(batch, receivers, 1), the mean over antennas; None where it is to be found."""
        if self._noise_unknown or no is None:
            return None
        no = no.reshape(*no.shape, *[1] * (3 - no.ndim)).expand(-1, *y.shape[1:3]) if no.ndim else no
        no = no[part] if no.ndim else no.expand(y.shape[:3])
        return no.mean(-1, keepdim=True).expand(*y.shape[:2], 1)

    def _scaled_prior(self, factors: list[Tensor], y: Tensor, noise: Tensor | None) -> list[Tensor]:
        """The prior at the power that y suggests: (..., N_i)."""
        power = squared_modulus(y).mean(-1, keepdim=True)
        signal = power if noise is None else torch.maximum(power - noise.unsqueeze(-1), 0.01 * power)
        *others, last = [self._prior[i].to(power) for i in self._shown()]
        for A, g in zip(factors, (*others, last), strict=True):
            signal = signal * reciprocal((squared_modulus(A).mean(0) * g).sum())
        return [*others, last * signal]

    def _profiles(self, prior: Sequence[Tensor] | None) -> tuple[Tensor, ...]:
        """The given one, else an even one, of little slope."""
        if prior is None:
            slope = torch.tensor([1.0, FIRST_SLOPE], dtype=torch.float64)[: self.lengths[0]]
            return (slope, *(torch.ones(n, dtype=torch.float64) for n in self.lengths[1:]))
        shapes = [tuple(g.shape) for g in prior]
        if shapes != [(n,) for n in self.lengths]:
            raise ValueError(f"prior must hold vectors of lengths {self.lengths}, got shapes {shapes}")
        return tuple(prior)

    def _check(self, y: Tensor, no: Tensor | None) -> None:
        antennas = math.prod(self._axes.sizes)
        if y.ndim != 5 or y.shape[2] != antennas:
            raise ValueError(
                f"y must be (batch, receivers, {antennas}, symbols, subcarriers), got {tuple(y.shape)}"
            )
        if not bool(y.isfinite().all()):
            raise ValueError("y has NaN or infinite entries")
        if no is None and not self._noise_unknown:
            raise ValueError("no, the noise variance, is missing; estimate_noise=True goes without it")
        if no is not None and (
            no.ndim > 3 or any(a not in (1, b) for a, b in zip(no.shape, y.shape, strict=False))
        ):
            raise ValueError(f"no must be {tuple(y.shape[:3])} or its first axes, got {tuple(no.shape)}")
        if no is not None and not bool((no >= 0).all()):
            raise ValueError("no, the noise variance, must not be negative or NaN")


def on_grid(max_iterations: int = ITERATIONS) -> AMKroSBL:
    """AM-KroSBL as `KroSBLChannelEstimator` takes it on the grid: it drops what lies below the noise."""
    return AMKroSBL(pruning=RATIO, negligible=NEGLIGIBLE, max_iterations=max_iterations)


def array_axes(array: PanelArray | Sequence[int]) -> ArrayAxes:
    """The axes of a Sionna array, in the order of its antennas, or of one whose axes have these sizes.

    >>> array_axes((4, 4)).sizes
    (4, 4)
    """
    if not isinstance(array, PanelArray):
        sizes = tuple(int(n) for n in array)
        if not sizes or min(sizes) < 1:
            raise ValueError(f"array must have axes of at least one antenna, got {sizes}")
        return ArrayAxes(sizes, (True,) * len(sizes))
    polarisations = 2 if array.polarization == "dual" else 1
    sizes = (
        *(array.num_cols, array.num_rows, polarisations),
        *(array.num_cols_per_panel, array.num_rows_per_panel),
    )
    return ArrayAxes(sizes, (True, True, False, True, True))


def _entries(device: torch.device) -> int:
    """Resource elements that are estimated at once."""
    if device.type != "cuda":
        return ENTRIES
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return (torch.cuda.mem_get_info(device)[0] + unused) // BYTES


def _profile(g: Tensor) -> Tensor:
    """The mean of (B, n) prior variances, each of sum one, with `LEAST_SHARE` of it spread evenly: (n,)."""
    share = (g * reciprocal(g.sum(-1, keepdim=True))).mean(0)
    return (1 - LEAST_SHARE) * share + LEAST_SHARE / len(share)
