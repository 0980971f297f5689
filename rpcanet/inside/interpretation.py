"""What a network does inside: every stage's planes, contrast prior and memory, and their measures."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..classical import Separation
from ..inference.fast import InferenceForm
from ..modules import Memory
from ..networks.unfolding import StageOutput, Unfolding
from .measures import stage_measures

SOLVER_STEPS = (1, 3, 10)


class Interior(NamedTuple):
    """A decomposition's stages on a batch of pictures, K of them.

    stages: B_k, O_k, D_k, each (batch, 1, height, width).  responses: the contrast prior's w_k, each
    (batch, 1, height, width).  memory_changes: ||m_k - m_{k-1}|| / ||m_{k-1}|| with m_k = (h_k, c_k), each
    (batch,), from the second stage on.  noises: N_k, each (batch, 1, height, width). Networks without contrast
    prior, memory or noise have none.
    """

    stages: tuple[StageOutput, ...]
    responses: tuple[Tensor, ...] = ()
    memory_changes: tuple[Tensor, ...] = ()
    noises: tuple[Tensor, ...] = ()


def look_inside(net: Unfolding, image: Tensor) -> Interior:
    """Run `net`, or its form of `rpcanet.optimize`, on (batch, 1, height, width) and keep what every stage made.

    >>> from unfoldkit.rpcanet import RPCANetPlusPlus
    >>> interior = look_inside(RPCANetPlusPlus(stages=3, channels=8).eval(), torch.rand(1, 1, 16, 20))
    >>> len(interior.stages), len(interior.responses), len(interior.memory_changes)
    (3, 3, 2)
    """

    def look(image: Tensor) -> Interior:
        with torch.compiler.set_stance("force_eager"), _recording(net) as (responses, changes):
            decomposition = net(image, return_stages=True)
        return Interior(decomposition.stages, tuple(responses), tuple(changes), decomposition.noises)

    return net.graphs("interior", look, image) if isinstance(net, InferenceForm) else look(image)


def look_at_solver(method: Callable[..., Separation], image: Tensor) -> Interior:
    """A classical method's parts of (batch, 1, height, width) after `SOLVER_STEPS` iterations and at its end.

    There is nothing to restore: D_k = B_k + O_k.

    >>> from unfoldkit.rpcanet.classical import pcp
    >>> len(look_at_solver(pcp, torch.rand(1, 1, 16, 20)).stages)
    4
    """
    found = [method(image, max_iterations=count) for count in SOLVER_STEPS] + [method(image)]
    return Interior(tuple(StageOutput(x.background, x.object, x.background + x.object) for x in found))


def interior_measures(image: Tensor, interior: Interior) -> dict[str, Tensor]:
    """`rpcanet.inside.measures.stage_measures` of the stages and, where the network has them,

        contrast        (batch, K)      root mean square of the contrast prior's response w_k
        memory_change   (batch, K - 1)  ||m_k - m_{k-1}|| / ||m_{k-1}||, m_k = (h_k, c_k), from the second stage on
        noise           (batch, K)      root mean square of the noise N_k

    >>> from unfoldkit.rpcanet import RPCANetPlusPlus
    >>> image = torch.rand(2, 1, 16, 20)
    >>> measures = interior_measures(image, look_inside(RPCANetPlusPlus(stages=3, channels=8).eval(), image))
    >>> measures["contrast"].shape, measures["memory_change"].shape
    (torch.Size([2, 3]), torch.Size([2, 2]))
    """
    backgrounds, objects, _ = (
        torch.cat(planes, dim=1).float() for planes in zip(*interior.stages, strict=True)
    )
    measures = stage_measures(image[:, 0].float(), backgrounds, objects)
    if interior.responses:
        measures["contrast"] = _root_mean_square(interior.responses)
    if interior.memory_changes:
        measures["memory_change"] = torch.stack(interior.memory_changes, dim=1)
    if interior.noises:
        measures["noise"] = _root_mean_square(interior.noises)
    return measures


@contextmanager
def _recording(net: Unfolding) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """What the stages' contrast priors answer and how far memory moves, in order, while this lasts."""
    responses: list[Tensor] = []
    changes: list[Tensor] = []

    def keep_response(module: nn.Module, inputs: Any, response: Tensor) -> None:
        responses.append(response)

    def keep_change(module: nn.Module, inputs: Any, output: tuple[StageOutput, Any]) -> None:
        before, after = inputs[2], output[1]
        if before is not None and isinstance(after, Memory):
            changes.append(_change(before, after))

    hooks = [stage.register_forward_hook(keep_change) for stage in net.stages]
    priors = [prior for stage in net.stages if (prior := _contrast_prior(stage)) is not None]
    hooks += [prior.register_forward_hook(keep_response) for prior in priors]
    try:
        yield responses, changes
    finally:
        for hook in hooks:
            hook.remove()


def _root_mean_square(planes: tuple[Tensor, ...]) -> Tensor:
    """(batch, K) of K planes (batch, 1, height, width)."""
    return torch.cat(planes, dim=1).float().square().mean((-2, -1)).sqrt()


def _change(before: Memory, after: Memory) -> Tensor:
    """(batch,)."""
    moved = _norm([new - old for old, new in zip(before, after, strict=True)])
    return moved / _norm(before)


def _norm(parts: Iterable[Tensor]) -> Tensor:
    return torch.linalg.vector_norm(torch.cat([part.float().flatten(1) for part in parts], 1), dim=1)


def _contrast_prior(stage: nn.Module) -> nn.Module | None:
    return getattr(getattr(stage, "oem", None), "dcpm", None)
