"""Exact two-dimensional convolution with a large window."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .dispatch.checks import require_one_device
from .dispatch.operator import NAMESPACE, full_precision, library_only, operator
from .dispatch.overlap_save import (
    Strip,
    Tiling,
    planes_of,
    spectrum_of,
    strips,
    tile_spectra,
    tiling,
    window_of,
)

TILES = (32, 48, 64, 80, 96, 128, 160)

# Nanoseconds on two CPU cores: a sample of a tile and channel through both transforms, a multiply-add of the
# product at a frequency, an entry of the weight's spectrum, a multiply-add of the direct method.
TRANSFORM, PRODUCT, SPECTRUM, DIRECT = 6.0, 0.1, 1.5, 0.0186
DIRECT_ON_GPU = 0.0  # cuDNN was 4 times faster than the tiles on an H200: always direct there


def large_kernel_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    padding: int | tuple[int, int] | str = "same",
    *,
    spectrum: Tensor | None = None,
) -> Tensor:
    """Exact 2-D convolution (as in networks: a correlation) with a large window, stride 1, zero padding.

    out[o, y, x] = bias[o] + sum_{c, i, j} weight[o, c, i, j] input[c, y + i - p, x + j - q], by
    overlap-save Fourier tiles or directly (`F.conv2d`), whichever a count of operations says is faster.
    Both ways, and both gradients, are exact up to rounding: the tiles' relative error is below 1e-5 in
    float32 and 1e-13 in float64.

    Args:
        input: (..., C, H, W), any H and W, also smaller than the window.
        weight: (O, C, h, w) with h and w odd.
        bias: (O,) or None.
        padding: "same" (output as large as the input), "valid", p, or (p, q).
        spectrum: `conv_spectrum(weight)`, so that inference need not compute it again; it selects the
            tiles, and a gradient reaches `weight` as if it had been computed from it.

    float32 and float64 take either way; float16, bfloat16, anything under autocast (where the result has
    autocast's type, as with `F.conv2d`), anything inside a `torch.func` transform or forward mode and anything
    that `torch.export` traces (whose graph then holds no operator of this package) go direct. Tiles are
    transformed in strips, so that the extra memory stays near that of input and output plus the spectrum.
    On a GPU the direct way is taken, in the precision that `torch.backends.cudnn` allows (TF32 by default, a
    relative error near 3e-4).

    Returns:
        (..., O, H + 2p - h + 1, W + 2q - w + 1).

    Raises:
        ValueError: shapes that do not fit, even windows, an empty result, dtypes or devices that differ.

    Source: Oppenheim and Schafer, Discrete-Time Signal Processing, section 8.7.3 (overlap-save).

    Example:
        >>> image, weight = torch.ones(1, 2, 40, 40), torch.ones(3, 2, 17, 17)
        >>> out = large_kernel_conv2d(image, weight)
        >>> out.shape, round(out[0, 0, 20, 20].item())
        (torch.Size([1, 3, 40, 40]), 578)
    """
    margin = _margins(input, weight, bias, padding, spectrum)
    images = input.reshape(-1, *input.shape[-3:])
    if _only_direct(input) or (size := _tile_size(images, weight, margin, spectrum)) == 0:
        out = F.conv2d(images, weight, bias, padding=margin)
    else:
        out = _tiled_conv2d(images, weight, spectrum, size, *margin)
        out = out if bias is None else out + bias[:, None, None]
    return out.reshape(*input.shape[:-3], *out.shape[-3:])


def conv_spectrum(weight: Tensor, image_size: tuple[int, int] = (256, 256)) -> Tensor | None:
    """Spectrum of a weight, to hand to `large_kernel_conv2d` again and again in inference.

    S_f = sum_j w_j exp(2 pi i f j / T) for the tile size T that suits pictures of `image_size`; it serves
    pictures of every size.

    Args:
        weight: (O, C, h, w), h and w odd.
        image_size: height and width of the pictures to come.

    Returns:
        (T, T / 2 + 1, C, O), complex; None for a weight that always goes direct, in half precision or on a GPU.

    Raises:
        ValueError: a shape that is not served.

    Source: as `large_kernel_conv2d`.

    Example:
        >>> conv_spectrum(torch.zeros(3, 2, 17, 17)).shape
        torch.Size([80, 41, 2, 3])
    """
    _require_weight(weight)
    if weight.dtype not in (torch.float32, torch.float64) or weight.is_cuda:
        return None
    grid = _cheapest_tiles(1, *image_size, weight.shape)
    return full_precision(spectrum_of)(weight, grid[1])


def _require_weight(weight: Tensor) -> None:
    if weight.ndim != 4 or weight.shape[-1] % 2 == 0 or weight.shape[-2] % 2 == 0 or 0 in weight.shape:
        raise ValueError(f"weight must be (O, C, h, w) with h and w odd, got shape {tuple(weight.shape)}")


def _margins(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: int | tuple[int, int] | str,
    spectrum: Tensor | None,
) -> tuple[int, int]:
    """The padding above and left, once every argument is known to fit."""
    _require_weight(weight)
    shapes = f"input {tuple(input.shape)} and weight {tuple(weight.shape)}"
    if input.ndim < 3 or input.shape[-3] != weight.shape[1]:
        raise ValueError(f"{shapes} do not fit: input must be (..., C, H, W), weight (O, C, h, w)")
    if not (weight.is_floating_point() or weight.is_complex()):
        raise ValueError(f"{shapes} must be floating point or complex, got {weight.dtype}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(
            f"bias {tuple(bias.shape)} must have one entry for each output of weight {tuple(weight.shape)}"
        )
    if spectrum is not None and spectrum.shape[2:] != (weight.shape[1], weight.shape[0]):
        raise ValueError(f"spectrum {tuple(spectrum.shape)} is not one of weight {tuple(weight.shape)}")
    require_one_device(input=input, weight=weight, bias=bias, spectrum=spectrum)
    dtypes = [x.dtype for x in (input, weight, bias) if x is not None]
    if any(dtype != input.dtype for dtype in dtypes) and not torch.is_autocast_enabled(input.device.type):
        raise ValueError(f"{shapes}, and bias, must be of one dtype, got {', '.join(map(str, dtypes))}")
    height, width = weight.shape[-2:]
    named = {"same": (height // 2, width // 2), "valid": (0, 0)}
    if isinstance(padding, str) and padding not in named:
        raise ValueError(f"padding must be 'same', 'valid', a number or a pair, got {padding!r}")
    margin = (
        named[padding]
        if isinstance(padding, str)
        else (padding, padding)
        if isinstance(padding, int)
        else padding
    )
    if min(margin) < 0 or min(_out_size(input, weight, margin)) < 1:
        raise ValueError(f"{shapes} leave nothing at padding {margin}")
    return margin


def _out_size(input: Tensor, weight: Tensor, margin: tuple[int, int]) -> tuple[int, int]:
    return (
        input.shape[-2] + 2 * margin[0] - weight.shape[-2] + 1,
        input.shape[-1] + 2 * margin[1] - weight.shape[-1] + 1,
    )


def _only_direct(input: Tensor) -> bool:
    return input.dtype not in (torch.float32, torch.float64) or library_only(input)


def _tile_size(images: Tensor, weight: Tensor, margin: tuple[int, int], spectrum: Tensor | None) -> int:
    """The size of the spectrum's tiles, else of the fastest, 0 where the direct method is faster."""
    if spectrum is not None:
        return spectrum.shape[0]
    height, width = _out_size(images, weight, margin)
    direct = len(images) * height * width * weight.numel() * (DIRECT_ON_GPU if images.is_cuda else DIRECT)
    cost, size = _cheapest_tiles(len(images), height, width, weight.shape)
    return size if cost < direct else 0


def _cheapest_tiles(images: int, height: int, width: int, weight: torch.Size) -> tuple[float, int]:
    """Estimated nanoseconds and size of the best tiles."""
    outputs, inputs, *window = weight
    sizes = [size for size in TILES if size >= 2 * max(window)] or [4 * max(window)]

    def cost(size: int) -> float:
        rows, columns = -(-height // (size - window[0] + 1)), -(-width // (size - window[1] + 1))
        samples = images * rows * columns * size**2
        products = inputs * outputs
        return (
            samples * ((inputs + outputs) * TRANSFORM + products * PRODUCT)
            + size**2 / 2 * products * SPECTRUM
        )

    best = sizes[0]
    for size in sizes[1:]:
        best = size if cost(size) < cost(best) else best
    return cost(best), best


def _forward(
    images: Tensor, weight: Tensor, spectrum: Tensor | None, size: int, top: int, left: int
) -> Tensor:
    spectrum = spectrum_of(weight, size) if spectrum is None else spectrum
    return _correlate(images, spectrum.flatten(0, 1), weight, size, (top, left), (0, 0))


def _correlate(
    plane: Tensor,
    spectrum: Tensor,
    weight: Tensor,
    size: int,
    before: tuple[int, int],
    first: tuple[int, int],
) -> Tensor:
    """Tiles of a plane times a spectrum (frequencies, channels in, channels out)."""
    height, width = _out_size(plane, weight, before)
    grid = tiling(size, (weight.shape[-2], weight.shape[-1]), height, width)
    channels = spectrum.shape[-1]
    out = plane.new_empty(len(plane), channels, height, width)
    for strip in strips(grid, len(plane), max(plane.shape[1], channels), plane.numel() + out.numel()):
        spectra = tile_spectra(plane, grid, strip, before, (size, size))
        product = (spectra.flatten(0, 1) @ spectrum).unflatten(0, spectra.shape[:2])
        del spectra
        _place(out, planes_of(product, grid, strip, first), strip, grid)
    return out


def _place(out: Tensor, planes: Tensor, strip: Strip, grid: Tiling) -> None:
    """Write the results of a strip where they belong, less what reaches beyond the plane."""
    rows = out[strip.images, :, strip.first_row * grid.step[0] :][..., : strip.rows * grid.step[0], :]
    rows.copy_(planes[..., : rows.shape[-2], : rows.shape[-1]])


def _fake(images: Tensor, weight: Tensor, spectrum: Tensor | None, size: int, top: int, left: int) -> Tensor:
    return images.new_empty(images.shape[0], weight.shape[0], *_out_size(images, weight, (top, left)))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    images, weight, _, *ctx.tiles = inputs
    ctx.save_for_backward(images, weight)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    needs = ctx.needs_input_grad
    grads = _tiled_conv2d_gradients(grad, *ctx.saved_tensors, *ctx.tiles, needs[0], needs[1])
    return (
        *(value if needed else None for value, needed in zip(grads, needs, strict=False)),
        None,
        None,
        None,
        None,
    )


_tiled_conv2d = operator("tiled_conv2d", _forward, _fake, _save, _backward)


def _gradients(
    grad: Tensor,
    images: Tensor,
    weight: Tensor,
    size: int,
    top: int,
    left: int,
    for_images: bool,
    for_weight: bool,
) -> tuple[Tensor, Tensor]:
    """Both gradients from one set of spectra of the output's gradient g; an empty tensor where one is not
    asked for.

    images: full convolution of g with the window. weight: correlation of blocks of the images with g, its
    lags reversed.
    """
    height, width = weight.shape[-2:]
    last = (height - 1, width - 1)
    grid = tiling(size, (height, width), *images.shape[-2:])
    spectrum = spectrum_of(weight, size).flatten(0, 1).mH if for_images else None
    product = images.new_zeros(size * (size // 2 + 1), *weight.shape[1::-1], dtype=images.dtype.to_complex())
    grad_images = torch.empty_like(images if for_images else images[:0])
    for strip in strips(grid, len(images), max(weight.shape[:2]), images.numel() + grad.numel()):
        g = tile_spectra(grad, grid, strip, (last[0] - top, last[1] - left), (size, size)).flatten(0, 1)
        if spectrum is not None:
            planes = planes_of((g @ spectrum).unflatten(0, (size, -1)), grid, strip, last)
            _place(grad_images, planes, strip, grid)
        if for_weight:
            blocks = tile_spectra(images, grid, strip, (0, 0), grid.step).flatten(0, 1)
            product.baddbmm_(blocks.mH, g)
    lags = window_of(product.unflatten(0, (size, -1)), height, width) if for_weight else weight[:0]
    return grad_images, lags.flip(-2, -1).contiguous()


def _gradients_fake(
    grad: Tensor,
    images: Tensor,
    weight: Tensor,
    size: int,
    top: int,
    left: int,
    for_images: bool,
    for_weight: bool,
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(images if for_images else images[:0]), weight.new_empty(
        weight.shape if for_weight else weight[:0].shape
    )


def _gradients_save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    grad, images, weight, *ctx.tiles = inputs
    ctx.save_for_backward(grad, images, weight)


def _gradients_backward(ctx: Any, of_images: Tensor, of_weight: Tensor) -> tuple[Tensor | None, ...]:
    """The convolution x * w is bilinear, and the gradients at g are the transposes of its two halves:

    <a, g *^T w> + <c, x *^T g> has the gradients a * w + x * c in g, g *^T c in x and a *^T g in w.
    """
    grad, images, weight = ctx.saved_tensors
    *tiles, for_images, for_weight = ctx.tiles
    needs = ctx.needs_input_grad
    in_grad = in_images = in_weight = None
    if for_images:
        in_grad = _tiled_conv2d(of_images, weight, None, *tiles) if needs[0] else None
        in_weight = (
            _tiled_conv2d_gradients(grad, of_images, weight, *tiles, False, True)[1] if needs[2] else None
        )
    if for_weight:
        through_weight = _tiled_conv2d(images, of_weight, None, *tiles) if needs[0] else None
        in_grad = through_weight if in_grad is None else in_grad + through_weight
        in_images = (
            _tiled_conv2d_gradients(grad, images, of_weight, *tiles, True, False)[0] if needs[1] else None
        )
    return (in_grad, in_images, in_weight, *[None] * len(ctx.tiles))


_tiled_conv2d_gradients = torch.library.custom_op(
    f"{NAMESPACE}::tiled_conv2d_gradients", full_precision(_gradients), mutates_args=()
)
_tiled_conv2d_gradients.register_fake(_gradients_fake)
_tiled_conv2d_gradients.register_autograd(_gradients_backward, setup_context=_gradients_save)
