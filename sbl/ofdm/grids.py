"""Factors of an OFDM channel: time, polarisations, beams and delays, at the pilots and on the whole grid."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class DelayGrid:
    """Delays from `lead` steps before zero to `span` seconds, 1 / (oversampling bandwidth) apart.

    A path between two delays needs atoms on both sides of it, hence the lead; the span is cut where pilots
    that are d subcarriers apart see delays repeat, after 1 / (d spacing).

    >>> tau = DelayGrid().delays(bandwidth=624 * 30e3, period=1 / (4 * 30e3))
    >>> len(tau), tau[0].mul(1e6).round(decimals=3), tau[10]
    (234, tensor(-0.3560, dtype=torch.float64), tensor(0., dtype=torch.float64))
    """

    span: float = 8e-6
    lead: int = 10
    oversampling: float = 1.5

    def __post_init__(self) -> None:
        if not (self.span > 0 and self.oversampling > 0 and self.lead >= 0):
            raise ValueError(f"span and oversampling must be positive and lead not negative, got {self}")

    def delays(self, bandwidth: float, period: float) -> Tensor:
        """(N,) seconds."""
        step = 1 / (self.oversampling * bandwidth)
        most = max(1, math.floor(period / step + 1e-6))
        lead = min(self.lead, most // 4)
        count = min(lead + 1 + math.ceil(self.span / step), most)
        return (torch.arange(count, dtype=torch.float64) - lead) * step


class ArrayAxes(NamedTuple):
    """The axes of an antenna array, the slowest first; `beams` tells the uniform lines from the polarisations."""

    sizes: tuple[int, ...]
    beams: tuple[bool, ...]

    def factors(self) -> list[Tensor]:
        """(n, n) unitary for each axis: beams of a line; polarisations as they are."""
        return [
            fourier(n) if beams else torch.eye(n, dtype=torch.complex128)
            for n, beams in zip(self.sizes, self.beams, strict=True)
        ]


def fourier(n: int) -> Tensor:
    """The unitary Fourier matrix: beams of a line of n antennas, as many as antennas.

    >>> fourier(2).real.round(decimals=3)
    tensor([[ 0.7070,  0.7070],
            [ 0.7070, -0.7070]], dtype=torch.float64)
    """
    k = torch.arange(n, dtype=torch.float64)
    return torch.polar(torch.full((n, n), n**-0.5, dtype=torch.float64), 2 * math.pi / n * k.outer(k))


def trend(at: Tensor, pilots: Tensor) -> Tensor:
    """Level and slope over time at the symbols `at`, about the middle of the pilots': (len(at), 2 or 1).

    The slope, in units of the pilots' root mean square distance, is left out where there is one pilot symbol.

    >>> trend(torch.tensor([2.0, 11.0]), torch.tensor([2.0, 11.0]))
    tensor([[ 1., -1.],
            [ 1.,  1.]])
    """
    level = torch.ones_like(at)
    if len(pilots) == 1:
        return level.unsqueeze(-1)
    apart = pilots - pilots.mean()
    return torch.stack((level, (at - pilots.mean()) / apart.square().mean().sqrt()), -1)


def responses(frequencies: Tensor, delays: Tensor) -> Tensor:
    """exp(-2 pi j f tau): (F, N).

    >>> responses(torch.tensor([0.0, 0.5]), torch.tensor([1.0])).real
    tensor([[ 1.],
            [-1.]])
    """
    phase = -2 * math.pi * frequencies.unsqueeze(-1) * delays
    return torch.polar(torch.ones_like(phase), phase)


class Pilots(NamedTuple):
    """The pilots of streams that send at the same symbols and spacings, perhaps shifted in frequency.

    streams: their indices. symbols: (S,). offsets: (K,) subcarriers from each stream's first, in whole subcarriers
    of the grid with nulled ones. first: (streams,) that first subcarrier. elements: (streams, S, K), indices into
    the effective grid. conjugate: (streams, S, K), conj(p) / |p|. in_time, in_frequency: (S,) and (K,), whose
    products are |p|.
    """

    streams: tuple[int, ...]
    symbols: Tensor
    offsets: Tensor
    first: Tensor
    elements: Tensor
    conjugate: Tensor
    in_time: Tensor
    in_frequency: Tensor


def pilot_groups(mask: Tensor, pilots: Tensor, subcarriers: Tensor) -> list[Pilots]:
    """The streams' pilots, those of one structure together.

    mask: (streams, symbols, F) of a Sionna pilot pattern; pilots: (streams, pilots), zero where a stream is
    silent; subcarriers: (F,), the place of each effective subcarrier in the whole grid.

    Raises:
        ValueError: a stream has no pilots, its pilots are not symbols x subcarriers or their moduli not a product
            of one over symbols and one over subcarriers, or two streams send at one resource element.
    """
    sent = torch.zeros(mask.shape, dtype=torch.complex128)
    sent[mask.bool()] = pilots.to("cpu", torch.complex128).flatten()
    used = sent.abs() > 0
    if bool((used.sum(0) > 1).any()):
        raise ValueError("pilots of two streams share a resource element; expected each stream on its own")
    groups: dict[tuple, list[int]] = {}
    grids = []
    for stream, own in enumerate(used):
        symbols, columns = own.any(1).nonzero()[:, 0], own.any(0).nonzero()[:, 0]
        modulus = sent[stream].abs()[symbols][:, columns]
        if len(symbols) == 0 or bool((modulus == 0).any()):
            raise ValueError(f"the pilots of stream {stream} must be all of some symbols x some subcarriers")
        in_time, in_frequency = modulus.mean(1), modulus.mean(0) / modulus.mean()
        if bool(((modulus - in_time[:, None] * in_frequency).abs() > 1e-5 * modulus.max()).any()):
            raise ValueError(
                f"the moduli of stream {stream}'s pilots must be a product over symbols x subcarriers"
            )
        grids.append((symbols, columns, in_time, in_frequency))
        offsets = subcarriers[columns] - subcarriers[columns[0]]
        moduli = torch.cat((in_time, in_frequency)).mul(1e5).round().tolist()
        groups.setdefault((*symbols.tolist(), -1, *offsets.tolist(), -1, *moduli), []).append(stream)
    return [_group(members, grids, sent, subcarriers) for members in groups.values()]


def _group(members: Sequence[int], grids: list, sent: Tensor, subcarriers: Tensor) -> Pilots:
    symbols, columns, in_time, in_frequency = grids[members[0]]
    places = torch.stack([grids[m][1] for m in members])
    elements = symbols[None, :, None] * sent.shape[-1] + places[:, None, :]
    values = torch.stack([sent[m].flatten()[e] for m, e in zip(members, elements, strict=True)])
    offsets = subcarriers[columns] - subcarriers[columns[0]]
    conjugate = values.conj() / values.abs()
    return Pilots(
        tuple(members),
        symbols,
        offsets,
        subcarriers[places[:, 0]],
        elements,
        conjugate,
        in_time,
        in_frequency,
    )
