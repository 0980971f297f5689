"""Sparse Bayesian learning with atoms between the points of a uniform grid."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..algebra import reciprocal, squared_modulus

# The share of the mean harmonic's energy below which there is none.
LEAST_HARMONIC = 1e-6


class OffGrid(NamedTuple):
    """P atoms of B problems: positions, amplitudes and prior variances (B, P), and their sum on the grid (B, N).

    Positions count grid steps from the first column; the grid is a circle of N steps. change: (B,),
    ||g_new - g|| / ||g|| of the last iteration. spread: (B, P), the deviation of each position, at most the
    reach of its atom, and infinite where nothing tells what lies between the grid's points: where A has all
    harmonics, as an array with more elements than points has.
    """

    positions: Tensor
    spread: Tensor
    amplitudes: Tensor
    variances: Tensor
    on_grid: Tensor
    change: Tensor


class Interpolation(NamedTuple):
    """A dictionary whose columns are a(c) = sum over h of spectrum_h exp(2 pi j h c / N) at c = 0, ..., N - 1."""

    spectrum: Tensor  # (B, M, N)
    harmonics: Tensor  # (B, N), N consecutive whole numbers

    def determined(self) -> Tensor:
        """Whether the columns leave a harmonic out, as those of an array with fewer elements than N do: (B,)."""
        energy = squared_modulus(self.spectrum).sum(-2)
        return energy.amin(-1) <= LEAST_HARMONIC * energy.mean(-1)

    def waves(self, positions: Tensor) -> Tensor:
        """exp(2 pi j h c / N) for each harmonic and position: (B, N, P)."""
        phase = self.harmonics.unsqueeze(-1) * positions.unsqueeze(-2) * (2 * math.pi / self._length)
        return torch.polar(torch.ones_like(phase), phase)

    def columns(self, waves: Tensor) -> Tensor:
        """a(c): (B, M, P)."""
        return self.spectrum @ waves

    def slopes(self, waves: Tensor) -> Tensor:
        """da/dc: (B, M, P)."""
        return (self.spectrum * (2j * math.pi / self._length * self.harmonics).unsqueeze(-2)) @ waves

    def on_grid(self, waves: Tensor, amplitudes: Tensor) -> Tensor:
        """Coefficients (B, N) of the grid's columns whose sum is that of the atoms."""
        grid = torch.arange(self._length, device=waves.device, dtype=self.harmonics.dtype)
        sums = (waves @ amplitudes.unsqueeze(-1)).squeeze(-1)
        back = self.waves(grid.expand(len(waves), -1)).mH
        return (back @ sums.unsqueeze(-1)).squeeze(-1) / self._length

    @property
    def _length(self) -> int:
        return self.harmonics.shape[-1]


def interpolate(A: Tensor) -> Interpolation:
    """Trigonometric interpolation between the columns of A (B, M, N), complex, around the circle.

    Of all bands of N consecutive harmonics it takes the one about whose middle A's energy lies closest. It is
    exact for steering vectors of an array with fewer than N elements at half a wavelength's spacing, on N cosines
    that are uniform over [-1, 1).

    >>> from unfoldkit.sbl.systems import angular_grid, steering_vectors
    >>> A = steering_vectors(angular_grid(9), 8).mT.unsqueeze(0)
    >>> between = interpolate(A)
    >>> found = between.columns(between.waves(torch.tensor([[2.3]], dtype=torch.float64)))[0, :, 0]
    >>> torch.allclose(found, steering_vectors(torch.tensor(-1 + 2 * 2.3 / 9).double(), 8), atol=1e-6)
    True
    """
    N = A.shape[-1]
    spectrum = torch.fft.fft(A, norm="forward") if A.numel() else A  # which a library refuses
    energy = squared_modulus(spectrum).sum(-2)
    index = torch.arange(N, device=A.device)
    band = index.unsqueeze(-1) + index - N + 1  # row r: the N harmonics that start at r - N + 1
    spread = (energy[:, band % N] * (index - (N - 1) / 2).square()).sum(-1)
    harmonics = band[spread.argmin(-1)]
    order = (harmonics % N).unsqueeze(-2).expand_as(spectrum)
    return Interpolation(spectrum.gather(-1, order), harmonics.to(energy.dtype))


def off_grid_sbl(A: Tensor, y: Tensor, s2: Tensor, refinement: int = 2, iterations: int = 20) -> OffGrid:
    """y = sum over p of z_p a(c_p) + noise, with sparse z and positions c_p that leave their grid.

    a(c) interpolates A's columns (`interpolate`). It begins with `refinement` N positions and alternates

        g_p <- g_p |a_p^H S^-1 y| / sqrt(a_p^H S^-1 a_p),   S = s2 I + sum over p of g_p a_p a_p^H
        c_p <- c_p + Re(conj(w_p) n_p) / (|w_p|^2 e_p),   w_p = a_p^H S^-1 y / a_p^H S^-1 a_p
        n_p = a'_p^H S^-1 (y - w_p a_p),   e_p = a'_p^H S^-1 a'_p - |a'_p^H S^-1 a_p|^2 / a_p^H S^-1 a_p

    The second is the Newton step of atom p's least squares in noise of covariance S - g_p a_p a_p^H, of which
    neither w_p nor the step depends on g_p; an atom stays within 1 / (2 refinement) of where it began. The
    amplitudes are z_p = g_p a_p^H S^-1 y, and 2 |w_p|^2 e_p is the Fisher information of c_p.

    A: (B, M, N) or (1, M, N), complex; y: (B, M); s2: (B,), positive.
    Source: update of g: Wipf and Nagarajan, IEEE J. Selected Topics in Signal Processing 2010; moving positions:
    Yang, Xie and Zhang, "Off-grid direction of arrival estimation using sparse Bayesian inference", 2013.

    >>> from unfoldkit.sbl.systems import angular_grid, steering_vectors
    >>> A = steering_vectors(angular_grid(9), 8).mT.unsqueeze(0)
    >>> y = 2 * steering_vectors(torch.tensor([-1 + 2 * 2.3 / 9], dtype=torch.float64), 8)
    >>> found = off_grid_sbl(A, y, torch.tensor([1e-4]).double())
    >>> best = found.amplitudes.abs().argmax()
    >>> found.positions[0, best].round(decimals=2)
    tensor(2.3000, dtype=torch.float64)
    """
    between, P = interpolate(A), refinement * A.shape[-1]
    start = torch.arange(P, device=y.device, dtype=s2.dtype).expand(len(y), P) / refinement
    positions, reach = start, 0.5 / refinement
    eye = torch.eye(y.shape[-1], device=y.device, dtype=y.dtype)
    g = squared_modulus(y).sum(-1, keepdim=True) * reciprocal(squared_modulus(A).sum((-2, -1))).unsqueeze(-1)
    g = g.expand_as(start)
    for _ in range(iterations):
        waves = between.waves(positions)
        a, slopes = between.columns(waves), between.slopes(waves)
        inverse = torch.linalg.inv(s2[:, None, None] * eye + (a * g.unsqueeze(-2)) @ a.mH)
        whitened = inverse @ a
        matched = _inner(whitened, y.unsqueeze(-1))
        power = _inner(a, whitened).real
        z = g * matched
        step, information = _moves(inverse @ slopes, slopes, whitened, power, matched, y)
        positions = (positions + step).clamp(start - reach, start + reach)
        old, g = g, g * matched.abs() * reciprocal(power.sqrt())
    spread = information.clamp(min=reach**-2).rsqrt()
    spread = torch.where(between.determined().unsqueeze(-1), spread, math.inf)
    change = torch.linalg.vector_norm(g - old, dim=-1) / torch.linalg.vector_norm(old, dim=-1)
    return OffGrid(positions % A.shape[-1], spread, z, g, between.on_grid(waves, z), change)


def _moves(
    whitened_slopes: Tensor, slopes: Tensor, whitened: Tensor, power: Tensor, matched: Tensor, y: Tensor
) -> tuple[Tensor, Tensor]:
    """Re(conj(w) n) / (|w|^2 e) and 2 |w|^2 e: (B, P)."""
    w = matched / power
    mixed = _inner(slopes, whitened)
    n = _inner(whitened_slopes, y.unsqueeze(-1)) - mixed * w
    e = _inner(slopes, whitened_slopes).real - squared_modulus(mixed) / power
    curvature = squared_modulus(w) * e
    return (w.conj() * n).real * reciprocal(curvature), 2 * curvature


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """a_p^H b_p of the columns of (B, M, P): (B, P)."""
    return (a.conj() * b).sum(-2)
