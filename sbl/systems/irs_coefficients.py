"""What the rays of an IRS-aided uplink are on the grid, and how the channel follows from their gains."""

import math

import torch
from torch import Tensor

from .arrays import steering_vectors
from .irs_mimo import IRSMIMO, Array, Rays, Training, array_size


def coefficients(system: IRSMIMO, rays: tuple[Rays, Rays]) -> Tensor:
    """x of `IRSMIMO.channel_of` for directions on the grid: (B, N_irs, N_ms, N_bs).

    A ray of the first hop with gain g, arriving at p and departing from m, and one of the second with gain h,
    arriving at b and departing from q, put a multiple of g h at ((q - p) mod grid, m, b).

    The cosines that IRSMIMO draws lie on the grid to single precision, and so does the channel of x.
    Raises ValueError where directions do not lie on the grid.

    >>> system = IRSMIMO()
    >>> rays = system.draw_rays([torch.Generator().manual_seed(0)])
    >>> training = system.draw_training(torch.Generator().manual_seed(1))
    >>> found = system.channel_of(coefficients(system, rays), training)
    >>> truth = system.cascade(system.channel_of_rays(rays), training)
    >>> bool((found - truth).norm() < 1e-4 * truth.norm())
    True
    """
    first, second = (hop.gains.flatten(1) for hop in rays)
    return _placed(system, rays, math.sqrt(_power(system)) * first.unsqueeze(-1) * second.unsqueeze(-2))


def coefficient_variances(system: IRSMIMO, rays: tuple[Rays, Rays]) -> Tensor:
    """E|x|^2 of `coefficients` given the directions: (B, N_irs, N_ms, N_bs), zero off the support.

    Entries of x are uncorrelated, and products of two Gaussian gains. Raises ValueError as `coefficients` does.
    """
    B, count = rays[0].gains.shape[0], system.paths * system.spread
    power = torch.full((B, count, count), _power(system), dtype=system.dtype.to_real())
    return _placed(system, rays, power.to(rays[0].gains.device))


def prior_variances(system: IRSMIMO) -> tuple[Tensor, Tensor, Tensor]:
    """E|x|^2 of `coefficients` over all directions, as a Kronecker product of (N_irs,), (N_ms,) and (N_bs,).

    The covariance of x is diagonal. Raises ValueError as `coefficients` does.

    >>> [g.shape[0] for g in prior_variances(IRSMIMO())]
    [18, 18, 18]
    """
    require_grid(system)
    real = system.dtype.to_real()
    irs, ms = (torch.full((n,), 1 / n, dtype=real) for n in _sizes(system)[:2])
    return irs, ms, _power(system) * (system.paths * system.spread) ** 2 * _arrival_shares(system)


def gain_responses(system: IRSMIMO, rays: tuple[Rays, Rays], training: Training) -> tuple[Tensor, Tensor]:
    """What unit gains of two rays give: y = B (a kron b) and the cascade h = D (a kron b), directions anywhere.

    a, b: the CN(0, 1) gains of the hops, paths and their rays in one axis of n. Returns B (..., K_I K_P bs, n,
    n) and D (..., K_I, bs, ms, n, n), whose first n belongs to the hop to the surface.
    """
    first, second = rays
    scale = math.sqrt(_power(system))
    arriving, sent = _steered(first, system.irs, system.ms)
    received, departing = _steered(second, system.bs, system.irs)
    surface = torch.einsum("...bk,...kt,...ak->...tab", departing.conj(), training.patterns, arriving)
    D = scale * torch.einsum("...tab,...bn,...am->...tnmab", surface, received, sent.conj())
    seen = torch.einsum("...tnmab,...mk->...tknab", D, training.pilots)
    return seen.flatten(-5, -3), D


def require_grid(system: IRSMIMO) -> None:
    """ValueError where directions lie between the grid's points."""
    if not system.on_grid:
        raise ValueError("the coefficients are known for directions on the grid alone: --on_grid true")


def _power(system: IRSMIMO) -> float:
    """The power of the product of two rays: that of both hops, shared among their rays."""
    ms, irs, bs = map(array_size, (system.ms, system.irs, system.bs))
    return ms * irs * irs * bs / (system.paths * system.spread) ** 2


def _steered(rays: Rays, sink: Array, source: Array) -> tuple[Tensor, Tensor]:
    """Steering vectors of every ray's arrival (B, n, sink) and departure (B, n, source)."""
    return (
        steering_vectors(rays.arrivals.flatten(1, 2), sink),
        steering_vectors(_repeated(rays).flatten(1, 2), source),
    )


def _repeated(rays: Rays) -> Tensor:
    """A departure for each ray of its path."""
    return rays.departures.repeat_interleave(rays.gains.shape[2], dim=2)


def _placed(system: IRSMIMO, rays: tuple[Rays, Rays], values: Tensor) -> Tensor:
    """values (B, n, n) of pairs of rays, summed where they lie: (B, N_irs, N_ms, N_bs)."""
    require_grid(system)
    first, second = rays
    p, m = (_cells(system, part).flatten(1, 2) for part in (first.arrivals, _repeated(first)))
    b, q = (_cells(system, part).flatten(1, 2) for part in (second.arrivals, _repeated(second)))
    m, b = _flat(system, system.ms, m), _flat(system, system.bs, b)
    n = _flat(system, system.irs, (q.unsqueeze(1) - p.unsqueeze(2)) % system.grid)
    sizes = _sizes(system)
    index = (n * sizes[1] + m.unsqueeze(-1)) * sizes[2] + b.unsqueeze(-2)
    empty = values.new_zeros(len(values), math.prod(sizes))
    return empty.scatter_add(-1, index.flatten(1), values.flatten(1)).unflatten(-1, sizes)


def _sizes(system: IRSMIMO) -> list[int]:
    """N_irs, N_ms, N_bs."""
    return [
        system.grid ** (1 if isinstance(array, int) else 2) for array in (system.irs, system.ms, system.bs)
    ]


def _cells(system: IRSMIMO, cosines: Tensor) -> Tensor:
    return ((cosines + 1) * system.grid / 2).round().long()


def _flat(system: IRSMIMO, array: Array, cells: Tensor) -> Tensor:
    """The index in the grid of an array, whose cells have one more axis where it is planar."""
    return cells if isinstance(array, int) else cells[..., 0] * system.grid + cells[..., 1]


def _arrival_shares(system: IRSMIMO) -> Tensor:
    """How often a ray arrives at each cell of the base station, over all rays: (N_bs,)."""
    starts = system.grid - system.spread + 1
    axis = torch.zeros(system.spread, system.grid, dtype=system.dtype.to_real())
    for ray in range(system.spread):
        axis[ray, ray : ray + starts] = 1 / starts
    if isinstance(system.bs, int):
        return axis.mean(0)
    return (axis.unsqueeze(-1) * axis.unsqueeze(-2)).mean(0).flatten()
