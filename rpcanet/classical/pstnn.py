"""The infrared patch-tensor model with the partial sum of the tensor nuclear norm."""

from typing import NamedTuple

import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor

from ...kernels import singular_value_threshold, soft_threshold, svdvals
from .patches import as_pictures, assemble, extract, nanmean
from .separation import Separation, iterate, relative_residual

GROWTH, MU, MU_MAX = 1.05, 2e-3, 1e10


class _Iterate(NamedTuple):
    observation: Tensor
    prior: Tensor
    rank: Tensor
    background: Tensor
    object: Tensor
    dual: Tensor
    mu: Tensor
    weight: Tensor
    residual: Tensor


def pstnn(
    picture: Tensor,
    patch: int = 40,
    step: int = 40,
    lambda_: float = 0.7,
    tolerance: float = 1e-3,
    max_iterations: int = 500,
) -> Separation:
    """Patch-tensor model for bright small targets with the partial sum of the tensor nuclear norm (PSTNN).

        min sum over k, i > N of s_i(B^_k) + lambda' |W o T|_1   such that   B + T = D

    D stacks the picture's patches, in levels of 0 to 255; B^_k are the slices of B's discrete Fourier transform
    along the stack (the t-SVD), N counts the singular values of the unfolded D above a tenth of the first,
    and lambda' = lambda / sqrt(patch x patches). W = N / ((|T| + 0.01) w) is renewed in each iteration, with
    w = s_1 s_2 / (s_1 + s_2) s_1, scaled to 0..1, from the eigenvalues s_1 >= s_2 of the picture's structure
    tensor, which are large at corners.

    Args:
        picture: (..., height, width), float32 or float64, in any levels.
        patch: side of a patch in pixels; at most the picture's shorter side is taken.
        step: pixels from one patch to the next.
        lambda_: weight of the targets.
        tolerance: a picture is done when |D - B - T|_F <= tolerance |D|_F, or when the number of pixels of T
            above 0 stays the same.
        max_iterations: each decomposes every Fourier slice.

    Returns:
        The `Separation` in the picture's levels; the object holds what is brighter than the background.

    Raises:
        ValueError: a shape, a dtype or a number that is not positive.
        torch.linalg.LinAlgError: `picture` holds NaN or infinity.

    Source: Zhang and Peng, "Infrared small target detection based on partial sum of the tensor nuclear norm",
    Remote Sensing 2019, and the parameters of the authors' program.

    Example:
        >>> picture = torch.linspace(0, 100, 80).expand(80, 80).clone()
        >>> picture[30:33, 20:23] += 80
        >>> bool(pstnn(picture).probability[31, 21] > 0.5)
        True
    """
    if not (lambda_ > 0 and tolerance > 0 and max_iterations > 0 and step > 0 and patch > 0):
        raise ValueError(
            f"patch {patch}, step {step}, lambda_ {lambda_}, tolerance {tolerance} and max_iterations "
            f"{max_iterations} must be positive"
        )
    pictures, low, span = as_pictures(picture)
    if min(pictures.shape[1:]) < 2:
        raise ValueError(
            f"picture must be at least 2 pixels wide and high for its gradients, got {pictures.shape[2]}x"
            f"{pictures.shape[1]} pixels (shape {tuple(picture.shape)})"
        )
    shape = (pictures.shape[1], pictures.shape[2])
    side = min(patch, *shape)
    stride = min(step, side)
    D = 255 * extract(pictures, side, stride)
    sparsity = lambda_ / (side * D.shape[1]) ** 0.5
    zero, ones = torch.zeros_like(D), torch.ones(len(D), dtype=D.dtype, device=D.device)
    prior = extract(corner_prior(255 * pictures), side, stride)
    start = _Iterate(D, prior, _rank(D), zero, zero, zero, MU * ones, torch.ones_like(D), ones)

    def advance(x: _Iterate) -> tuple[_Iterate, Tensor]:
        mu = x.mu[:, None, None, None]
        background = _tensor_threshold(x.observation - x.object - x.dual / mu, 1 / x.mu, x.rank)
        object_ = soft_threshold(x.observation - background - x.dual / mu, x.weight * sparsity / mu)
        weight = x.rank[:, None, None, None] / (object_.abs() + 0.01) / x.prior.clamp_min(1e-12)
        residual = relative_residual(x.observation, background, object_)
        count, before = ((part > 0).sum((1, 2, 3)) for part in (object_, x.object))
        done = (residual < tolerance) | ((count == before) & (count > 0))
        dual = x.dual + mu * (background + object_ - x.observation)
        mu_next = (GROWTH * x.mu).clamp_max(MU_MAX)
        return (
            _Iterate(x.observation, x.prior, x.rank, background, object_, dual, mu_next, weight, residual),
            done,
        )

    final, steps = iterate(advance, start, max_iterations)
    background, object_ = (
        assemble(part, shape, stride, nanmean) / 255 for part in (final.background, final.object)
    )
    batch = picture.shape[:-2]
    return Separation(
        (background * span + low).reshape(picture.shape),
        (object_ * span).clamp_min(0).reshape(picture.shape),
        steps.reshape(batch),
        final.residual.reshape(batch),
    )


def corner_prior(pictures: Tensor) -> Tensor:
    """w = s_1 s_2 / (s_1 + s_2) s_1 of the structure tensor's eigenvalues, each picture from 0 to 1.

    Gradients of the picture smoothed by a 3x3 Gaussian (sigma 2), their products smoothed by another (sigma 9).
    """
    smooth = gaussian_blur2d(pictures[:, None], 3, (2.0, 2.0))[:, 0]
    down, right = torch.gradient(smooth, dim=(1, 2))
    products = torch.stack([right * right, right * down, down * down], dim=1)
    xx, xy, yy = gaussian_blur2d(products, 3, (9.0, 9.0)).unbind(1)
    spread = ((xx - yy) ** 2 + 4 * xy**2).sqrt()
    first, second = (xx + yy + spread) / 2, (xx + yy - spread) / 2
    total = first + second
    strength = first * second / torch.where(total > 0, total, 1) * first
    return as_pictures(strength)[0]


def _rank(tensor: Tensor) -> Tensor:
    """Singular values of the first unfolding (batch, patch, patch x count) above a tenth of the largest."""
    values = svdvals(tensor.transpose(1, 2).flatten(2))
    return (values >= 0.1 * values[:, :1]).sum(1).clamp_min(1)


def _tensor_threshold(tensor: Tensor, level: Tensor, rank: Tensor) -> Tensor:
    """The proximal operator of level times the partial sum of the tensor nuclear norm, (batch, count, m, n)."""
    slices = torch.fft.rfft(tensor, dim=1)
    index = torch.arange(min(tensor.shape[2:]), device=tensor.device)
    penalised = (index >= rank[:, None]).to(tensor.dtype)
    shrunk = singular_value_threshold(slices, level[:, None], weights=penalised[:, None])
    return torch.fft.irfft(shrunk, n=tensor.shape[1], dim=1)
