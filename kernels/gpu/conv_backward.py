"""What stands around a 3x3 convolution C -> C in training: both its gradients at once, and a sum after it.

    grad_x[p, c] = sum_{t, o} g[p - t, o] w_t[o, c]      grad_w_t[o, c] = sum_p x[p, c] g[p - t, o]

over the nine shifts t use the same shifted g, which `features/conv_backward.cu` reads once.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import torch
import triton
import triton.language as tl
from torch import Tensor

from .features import launches


def conv_backward(
    grad: Tensor, input: Tensor, weight: Tensor, rectified: bool = False, plus: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of input, weight and bias.

    grad and input: (N, C, H, W), channels-last.  weight: (C, C, 3, 3).
    rectified: input is a rectifier's output, and the gradient that of the rectifier's input.
    plus: added to the input's gradient.
    """
    if input.dtype == torch.bfloat16 and launches.serves_conv_backward(input.device, len(weight)):
        of_input, *found = launches.run_conv_backward(grad, input, weight.float(), rectified, plus)
        return of_input, found[0].to(weight.dtype), found[1].to(weight.dtype)
    of_input, of_weight = torch.ops.aten.convolution_backward(
        grad, input, weight.to(input.dtype), None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, True, False]
    )[:2]
    of_input = of_input * (input > 0) if rectified else of_input
    of_input = of_input if plus is None else of_input + plus
    return of_input, of_weight.to(weight.dtype), grad.sum((0, 2, 3)).to(weight.dtype)


@triton.jit
def add_kernel(found, bias, residual, out, pixels, C: tl.constexpr, PIXELS: tl.constexpr):
    pixel, c = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS), tl.arange(0, C)
    here, inside = pixel[:, None] * C + c[None, :], (pixel < pixels)[:, None]
    value = tl.load(found + here, inside, 0.0).to(tl.float32) + tl.load(bias + c)[None, :]
    value += tl.load(residual + here, inside, 0.0).to(tl.float32)
    tl.store(out + here, value.to(out.dtype.element_ty), inside)


def add_bias_and(residual: Tensor, found: Tensor, bias: Tensor) -> Tensor:
    """found + bias + residual; both (N, C, H, W), channels-last, bias (C,) in float32."""
    out, channels = torch.empty_like(found), found.shape[1]
    pixels = found.numel() // channels
    add_kernel[(triton.cdiv(pixels, 128),)](found, bias, residual, out, pixels, channels, 128)
    return out
