"""What every classical method returns, and the loop they share: each picture of a batch runs until it is done."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor


class Separation(NamedTuple):
    """A batch of matrices or pictures split into background and objects.

    background, object: (..., height, width), in the levels of the input.  iterations: (...), how many each took.
    residual: (...), |D - B - O| / |D| at the end, in the Frobenius norm, of what was decomposed.
    """

    background: Tensor
    object: Tensor
    iterations: Tensor
    residual: Tensor

    @property
    def probability(self) -> Tensor:
        """|O| / max |O| of each picture, and 0 where there is no object: a map from 0 to 1."""
        size = self.object.abs()
        peak = size.amax((-2, -1), keepdim=True)
        return size / torch.where(peak > 0, peak, 1)


State = TypeVar("State", bound=tuple)


def iterate(
    step: Callable[[State], tuple[State, Tensor]], state: State, max_iterations: int
) -> tuple[State, Tensor]:
    """Repeat `step` on a batch, and leave each item as it is once it is done.

    state: a named tuple of tensors whose first dimension is the batch.  step: from a state to the next one and
    to a boolean (batch,), whether each item is done. What becomes of an item depends on that item alone.

    Returns the final state and the number of steps that each item took, (batch,).

    >>> class Count(NamedTuple):
    ...     value: Tensor
    >>> final, steps = iterate(lambda s: (Count(s.value / 2), s.value < 4), Count(torch.tensor([9.0, 3.0])), 10)
    >>> final.value, steps
    (tensor([1.1250, 1.5000]), tensor([3, 1]))
    """
    final = type(state)(*(x.clone() for x in state))
    active = torch.arange(len(state[0]), device=state[0].device)
    steps = torch.zeros_like(active)
    for count in range(1, max_iterations + 1):
        if len(active) == 0:
            break
        state, done = step(state)
        stopped = done | (count == max_iterations)
        if not bool(stopped.any()):
            continue
        for kept, now in zip(final, state, strict=True):
            kept[active[stopped]] = now[stopped]
        steps[active[stopped]] = count
        state = type(state)(*(x[~stopped] for x in state))
        active = active[~stopped]
    return final, steps


def observed(name: str, picture: Tensor, mask: Tensor | None) -> Tensor:
    """`mask` in the shape of `picture`, everywhere by default.

    Raises ValueError where it is no mask of it, LinAlgError where the picture is not finite inside.
    """
    if mask is None:
        there = torch.ones_like(picture, dtype=torch.bool)
    elif mask.dtype != torch.bool or not _broadcasts(mask.shape, picture.shape):
        raise ValueError(
            f"mask must be booleans that broadcast to {name} {tuple(picture.shape)}, "
            f"got {mask.dtype} of shape {tuple(mask.shape)}"
        )
    else:
        there = mask.expand(picture.shape)
    if not bool((picture.isfinite() | ~there).all()):
        where = "" if mask is None else " where mask is true"
        raise torch.linalg.LinAlgError(f"{name} holds NaN or infinity{where}")
    return there


def _broadcasts(shape: torch.Size, onto: torch.Size) -> bool:
    """Whether to this shape without enlarging it."""
    trailing = onto[len(onto) - len(shape) :]
    return len(shape) <= len(onto) and all(
        size in (1, target) for size, target in zip(shape, trailing, strict=True)
    )


def relative_residual(observation: Tensor, background: Tensor, object_: Tensor) -> Tensor:
    """|D - B - O| / |D| of each matrix (batch, ..., m, n), (batch,); 0 for a zero matrix."""
    size = torch.linalg.vector_norm(observation.flatten(1), dim=1)
    rest = torch.linalg.vector_norm((observation - background - object_).flatten(1), dim=1)
    return rest / torch.where(size > 0, size, 1)
