"""Antenna arrays of half a wavelength's spacing, linear and planar."""

import math

import torch
from torch import Tensor


def steering_vectors(cosines: Tensor, antennas: int | tuple[int, int]) -> Tensor:
    """Unit-norm responses of an array to plane waves.

        linear: a(c)[n] = exp(j pi n c) / sqrt(antennas)
        planar: a(c) = a(c_1) kron a(c_2) for an (n_1, n_2) array

    cosines: direction cosines, (...) for a linear and (..., 2) for a planar array, real.
    Returns (..., elements), complex, of the precision of `cosines`.
    Raises ValueError for an array without antennas, and for cosines of another shape or type.
    Source: He and Joseph, IEEE Trans. Signal Processing 2024, section V.

    >>> steering_vectors(torch.tensor(1.0), 4).real
    tensor([ 0.5000, -0.5000,  0.5000, -0.5000])
    """
    _require_positive("antennas", antennas)
    planar = not isinstance(antennas, int)
    if cosines.dtype not in (torch.float32, torch.float64) or (planar and cosines.shape[-1:] != (2,)):
        shape = "(..., 2)" if planar else "(...)"
        raise ValueError(f"cosines must be real {shape}, got {cosines.dtype} of shape {tuple(cosines.shape)}")
    if isinstance(antennas, int):
        phase = math.pi * cosines.unsqueeze(-1) * torch.arange(antennas, device=cosines.device)
        return torch.polar(torch.full_like(phase, antennas**-0.5), phase)
    first, second = (steering_vectors(cosines[..., axis], antennas[axis]) for axis in (0, 1))
    return (first.unsqueeze(-1) * second.unsqueeze(-2)).flatten(-2)


def angular_grid(points: int | tuple[int, int], dtype: torch.dtype = torch.float64) -> Tensor:
    """Cosines -1 + 2 k / points: (points,), or all pairs (points_1 points_2, 2), the first slowest.

    Raises ValueError for fewer than one point, and for a dtype that is not floating point.

    >>> angular_grid(4)
    tensor([-1.0000, -0.5000,  0.0000,  0.5000], dtype=torch.float64)
    """
    _require_positive("points", points)
    if not dtype.is_floating_point:
        raise ValueError(f"dtype must be floating point, got {dtype}")
    if isinstance(points, int):
        return -1 + 2 * torch.arange(points, dtype=dtype) / points
    return torch.cartesian_prod(*(angular_grid(count, dtype) for count in points))


def _require_positive(name: str, sizes: int | tuple[int, int]) -> None:
    if min(sizes if isinstance(sizes, tuple) else (sizes,)) < 1:
        raise ValueError(f"{name} must be at least 1, got {sizes}")
