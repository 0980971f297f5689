"""How this package registers an operator with PyTorch.

One call gives a function that is one node for `torch.compile`, exact inside autocast, differentiable in reverse
and forward mode, and usable under `torch.func` transforms (a `torch.library` operator alone refuses
`torch.func.grad`).
"""

import functools
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

NAMESPACE = "unfoldkit"


def under_functorch() -> bool:
    """Whether a `torch.func` transform such as vmap or grad is running."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def under_transform() -> bool:
    """Whether such a transform or forward mode is running."""
    return under_functorch() or (not torch.compiler.is_compiling() and forward_ad._current_level >= 0)


def unobserved(args: Iterable[Any]) -> bool:
    """Whether nothing records a call with these arguments: no graph, transform, mode or tensor subclass."""
    if (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack()
        or forward_ad._current_level >= 0
    ):
        return False
    recording = torch.is_grad_enabled()
    for arg in args:
        if isinstance(arg, Tensor) and (
            type(arg) not in (Tensor, torch.nn.Parameter) or (recording and arg.requires_grad)
        ):
            return False
    return True


def library_only(input: Tensor) -> bool:
    """Whether the call is one that only PyTorch's own operators serve, or has nothing to compute."""
    return (
        input.numel() == 0
        or torch.compiler.is_exporting()
        or under_functorch()
        or forward_ad._current_level >= 0
        or torch.is_autocast_enabled(input.device.type)
        or (not torch.compiler.is_compiling() and torch._C._len_torch_dispatch_stack() > 0)
    )


def channels_last(x: Tensor) -> bool:
    """Whether that is the order in memory, which a plane of one channel leaves open, but for its strides."""
    return x.stride(1) == 1 and x.is_contiguous(memory_format=torch.channels_last)


def full_precision(function: Callable[..., Any]) -> Callable[..., Any]:
    """Run `function` with autocast switched off on the device of its first tensor argument.

    Its results carry no lazy conjugation: a compiled graph would lose it at an operator's border.
    """

    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        if torch._C._is_any_autocast_enabled():
            device = next(arg.device.type for arg in args if isinstance(arg, Tensor))
            with torch.autocast(device, enabled=False):
                result = function(*args)
        else:
            result = function(*args)
        return (
            result.resolve_conj() if isinstance(result, Tensor) else tuple([x.resolve_conj() for x in result])
        )

    return wrapper


def operator(
    name: str,
    forward: Callable[..., Any],
    fake: Callable[..., Any],
    setup_context: Callable[..., None],
    backward: Callable[..., Any],
) -> Callable[..., Any]:
    """Register `forward` as unfoldkit::`name`; every tensor argument leads with the same batch axes.

    backward: its result is linear in the gradients. Forward mode differentiates it by them: the tangent of the
    output is the transpose of the gradient's map, at the tangent of the input.
    """
    direct = full_precision(forward)
    registered = torch.library.custom_op(f"{NAMESPACE}::{name}", direct, mutates_args=())
    registered.register_fake(fake)

    def backward_in_full_precision(ctx: Any, *gradients: Tensor) -> Any:
        with torch.autocast(gradients[0].device.type, enabled=False):
            return backward(ctx, *gradients)

    registered.register_autograd(backward_in_full_precision, setup_context=setup_context)

    def below_transforms(*args: Any) -> Any:
        return direct(*args) if unobserved(args) else registered(*args)

    def apply(*args: Any) -> Any:
        if unobserved(args):  # the dispatcher, some 200 microseconds a call, then has nothing to add
            return direct(*args)
        return transformable.apply(*args) if under_transform() else registered(*args)

    def save_for_both_modes(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        setup_context(ctx, inputs, output)
        ctx.save_for_forward(*ctx.to_save)
        ctx.single = isinstance(output, Tensor)
        ctx.outputs = [(x.shape, x.dtype, x.device) for x in ((output,) if ctx.single else output)]

    def jvp(ctx: Any, *tangents: Tensor | None) -> Any:
        given = [tangent is not None for tangent in tangents]
        primal = SimpleNamespace(saved_tensors=[forward_ad.unpack_dual(x).primal for x in ctx.saved_tensors])

        def gradients_of_inputs(*gradients: Tensor) -> tuple[Tensor, ...]:
            found = backward_in_full_precision(primal, *gradients)
            found = (found,) if isinstance(found, Tensor) else found
            return tuple(gradient for gradient, wanted in zip(found, given, strict=True) if wanted)

        anywhere = [torch.zeros(shape, dtype=dtype, device=device) for shape, dtype, device in ctx.outputs]
        with forward_ad._set_fwd_grad_enabled(True):  # for tangents of tangents
            transpose = torch.func.vjp(gradients_of_inputs, *anywhere)[1]
            result = transpose(tuple(tangent for tangent in tangents if tangent is not None))
        return result[0] if ctx.single else result

    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
        result = apply(
            *(_batch_in_front(arg, dim, info.batch_size) for arg, dim in zip(args, in_dims, strict=True))
        )
        return result, (0 if isinstance(result, Tensor) else (0,) * len(result))

    registered.register_vmap(vmap)
    transformable: Any = type(
        name,
        (torch.autograd.Function,),
        {
            "forward": staticmethod(below_transforms),
            "setup_context": staticmethod(save_for_both_modes),
            "backward": staticmethod(backward_in_full_precision),
            "jvp": staticmethod(jvp),
            "vmap": staticmethod(vmap),
        },
    )
    return apply


def _batch_in_front(arg: Any, dim: int | None, size: int) -> Any:
    if not isinstance(arg, Tensor):
        return arg
    return arg.expand(size, *arg.shape) if dim is None else arg.movedim(dim, 0)
