"""Sionna's LMMSE estimator for many drops of one noise variance: its filters are found once."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..algebra import reciprocal, squared_modulus
from .extra import require_sionna
from .umi import Covariances

require_sionna()
from sionna.phy.ofdm import LSChannelEstimator, ResourceGrid  # noqa: E402

AXES = {"s": 0, "t": 2, "f": 3}
LINES = 64  # whose filters are found at once


class SharedLMMSE:
    """What `LMMSEChannelEstimator` of this order gives for one N0, up to rounding, called with y and that N0.

    Sionna takes an error variance for each drop and solves for each; it makes 2.8 GB of filters a drop for 16
    antennas and 624 subcarriers. Passes over symbols (t), subcarriers (f) and antennas (s), with covariance R,
    pilots or earlier estimates at the indices p, and error variances e of (antennas, users, symbols, subcarriers):

        A = R[:, p] (R[p, p] + diag e[p])^-1,   error = diag(R - A R[p, :])

    and before the next pass the estimate is scaled to the variance that it expects.
    Source: Sionna's documentation of `LMMSEChannelEstimator`. One stream a user; the pilots have equal moduli.
    """

    def __init__(self, resource_grid: ResourceGrid, covariance: Covariances, order: str) -> None:
        self.grid, self.order = resource_grid, order.split("-")
        self.R = {"t": covariance.time, "f": covariance.frequency, "s": covariance.space}
        pattern = resource_grid.pilot_pattern
        self.mask = pattern.mask[:, 0].bool().clone()
        self.mask[self.mask.clone()] = (pattern.pilots[:, 0].abs() > 0).flatten()
        self.energy = float(pattern.pilots.abs().square().amax())
        self.least_squares = LSChannelEstimator(resource_grid, interpolation_type="nn")
        self.filters: dict[float, tuple[list[Callable[[Tensor], Tensor]], Tensor]] = {}

    def __call__(self, y: Tensor, no: Tensor) -> tuple[Tensor, Tensor]:
        if float(no) not in self.filters:
            self.filters[float(no)] = self._design(float(no))
        passes, err_var = self.filters[float(no)]
        h = self.least_squares(y, no)[0][:, 0, :, :, 0] * self.mask
        for apply in passes:
            h = apply(h)
        return h[:, None, :, :, None], err_var.unsqueeze(4).expand(len(y), 1, *h.shape[1:3], 1, -1, -1)

    def _design(self, no: float) -> tuple[list[Callable[[Tensor], Tensor]], Tensor]:
        antennas = len(self.R["s"])
        known = self.mask.unsqueeze(0)
        error = (known * (no / self.energy)).float()
        passes = []
        for axis in self.order:
            if axis == "s":
                known, error = (x.expand(antennas, *x.shape[1:]) for x in (known, error))
            apply, error, known = _one_pass(self.R[axis], AXES[axis], error, known, axis == self.order[-1])
            passes.append(apply)
        return passes, error.expand(antennas, *error.shape[1:])[None, None]


def _one_pass(
    R: Tensor, axis: int, error: Tensor, known: Tensor, last: bool
) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
    """The pass over one axis of (antennas, users, symbols, subcarriers), error variances and what is known."""
    n = len(R)
    lines, errors = known.movedim(axis, -1), error.movedim(axis, -1)
    shape, found = lines.shape[:-1], lines.any(-1).flatten()
    index = found.nonzero()[:, 0]
    picked = lines.flatten(0, -2)[index].float()
    count = int(picked[0].sum())
    places = picked.argsort(dim=-1, descending=True, stable=True)[:, :count]
    noise = errors.flatten(0, -2)[index].gather(-1, places)
    parts = zip(places.split(LINES), noise.split(LINES), strict=True)
    filters, errors_left = zip(*(_filters(R, p, e, last) for p, e in parts), strict=True)
    left = torch.cat(errors_left)
    new_error = left.new_zeros(len(found), n).index_copy(0, index, left)

    def apply(h: Tensor) -> Tensor:
        x = h.movedim(axis + 1, -1)
        batch = x.shape[:-1]
        x = x.reshape(len(h), -1, len(found), n) if axis and shape[0] == 1 else x.reshape(len(h), 1, -1, n)
        taken = x[:, :, index].gather(-1, places.expand(*x.shape[:2], -1, -1))
        pairs = zip(filters, taken.split(LINES, 2), strict=True)
        out = torch.cat([torch.einsum("lnk,balk->baln", A, part) for A, part in pairs], 2)
        whole = x.new_zeros(*x.shape).index_copy(2, index, out)
        return whole.reshape(*batch, n).movedim(-1, axis + 1)

    def back(x: Tensor) -> Tensor:
        return x.reshape(*shape, n).movedim(-1, axis)

    return apply, back(new_error), back(found.unsqueeze(-1).expand(-1, n))


def _filters(R: Tensor, places: Tensor, noise: Tensor, last: bool) -> tuple[Tensor, Tensor]:
    """(lines, n, count), from what is known at the places (lines, count), and the errors (lines, n) they leave."""
    variance, count = R.diagonal().real, places.shape[-1]
    among = R[places.unsqueeze(-1), places.unsqueeze(-2)]
    inner = among + torch.diag_embed(noise).to(R)
    inner = inner + torch.finfo(noise.dtype).eps * count * _mean_diagonal(inner) * torch.eye(count)
    A = torch.linalg.solve(inner, R[places]).mH
    left = (variance - (A * R[places].mT).sum(-1).real).clamp(min=0)
    if last:
        return A, left
    spread = (A @ among * A.conj()).sum(-1).real + (squared_modulus(A) * noise.unsqueeze(-2)).sum(-1)
    scale = 2 * variance * reciprocal(spread + variance - left)
    left = (scale * (scale - 1) * spread + (1 - scale) * variance + scale * left).clamp(min=0)
    return A * scale.unsqueeze(-1), left


def _mean_diagonal(x: Tensor) -> Tensor:
    return x.diagonal(dim1=-2, dim2=-1).abs().mean(-1)[:, None, None]
