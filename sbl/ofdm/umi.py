"""Uplinks of 3GPP's urban microcells (TR 38.901 UMi) through Sionna, a seed a drop, and their covariances."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from .extra import require_sionna

require_sionna()
import sionna.phy  # noqa: E402
from sionna.phy.channel import (  # noqa: E402
    cir_to_ofdm_channel,
    gen_single_sector_topology,
    subcarrier_frequencies,
)
from sionna.phy.channel.tr38901 import PanelArray, UMi  # noqa: E402
from sionna.phy.ofdm import ResourceGrid  # noqa: E402


@contextmanager
def sionna_on_cpu() -> Iterator[None]:
    """Sionna's draws and new blocks on the CPU, though it prefers a GPU, whose draws of a seed are others."""
    before, sionna.phy.config.device = sionna.phy.config.device, "cpu"
    try:
        yield
    finally:
        sionna.phy.config.device = before


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A base station with a panel of `rows` x `columns` positions, one or two polarisations, and its users.

    carrier: hertz. speed: of every user, metres a second. Users have one vertical omnidirectional antenna; path
    loss and shadowing are left out, and every link has unit energy a resource element.
    """

    rows: int = 4
    columns: int = 4
    dual: bool = False
    speed: float = 3 / 3.6
    carrier: float = 3.5e9

    def array(self) -> PanelArray:
        """The base station's."""
        return PanelArray(
            num_rows_per_panel=self.rows,
            num_cols_per_panel=self.columns,
            polarization="dual" if self.dual else "single",
            polarization_type="cross" if self.dual else "V",
            antenna_pattern="38.901",
            carrier_frequency=self.carrier,
        )


@sionna_on_cpu()
def umi_channels(resource_grid: ResourceGrid, drops: int, seed: int, cell: Cell | None = None) -> Tensor:
    """Channels of `drops` drops of the resource grid's transmitters, the drop d of seed `seed` + d.

    (drops, 1, antennas, transmitters, 1, symbols, effective subcarriers), complex64, of unit energy a link.
    Sionna's seed is set, and afterwards what it was.

    Raises:
        ValueError: `drops` or `seed` is negative.

    >>> from sionna.phy.ofdm import ResourceGrid
    >>> umi_channels(ResourceGrid(14, 24, 30e3, num_tx=2), 1, 7).shape
    torch.Size([1, 1, 16, 2, 1, 14, 24])
    """
    if drops < 0 or seed < 0:
        raise ValueError(f"drops and seed must not be negative, got {drops} and {seed}")
    cell = cell or Cell()
    model, found = umi_model(cell), []
    frequencies = subcarrier_frequencies(resource_grid.fft_size, resource_grid.subcarrier_spacing)
    for drop in range(drops):
        gains, delays = impulse_responses(resource_grid, model, seed + drop, cell)
        h = cir_to_ofdm_channel(frequencies, gains, delays, normalize=True)
        found.append(h[..., resource_grid.effective_subcarrier_ind].to("cpu", torch.complex64))
    return torch.cat(found) if found else torch.empty(0, dtype=torch.complex64)


def umi_model(cell: Cell) -> UMi:
    """Sionna's, of uplinks, without path loss and shadowing."""
    mobile = PanelArray(
        num_rows_per_panel=1,
        num_cols_per_panel=1,
        polarization="single",
        polarization_type="V",
        antenna_pattern="omni",
        carrier_frequency=cell.carrier,
    )
    return UMi(
        carrier_frequency=cell.carrier,
        o2i_model="low",
        ut_array=mobile,
        bs_array=cell.array(),
        direction="uplink",
        enable_pathloss=False,
        enable_shadow_fading=False,
    )


def impulse_responses(
    resource_grid: ResourceGrid, model: UMi, seed: int, cell: Cell
) -> tuple[Tensor, Tensor]:
    """Gains at the grid's symbols and delays of the paths of one drop; Sionna's seed is afterwards as before."""
    before, rate = sionna.phy.config.seed, 1 / float(resource_grid.ofdm_symbol_duration)
    sionna.phy.config.seed = seed
    topology = gen_single_sector_topology(
        1, resource_grid.num_tx, "umi", min_ut_velocity=cell.speed, max_ut_velocity=cell.speed
    )
    model.set_topology(*topology)
    found = model(resource_grid.num_ofdm_symbols, rate)
    sionna.phy.config.seed = before
    return found


@dataclass(frozen=True)
class Covariances:
    """E[h h^H] over symbols, subcarriers and antennas, as Sionna's LMMSE estimator takes them."""

    time: Tensor
    frequency: Tensor
    space: Tensor


def covariances(resource_grid: ResourceGrid, drops: int, seed: int, cell: Cell | None = None) -> Covariances:
    """Sample covariances of `umi_channels`; those of space and frequency from the first symbol."""
    if drops < 1:
        raise ValueError(f"covariances need at least one drop, got {drops}")
    time, frequency, space = (
        torch.zeros(n, n, dtype=torch.complex64)
        for n in (resource_grid.num_ofdm_symbols, resource_grid.num_effective_subcarriers, _antennas(cell))
    )
    for drop in range(drops):
        h = umi_channels(resource_grid, 1, seed + drop, cell)
        first = h[..., 0, :]
        for total, x in ((time, h.movedim(-2, -1)), (frequency, first), (space, first.movedim(2, -1))):
            rows = x.flatten(0, -2)
            total += rows.mT @ rows.conj() / (len(rows) * drops)
    return Covariances(time, frequency, space)


def averaged(parts: Sequence[Covariances]) -> Covariances:
    """The covariances of the drops of all parts, which have the same number of them."""
    return Covariances(
        *(sum(getattr(part, f.name) for part in parts) / len(parts) for f in fields(Covariances))
    )


def _antennas(cell: Cell | None) -> int:
    cell = cell or Cell()
    return cell.rows * cell.columns * (1 + cell.dual)
