"""Proximal operators of sparsity penalties, real and complex.

Plain compositions of PyTorch's elementwise operators: `torch.compile` fuses them with their surroundings,
which an opaque operator would prevent. Eagerly, the real soft threshold is one pass over the data where the
threshold is a number, and two where it is a tensor and nothing records the call.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .dispatch.checks import require_broadcast, require_one_device, require_sign
from .dispatch.operator import unobserved


def soft_threshold(x: Tensor, threshold: Tensor | float) -> Tensor:
    """Proximal operator of t |x|_1: max(|x| - t, 0) x / |x|, entry by entry.

    Args:
        x: any shape; real or complex floating point.
        threshold: t, non-negative; a number, or real and broadcastable to x. Differentiable.

    Returns:
        As x. The gradient at |x| = t is that of the zero below, in x and in t. NaN stays NaN.

    Raises:
        ValueError: a shape, dtype or device that does not fit, or a negative number.

    Source: Parikh and Boyd, Proximal Algorithms, 2014, section 6.5.2.

    Example:
        >>> soft_threshold(torch.tensor([3.0, 0.5, -2.0]), 1.0)
        tensor([ 2.,  0., -1.])
        >>> soft_threshold(torch.tensor([3.0 + 4.0j]), 2.5)
        tensor([1.5000+2.j])
    """
    level = _threshold(x, threshold)
    if x.is_complex():
        return _shrink(x, x.abs(), level)
    if not isinstance(threshold, Tensor) and threshold <= torch.finfo(x.dtype).max:
        return F.softshrink(x, threshold)
    if unobserved((x, level)):
        return x - torch.clamp(x, -level, level)
    # the same, but at |x| = t the slope of clamp depends on PyTorch's release, that of relu is 0
    return (x - level).relu() - (-x - level).relu()


def hard_threshold(x: Tensor, threshold: Tensor | float) -> Tensor:
    """Proximal operator of (t^2 / 2) |x|_0: x where |x| > t, 0 elsewhere.

    Args:
        x: any shape; real or complex floating point.
        threshold: t, non-negative; a number, or real and broadcastable to x. Its gradient is 0.

    Returns:
        As x. The penalty is not convex: the operator jumps at |x| = t, where it takes 0. NaN stays NaN.

    Raises:
        ValueError: a shape, dtype or device that does not fit, or a negative number.

    Source: Blumensath and Davies, "Iterative thresholding for sparse approximations", 2008, equation 2.2.

    Example:
        >>> hard_threshold(torch.tensor([3.0, -0.5, -2.0]), 1.0)
        tensor([ 3.,  0., -2.])
    """
    level = _threshold(x, threshold)
    return torch.where(x.abs() <= level, 0, x)


def group_soft_threshold(x: Tensor, threshold: Tensor | float, dim: int | tuple[int, ...]) -> Tensor:
    """Proximal operator of t |x|_{2,1}: max(1 - t / |g|_2, 0) g for every group g of entries along `dim`.

    Args:
        x: any shape; real or complex floating point.
        threshold: t, non-negative; a number, or real and broadcastable to the norms: x with `dim` of size 1.
        dim: the axis or axes that form a group.

    Returns:
        As x. The gradient of a vanishing group is 0. A group that holds NaN becomes NaN.

    Raises:
        ValueError: a shape, dtype or device that does not fit, or a negative number.

    Source: Parikh and Boyd, Proximal Algorithms, 2014, section 6.5.4.

    Example:
        >>> group_soft_threshold(torch.tensor([[3.0, 4.0], [0.3, 0.4]]), 1.0, dim=-1)
        tensor([[2.4000, 3.2000],
                [0.0000, 0.0000]])
    """
    given = (dim,) if isinstance(dim, int) else dim
    if not all(-x.ndim <= axis < x.ndim for axis in given):
        raise ValueError(f"dim must name axes of x {tuple(x.shape)}, got {dim}")
    axes = {axis % x.ndim for axis in given}
    norms = torch.Size(1 if axis in axes else size for axis, size in enumerate(x.shape))
    level = _threshold(x, threshold)
    require_broadcast("threshold", level.shape, "the norms of x", norms)
    if x.numel() == 0:
        return x.clone()
    largest = torch.linalg.vector_norm(x.detach(), torch.inf, tuple(axes), keepdim=True)
    scale = torch.where(largest > 0, largest, 1)
    norm = scale * torch.linalg.vector_norm(x / scale, 2, tuple(axes), keepdim=True)
    return _shrink(x, norm, level)


def _threshold(x: Tensor, threshold: Tensor | float) -> Tensor:
    """The threshold in the precision of x, once it is known to fit."""
    if not (x.is_floating_point() or x.is_complex()):
        raise ValueError(f"x must be floating point or complex, got {x.dtype}")
    require_one_device(x=x, threshold=threshold)
    if isinstance(threshold, Tensor):
        require_broadcast("threshold", threshold.shape, "x", x.shape)
    require_sign("threshold", threshold)
    return torch.as_tensor(threshold, dtype=x.real.dtype, device=x.device)


def _shrink(x: Tensor, magnitude: Tensor, level: Tensor) -> Tensor:
    """(1 - level / magnitude) x where the magnitude exceeds the level, NaN where it is NaN, 0 elsewhere.

    Gradients of finite x are finite.
    """
    kept = ~(magnitude <= level)
    return x * torch.where(kept, 1 - level / torch.where(kept, magnitude, 1), 0)
