"""3x3 convolutions C -> C in training: what one or two of them make, and both gradients of one."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .features import launches


def layers(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor] | None,
    rectified: Sequence[bool],
    residual: bool,
) -> list[Tensor]:
    """What each of one or two layers makes of the one before; with `residual` the last adds x.

    x: (N, C, H, W), channels-last.  weights: (C, C, 3, 3) each, biases (C,) each.
    """
    if x.dtype == torch.bfloat16 and launches.serves_training(x.device, len(weights[0])):
        wide = [weight.float() for weight in weights]
        shift = torch.cat([*biases]).float() if biases else wide[0].new_zeros(len(wide) * len(wide[0]))
        bits = sum(relu << k for k, relu in enumerate(rectified))
        return launches.run_layers(x, wide, shift, bits, residual)
    found, last = [x], len(weights) - 1
    for k, (weight, relu) in enumerate(zip(weights, rectified, strict=True)):
        bias = biases[k].to(x.dtype) if biases else None
        y = F.conv2d(found[-1], weight.to(x.dtype), bias, padding=1)
        y = y + x if residual and k == last else y
        found.append(y.relu_() if relu else y)
    return found[1:]


def gradients(
    grad: Tensor, input: Tensor, weight: Tensor, rectified: bool = False, plus: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Those of a layer's input, weight and bias.

        grad_x[p, c] = sum_{t, o} g[p - t, o] w_t[o, c]      grad_w_t[o, c] = sum_p x[p, c] g[p - t, o]

    grad and input: (N, C, H, W), channels-last.  weight: (C, C, 3, 3).
    rectified: input is a rectifier's output, and the gradient that of the rectifier's input.
    plus: added to the input's gradient.
    """
    if input.dtype == torch.bfloat16 and launches.serves_conv_backward(input.device, len(weight)):
        of_input, *found = launches.run_conv_backward(grad, input, weight.float(), rectified, plus)
        return of_input, found[0].to(weight.dtype), found[1].to(weight.dtype)
    of_input, of_weight = torch.ops.aten.convolution_backward(
        grad,
        input,
        weight.to(input.dtype),
        None,
        [1, 1],
        [1, 1],
        [1, 1],
        False,
        [0, 0],
        1,
        [True, True, False],
    )[:2]
    of_input = of_input * (input > 0) if rectified else of_input
    of_input = of_input if plus is None else of_input + plus
    return of_input, of_weight.to(weight.dtype), grad.sum((0, 2, 3)).to(weight.dtype)
