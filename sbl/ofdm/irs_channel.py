"""An intelligent reflecting surface as a channel model of Sionna."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ..systems.arrays import steering_vectors
from ..systems.irs_mimo import IRSMIMO, array_size
from .extra import require_sionna

require_sionna()
from sionna.phy import SPEED_OF_LIGHT  # noqa: E402
from sionna.phy.channel import ChannelModel  # noqa: E402

Response = tuple[Tensor, Tensor]


class IRSChannel(ChannelModel):
    """Users - surface - base station, and the direct path: a channel model like those that it is made of.

        a_{pq}(t) = sum_s a^(2)_{s p}(t) theta_s(t) a^(1)_{s q}(t),   tau_{pq} = tau^(2)_p + tau^(1)_q

    for every path p of the hop to the base station and q of that to the surface, and the direct path's own beside
    them. It gives impulse responses, so that `GenerateOFDMChannel`, `OFDMChannel` and the rest of Sionna take it.

    to_surface: a ChannelModel whose one receiver is the surface, an antenna for each element: CDL or UMi with the
        surface as the base station's array, `GeometricHop` or `SphericalHop`. to_bs: one whose only transmitter is
        the surface. direct: one from the users to the base station, or None.
    patterns: theta, (elements,) for all time, or (elements, time steps), or (batch, elements, time steps),
        complex: exp(j phase) of an element that loses nothing; see `sbl.systems.surface.quantised` for few bits.

    >>> system = IRSMIMO(bs=4, ms=2, irs=8, grid=6)
    >>> hops = (GeometricHop(system, hop, [torch.Generator().manual_seed(0)]) for hop in ("to_irs", "to_bs"))
    >>> a, tau = IRSChannel(*hops, patterns=torch.ones(8, dtype=torch.complex128))(1, 14, 1.0)
    >>> a.shape, tau.shape
    (torch.Size([1, 1, 4, 1, 2, 9, 14]), torch.Size([1, 1, 1, 9]))
    """

    def __init__(
        self,
        to_surface: ChannelModel,
        to_bs: ChannelModel,
        patterns: Tensor,
        direct: ChannelModel | None = None,
    ) -> None:
        super().__init__()
        self.to_surface, self.to_bs, self.direct = to_surface, to_bs, direct
        self.patterns = patterns

    def __call__(self, batch_size: int, num_time_steps: int, sampling_frequency: float) -> Response:
        """Path coefficients (batch, 1, bs, users, antennas, paths, time) and delays (batch, 1, users, paths).

        Raises:
            ValueError: the hops or the patterns do not fit together; the message names them.
        """
        sampled = (batch_size, num_time_steps, sampling_frequency)
        first, delay_1 = self.to_surface(*sampled)
        second, delay_2 = self.to_bs(*sampled)
        theta = self._theta(first, second)
        first = first[:, 0] * theta[:, :, None, None, None]
        a = torch.einsum("bnspt,bsuaqt->bnuapqt", second[:, 0, :, 0], first.to(second.dtype)).flatten(4, 5)
        tau = (delay_2[:, 0, 0, None, :, None] + delay_1[:, 0, :, None, :]).flatten(2)
        a, tau = a.unsqueeze(1), tau.unsqueeze(1)
        if self.direct is None:
            return a, tau
        own, delay = self.direct(*sampled)
        if own.shape[:5] != a.shape[:5]:
            raise ValueError(
                f"direct leads between {tuple(own.shape[1:5])} receivers, antennas, senders and antennas, "
                f"the surface between {tuple(a.shape[1:5])}"
            )
        return torch.cat((a, own.to(a.dtype)), -2), torch.cat((tau, delay.to(tau.dtype)), -1)

    def _theta(self, first: Tensor, second: Tensor) -> Tensor:
        """The patterns as (batch or 1, elements, time or 1)."""
        if first.shape[1] != 1 or second.shape[3] != 1 or first.shape[2] != second.shape[4]:
            raise ValueError(
                f"to_surface must have one receiver and to_bs one transmitter of as many elements, got "
                f"{tuple(first.shape[1:3])} and {tuple(second.shape[3:5])}"
            )
        theta = self.patterns.to(device=first.device, dtype=torch.promote_types(first.dtype, second.dtype))
        theta = theta.unsqueeze(-1) if theta.ndim == 1 else theta
        theta = theta.unsqueeze(0) if theta.ndim == 2 else theta
        wanted = (first.shape[0], first.shape[2], first.shape[-1])
        if theta.ndim != 3 or any(n not in (1, m) for n, m in zip(theta.shape, wanted, strict=True)):
            raise ValueError(
                f"patterns must be (elements,), (elements, time) or (batch, elements, time) for {wanted}, "
                f"got {tuple(self.patterns.shape)}"
            )
        return theta


class GeometricHop(ChannelModel):
    """A hop of `IRSMIMO` in Sionna: a path for each of its rays, plane waves between linear or planar arrays.

    hop: "to_irs" or "to_bs". generators: each draws one channel of the batch as `IRSMIMO.draw_channels` does, so
    that two hops with the same seeds are those of one draw; a batch of another size is refused.
    delay_spread: rays arrive uniformly within so many seconds, drawn from the generators; 0 is the narrow band.
    """

    def __init__(
        self,
        system: IRSMIMO,
        hop: Literal["to_irs", "to_bs"],
        generators: Sequence[torch.Generator],
        delay_spread: float = 0.0,
    ) -> None:
        super().__init__()
        if hop not in ("to_irs", "to_bs"):
            raise ValueError(f"hop must be to_irs or to_bs, got {hop!r}")
        if not delay_spread >= 0:
            raise ValueError(f"delay_spread must not be negative, got {delay_spread}")
        self.system, self.hop, self.generators, self.delay_spread = system, hop, generators, delay_spread

    def __call__(self, batch_size: int, num_time_steps: int, sampling_frequency: float) -> Response:
        """Path coefficients (batch, 1, sink, 1, source, rays, time) and delays (batch, 1, 1, rays)."""
        if batch_size != len(self.generators):
            raise ValueError(f"batch_size must be the {len(self.generators)} of generators, got {batch_size}")
        system = self.system
        both = system.draw_rays(self.generators)
        rays, source, sink = (
            (both[0], system.ms, system.irs) if self.hop == "to_irs" else (both[1], system.irs, system.bs)
        )
        gains = rays.gains.flatten(1)
        scale = (array_size(source) * array_size(sink) / gains.shape[1]) ** 0.5
        arriving = steering_vectors(rays.arrivals.flatten(1, 2), sink)
        departures = rays.departures.repeat_interleave(rays.gains.shape[2], dim=2)
        departing = steering_vectors(departures.flatten(1, 2), source).conj()
        a = scale * torch.einsum("bp,bpm,bpn->bmnp", gains, arriving, departing)
        delays = torch.stack(
            [torch.rand(gains.shape[1], generator=g, dtype=torch.float64) for g in self.generators]
        )
        a = a[:, None, :, None, :, :, None].expand(-1, -1, -1, -1, -1, -1, num_time_steps)
        return a, (self.delay_spread * delays)[:, None, None]


class SphericalHop(ChannelModel):
    """The line of sight between two arrays with spherical waves, for a surface that is large for its distance.

        a_{mn} = exp(-j 2 pi f (d_mn - d) / c) d / d_mn,   tau = d / c

    d_mn is the distance of sink element m from source element n, d that of the arrays' centres. Where d is large
    it is the outer product of two steering vectors; below the Fraunhofer distance 2 (extent)^2 / wavelength it
    is not.

    source, sink: positions of the elements in metres, (n, 3) and (m, 3), float64. carrier_frequency: f, in hertz.
    Source: Lu and Zeng, "Communicating with extremely large-scale array/surface", IEEE Trans. Wireless Comm. 2022.

    >>> far = SphericalHop(torch.zeros(1, 3).double(), torch.tensor([[300.0, 0, 0]]).double(), 3e9)
    >>> a, tau = far(1, 1, 1.0)
    >>> a.shape, round(float(tau) * 1e6, 3)
    (torch.Size([1, 1, 1, 1, 1, 1, 1]), 1.001)
    """

    def __init__(self, source: Tensor, sink: Tensor, carrier_frequency: float) -> None:
        super().__init__()
        for name, places in (("source", source), ("sink", sink)):
            if places.ndim != 2 or places.shape[-1] != 3:
                raise ValueError(f"{name} must be positions (elements, 3), got {tuple(places.shape)}")
        self.distances = torch.cdist(
            sink.double(), source.double(), compute_mode="donot_use_mm_for_euclid_dist"
        )
        if not bool((self.distances > 0).all()):
            raise ValueError("source and sink have elements at the same place")
        self.centre = float((sink.double().mean(0) - source.double().mean(0)).norm())
        self.carrier_frequency = carrier_frequency

    def __call__(self, batch_size: int, num_time_steps: int, sampling_frequency: float) -> Response:
        """Path coefficients (batch, 1, sink, 1, source, 1, time) and delays (batch, 1, 1, 1)."""
        phase = -2 * torch.pi * self.carrier_frequency / SPEED_OF_LIGHT * (self.distances - self.centre)
        a = torch.polar(self.centre / self.distances, phase)[None, None, :, None, :, None, None]
        tau = torch.full((batch_size, 1, 1, 1), self.centre / SPEED_OF_LIGHT, dtype=torch.float64)
        return a.expand(batch_size, -1, -1, -1, -1, -1, num_time_steps), tau
