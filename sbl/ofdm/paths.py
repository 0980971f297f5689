"""Sparse Bayesian learning of paths whose beams and delays lie on no grid: added one by one, refined together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import mul
from typing import NamedTuple

import torch
from torch import Tensor

from ..algebra import reciprocal, squared_modulus
from .axis import Axis, check_observation

REACH = 0.1  # of the resolution of an axis: how far a position may move in a step
LEAST_NOISE = 1e-8  # of y's power
ROUNDING = 1e-8  # of a precision, where noise is least
LEAST_SHARE = 1e-6  # of a snapshot's prior variance beside the largest


class Paths(NamedTuple):
    """P paths of B problems; those of variance zero are none.

    positions: (B, P, d). g (B, P) and profile (B, L): the amplitudes have prior variances g kron profile.
    noise_variance: (B,).
    """

    positions: Tensor
    g: Tensor
    profile: Tensor
    noise_variance: Tensor

    def take(self, members: Tensor) -> "Paths":
        return Paths(*(x[members] for x in self))

    def prior(self) -> Tensor:
        """Of the amplitudes: (B, L, P)."""
        return self.profile.unsqueeze(-1) * self.g.unsqueeze(-2)

    def found(self) -> Tensor:
        """Paths of each problem: (B,)."""
        return (self.g > 0).sum(-1)

    def trimmed(self) -> "Paths":
        """With as many places as the problem of most paths needs, and at least one."""
        most = max(1, int(self.found().amax())) if len(self.g) else 1
        order = self.g.argsort(dim=-1, descending=True)[:, :most]
        places = order.unsqueeze(-1).expand(-1, -1, self.positions.shape[-1])
        return self._replace(g=self.g.gather(1, order), positions=self.positions.gather(1, places))


class Amplitudes(NamedTuple):
    """The posterior of the amplitudes: mean (B, L, P) and covariance (B, L, P, P) = root root^H."""

    mean: Tensor
    covariance: Tensor
    root: Tensor


class Geometry(NamedTuple):
    """Columns A of the paths and their derivatives D (P columns for each of d axes) through inner products.

    waves, slopes: (B, n_i, P) each. gram: A^H A (B, P, P). mixed: A^H D (B, P, d P). slope_gram: D^H D.
    """

    waves: list[Tensor]
    slopes: list[Tensor]
    gram: Tensor
    mixed: Tensor
    slope_gram: Tensor

    @classmethod
    def of(cls, axes: Sequence[Axis], positions: Tensor) -> "Geometry":
        waves = _waves(axes, positions)
        slopes = [axis.slopes(w) for axis, w in zip(axes, waves, strict=True)]
        own = [w.mH @ w for w in waves]
        half = [w.mH @ d for w, d in zip(waves, slopes, strict=True)]
        both = [d.mH @ d for d in slopes]

        def inner(i: int, j: int) -> Tensor:
            """D_i^H D_j."""
            changed = {i: half[i].mH, j: half[j]} if i != j else {i: both[i]}
            return _product(own, changed)

        count = range(len(axes))
        mixed = torch.cat([_product(own, {i: half[i]}) for i in count], -1)
        slope_gram = torch.cat([torch.cat([inner(i, j) for j in count], -1) for i in count], -2)
        return cls(waves, slopes, _product(own, {}), mixed, slope_gram)

    def changed(self, i: int) -> list[Tensor]:
        """The factors of D_i."""
        return [*self.waves[:i], self.slopes[i], *self.waves[i + 1 :]]


@dataclass(frozen=True, kw_only=True)
class OffGridKroSBL:
    """Kronecker-structured sparse Bayesian learning with atoms off the grid.

        y_l = sum_p x_lp a_1(c_p1) kron ... kron a_d(c_pd) + noise,   x_lp ~ N(0, g_p q_l)

    Snapshots l (level and slope over time, polarisations) share their paths. It begins without any. The strongest
    peak of the residual over the candidates becomes a path where it raises the evidence by `evidence`; each time
    g, q and all positions take a step, and the weakest path goes where it raises the evidence by less than half.
    It ends after `patience` rounds that did not add to the number of paths:

        g_p = sum_l (|mu_lp|^2 / q_l) / sum_l gamma_lp,   gamma = 1 - variance / prior variance,   q alike
        c  <- c + (H + diag(reach)^-2)^-1 b,   H = 2 Re sum_l M_l^H D^H K_l^-1 D M_l,   M_l = diag(mu_l)
        b = 2 Re sum_l M_l^H D^H K_l^-1 y_l,   K_l = s2 I + q_l A G A^H

    with the derivatives D of the columns A: Gauss-Newton with the amplitudes integrated out. Inner products of
    columns are products of those along each axis, and no system is larger than the positions are many.

    paths: at most. evidence: of noise alone, a place is taken for a path with probability exp(-evidence) or less.
    Source: MacKay, "Bayesian interpolation", 1992, for g; Tipping and Faul, "Fast marginal likelihood maximisation
    for sparse Bayesian models", 2003, for adding and dropping; the model is that of He and Joseph, "Efficient
    Off-Grid Bayesian Parameter Estimation for Kronecker-Structured Signals", arXiv 2412.00310, 2024.

    >>> phases = 2 * math.pi / 8 * (torch.arange(8).double() - 3.5)
    >>> axis = Axis(phases, torch.ones(8).double(), torch.arange(16) / 2)
    >>> a, b = (axis.waves(torch.tensor([c]).double()) for c in (2.3, 5.1))
    >>> y, noise = 3 * (a * b.mT)[None, None], torch.tensor([1e-3]).double()
    >>> found = OffGridKroSBL()([axis, axis], y, torch.ones(1), noise)
    >>> found.positions[0, 0].round(decimals=2)
    tensor([2.3000, 5.1000], dtype=torch.float64)
    """

    paths: int = 48
    evidence: float = 8.0
    patience: int = 5

    @torch.no_grad()
    def __call__(
        self, axes: Sequence[Axis], y: Tensor, profile: Tensor, noise_variance: Tensor | None = None
    ) -> Paths:
        """The paths of y (B, L, n_1, ..., n_d), complex double.

        profile: (L,), the q to begin with; paths are looked for in the snapshots where it is largest.
        noise_variance: (B,); None finds it.

        Raises ValueError, which names the argument, for a wrong shape or dtype, and what is not finite.
        """
        check_observation(axes, y, profile, noise_variance)
        B = len(y)
        power = squared_modulus(y).flatten(1).mean(-1)
        noise = power if noise_variance is None else noise_variance.to(power)
        noise = _at_least(noise, power)
        found = Paths(
            noise.new_zeros(B, self.paths, len(axes)),
            noise.new_zeros(B, self.paths),
            profile.to(noise).repeat(B, 1),
            noise.clone(),
        )
        scanned = (profile == profile.max()).nonzero()[:, 0].to(y.device)
        active, left = torch.arange(B, device=y.device), torch.full((B,), self.patience, device=y.device)
        grids = [axis.waves(axis.candidates.to(axis.phases)) for axis in axes]
        residual, now = y, found.take(active)
        now = now._replace(positions=now.positions[:, :1], g=now.g[:, :1])
        while len(active):
            count = now.found()
            now = self._add(axes, grids, now, residual[:, scanned])
            now, residual = self._step(axes, now, y[active], noise_variance is None)
            left = left - (now.found() <= count).long()
            _store(found, now, active)
            kept = (left > 0).nonzero()[:, 0]
            active, left, residual, now = active[kept], left[kept], residual[kept], now.take(kept)
        return found.trimmed()

    def _add(self, axes: Sequence[Axis], grids: list[Tensor], now: Paths, residual: Tensor) -> Paths:
        """With the strongest peak of the residual (B, L, n_1, ..., n_d) over the grids, in a free place."""
        power = squared_modulus(_project(residual, grids)).sum(1)
        peak, at = power.flatten(1).max(-1)
        L, energy = residual.shape[1], _energy(axes)
        ratio = (peak / (L * energy * now.noise_variance)).clamp(min=1)
        room = (now.g == 0).any(-1) | (now.g.shape[-1] < self.paths)
        new = (L * (ratio - 1 - ratio.log()) > self.evidence) & room
        places = torch.unravel_index(at, power.shape[1:])
        position = torch.stack([a.candidates.to(power)[p] for a, p in zip(axes, places, strict=True)], -1)
        variance = new * (ratio - 1) * now.noise_variance / energy
        g, positions = now.g, now.positions
        if bool((new & (g > 0).all(-1)).any()):
            g = torch.nn.functional.pad(g, (0, 1))
            positions = torch.nn.functional.pad(positions, (0, 0, 0, 1))
        slot = (g > 0).byte().argmin(-1, keepdim=True)
        g = torch.where(new.unsqueeze(-1), g.scatter(1, slot, variance.unsqueeze(-1)), g)
        moved = positions.scatter(1, slot.unsqueeze(-1).expand(-1, -1, len(axes)), position.unsqueeze(1))
        positions = torch.where(new[:, None, None], moved, positions)
        return now._replace(positions=positions, g=g)

    def _step(self, axes: Sequence[Axis], now: Paths, y: Tensor, noise_unknown: bool) -> tuple[Paths, Tensor]:
        """The next paths, and what the present ones leave of y."""
        geometry = Geometry.of(axes, now.positions)
        x = amplitudes(geometry, now, y)
        residual = y - _combine(geometry.waves, x.mean)
        gamma, energy = known_share(now, x), squared_modulus(x.mean)
        precision, pull = displacement(geometry, now, x, residual)
        reach = REACH * _resolutions(axes, now.positions)
        step = torch.linalg.solve(precision + torch.diag_embed(reach**-2), pull).unflatten(1, (len(axes), -1))
        limit = reach.unflatten(1, (len(axes), -1))
        positions = now.positions + (step.clamp(-limit, limit) * (now.g > 0).unsqueeze(1)).mT
        gain = (energy * reciprocal(now.prior() * (1 - gamma)) + (1 - gamma).log()).sum(1)
        g = (energy * reciprocal(now.profile).unsqueeze(-1)).sum(1) * reciprocal(gamma.sum(1))
        g = _without_the_weakest(g, gain, self.evidence / 2)
        profile = (energy * reciprocal(g).unsqueeze(-2)).sum(-1) * reciprocal(gamma.sum(-1))
        largest = profile.amax(-1, keepdim=True)
        profile = torch.where(largest > 0, profile / largest, now.profile).clamp(min=LEAST_SHARE)
        noise = now.noise_variance
        if noise_unknown:
            left = y[0].numel() - gamma.sum((-2, -1))
            noise = squared_modulus(residual).flatten(1).sum(-1) / left
            noise = _at_least(noise, squared_modulus(y).flatten(1).mean(-1))
        g = g * torch.where(largest > 0, largest, 1)
        return now._replace(positions=positions, g=g, profile=profile, noise_variance=noise), residual


def amplitudes(geometry: Geometry, paths: Paths, y: Tensor) -> Amplitudes:
    """The posterior of x_l ~ N(0, q_l diag(g)) given y (B, L, n_1, ..., n_d)."""
    s2 = paths.noise_variance[:, None, None]
    root = paths.prior().sqrt()
    information = root.unsqueeze(-1) * geometry.gram.unsqueeze(1) * root.unsqueeze(-2) / s2.unsqueeze(-1)
    information = information + torch.eye(root.shape[-1], device=y.device)
    half = root.unsqueeze(-1) * inverse_root(information)
    covariance = half @ half.mH
    matched = _matched(y, geometry.waves)
    return Amplitudes((covariance @ matched.unsqueeze(-1)).squeeze(-1) / s2, covariance, half)


def displacement(geometry: Geometry, paths: Paths, x: Amplitudes, residual: Tensor) -> tuple[Tensor, Tensor]:
    """H (B, d P, d P) and b (B, d P) of the positions, axis by axis; see `OffGridKroSBL`."""
    s2 = paths.noise_variance[:, None, None]
    d = len(geometry.waves)
    weights = x.mean.repeat(1, 1, d)
    mixed = geometry.mixed.unsqueeze(1)
    inner = geometry.slope_gram.unsqueeze(1) - mixed.mH @ (x.covariance @ mixed) / s2.unsqueeze(-1)
    H = (weights.conj().unsqueeze(-1) * inner * weights.unsqueeze(-2)).real.sum(1) * 2 / s2
    pulls = torch.cat([_matched(residual, geometry.changed(i)) for i in range(d)], -1)
    return H, (weights.conj() * pulls).real.sum(1) * 2 / s2.squeeze(-1)


class PathPosterior(NamedTuple):
    """What y (B, L, n_1, ..., n_d) says of paths: their amplitudes, positions and what they leave of y."""

    axes: Sequence[Axis]
    paths: Paths
    geometry: Geometry
    x: Amplitudes
    residual: Tensor

    @classmethod
    def of(cls, axes: Sequence[Axis], paths: Paths, y: Tensor) -> "PathPosterior":
        geometry = Geometry.of(axes, paths.positions)
        x = amplitudes(geometry, paths, y)
        return cls(axes, paths, geometry, x, y - _combine(geometry.waves, x.mean))

    def mean(self, where: Sequence[Axis]) -> Tensor:
        """sum_p x_lp b_1(c_p1) kron ... kron b_d(c_pd), (B, L, r_1, ..., r_d), on other axes."""
        return _combine(_waves(where, self.paths.positions), self.x.mean)

    def variance(self, where: Sequence[Axis], dtype: torch.dtype) -> Tensor:
        """Of the same, computed in `dtype`: of the amplitudes and, to first order, of positions of covariance
        (H + diag(resolution)^-2)^-1."""
        waves = _waves(where, self.paths.positions)
        slopes = [axis.slopes(w) for axis, w in zip(where, waves, strict=True)]
        changed = [[*waves[:i], slopes[i], *waves[i + 1 :]] for i in range(len(where))]
        columns = torch.cat([_columns(factors) for factors in (waves, *changed)], -1).unsqueeze(1)
        variance = squared_modulus(columns.to(dtype) @ self._deviations().to(dtype)).sum(-1)
        return variance.unflatten(-1, [w.shape[-2] for w in waves])

    def unexplained(self) -> Tensor:
        """Power (B, L) of what no path explains: the residual's beyond the noise's, in the paths' profile."""
        q, d = self.paths.profile, len(self.axes)
        spent = (1 + d / 2) * known_share(self.paths, self.x).sum(-1)
        free = (self.residual[0, 0].numel() - spent) * self.paths.noise_variance.unsqueeze(-1)
        beyond = squared_modulus(self.residual).flatten(2).sum(-1) - free
        share = (q * beyond).sum(-1, keepdim=True) / q.square().sum(-1, keepdim=True)
        return q * share.clamp(min=0) / _energy(self.axes)

    def _deviations(self) -> Tensor:
        """V, (B, L, (1 + d) P, .), whose V V^H is the covariance of amplitudes and of x_p times the positions."""
        precision = displacement(self.geometry, self.paths, self.x, self.residual)[0]
        least = _resolutions(self.axes, self.paths.positions) ** -2
        least = least + ROUNDING * precision.diagonal(dim1=-2, dim2=-1)
        precision = precision + torch.diag_embed(least)
        root = inverse_root(precision).to(self.x.mean.dtype).unsqueeze(1)
        moved = self.x.mean.repeat(1, 1, len(self.axes)).unsqueeze(-1) * root
        s2 = self.paths.noise_variance[:, None, None, None]
        along = -self.x.covariance @ (self.geometry.mixed.unsqueeze(1) @ moved) / s2
        still = torch.nn.functional.pad(self.x.root, (0, 0, 0, moved.shape[-2]))
        return torch.cat((still, torch.cat((along, moved), -2)), -1)


def known_share(paths: Paths, x: Amplitudes) -> Tensor:
    """gamma = 1 - variance / prior variance, (B, L, P), zero where there is no path."""
    prior = paths.prior()
    share = 1 - x.covariance.diagonal(dim1=-2, dim2=-1).real * reciprocal(prior)
    return share.clamp(1e-12, 1 - 1e-12) * (prior > 0)


def _waves(axes: Sequence[Axis], positions: Tensor) -> list[Tensor]:
    return [axis.waves(positions[..., i]) for i, axis in enumerate(axes)]


def _energy(axes: Sequence[Axis]) -> float:
    """||a||^2 of every path."""
    return math.prod(float(axis.weights.square().sum()) for axis in axes)


def inverse_root(A: Tensor) -> Tensor:
    """R with R R^H = A^-1."""
    L = torch.linalg.cholesky(A)
    eye = torch.eye(A.shape[-1], device=A.device, dtype=A.dtype).expand_as(L)
    return torch.linalg.solve_triangular(L, eye, upper=False).mH


def _product(own: list[Tensor], changed: dict[int, Tensor]) -> Tensor:
    return reduce(mul, (changed.get(k, x) for k, x in enumerate(own)))


def _project(y: Tensor, grids: list[Tensor]) -> Tensor:
    """(B, L, m_1, ..., m_d): y (B, L, n_1, ..., n_d) against every combination of columns (n_i, m_i)."""
    for i in range(len(grids) - 1, -1, -1):
        y = (y.movedim(2 + i, -1) @ grids[i].conj()).movedim(-1, 2 + i)
    return y


def _matched(y: Tensor, columns: list[Tensor]) -> Tensor:
    """A^H y: (B, L, P) of y (B, L, n_1, ..., n_d) and A's factors (B, n_i, P)."""
    *others, last = columns
    found = (y.flatten(1, -2) @ last.conj()).unflatten(1, y.shape[1:-1])
    for factor in reversed(others):
        shape = (len(y), *[1] * (found.ndim - 3), *factor.shape[-2:])
        found = (found * factor.conj().reshape(shape)).sum(-2)
    return found


def _combine(columns: list[Tensor], x: Tensor) -> Tensor:
    """A x: (B, L, n_1, ..., n_d) of x (B, L, P)."""
    *others, last = columns
    for factor in others:
        shape = (len(x), *[1] * (x.ndim - 2), *factor.shape[-2:])
        x = x.unsqueeze(-2) * factor.reshape(shape)
    return (x.flatten(1, -2) @ last.mT).unflatten(1, x.shape[1:-1])


def _columns(factors: list[Tensor]) -> Tensor:
    """A: (B, n_1 ... n_d, P)."""
    return reduce(lambda a, b: (a.unsqueeze(-2) * b.unsqueeze(-3)).flatten(-3, -2), factors)


def _resolutions(axes: Sequence[Axis], positions: Tensor) -> Tensor:
    """(B, d P), axis by axis."""
    resolutions = positions.new_tensor([axis.resolution() for axis in axes])
    return resolutions.repeat_interleave(positions.shape[1]).expand(len(positions), -1)


def _without_the_weakest(g: Tensor, gain: Tensor, least: float) -> Tensor:
    """g (B, P) without the path that raises the evidence the least, where that is less than `least`."""
    worst, index = gain.masked_fill(g == 0, math.inf).min(-1, keepdim=True)
    return torch.where(worst < least, g.scatter(1, index, 0.0), g)


def _at_least(noise: Tensor, power: Tensor) -> Tensor:
    """A noise variance (B,) that is no rounding error beside y's power, and one where y is zero."""
    return torch.where(power > 0, torch.maximum(noise, LEAST_NOISE * power), 1.0)


def _store(found: Paths, now: Paths, members: Tensor) -> None:
    P = now.g.shape[-1]
    found.positions[members, :P], found.g[members, :P] = now.positions, now.g
    found.profile[members], found.noise_variance[members] = now.profile, now.noise_variance
