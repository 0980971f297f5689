"""A trained network with fewer parameters, and what that costs layer by layer."""

from collections.abc import Iterable
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...kernels import svdvals
from ..names import CompressionName
from ..networks.unfolding import UnfoldedNetwork
from .calibration import Layer, layers_of, output_errors
from .curvature import Weighing, weighings
from .forms import Factors, factor, matrix_of
from .methods import METHODS, unit_of


class CompressedLayer(NamedTuple):
    """A layer before and after.

    parameters: numbers kept.  operations: multiplications a pixel, after by its factors where these need fewer;
    `optimize` runs windows so.  error: of the output on the pictures, relative; without pictures of the weight.
    """

    name: str
    parameters: int
    parameters_after: int
    operations: int
    operations_after: int
    error: float


class Compressed(NamedTuple):
    """A compressed network, what it keeps in all beside what it had, and its layers that are compressed."""

    net: UnfoldedNetwork
    parameters: int
    parameters_before: int
    layers: list[CompressedLayer]


@torch.inference_mode(False)
@torch.enable_grad()
def compress(
    net: UnfoldedNetwork, method: CompressionName, size: float, calibration: Iterable[Tensor] = ()
) -> Compressed:
    """A copy of `net` with about `size` of its parameters, for further training and `optimize`.

    Windows, 3x3 layers and gates of several channels are made of factors; the others stay. A layer's share follows
    from what its errors cost, to second order and without labels (`weighings`): each rank goes where it saves most
    of the loss for its parameters, without pictures where it adds the largest part of a weight. A layer that would
    need as many as it has stays as it is.

    method:
        separable             sums of separable filters, two thin convolutions
        monarch               the closest Monarch matrix, two thin convolutions in groups
        dictionary            a dictionary times column-sparse coefficients (CoSpaDi, DSFormer)
        low_rank_plus_sparse  robust PCA of the weight
    size: share of the parameters, between 0 and 1; 32 marks of where a nonzero stands count as one.
    calibration: pictures as the network takes them, (1, height, width) each, such as a few of those that it was
        trained on: each form then keeps what matters to the network's outputs.

    The result trains, is saved and loaded, exported and optimised as `net`.

    Raises ValueError for another method, for a size that cannot be met, and for a network that is compressed.

    Source: Dao et al., "Monarch", ICML 2022; Shopkhoev et al., "CoSpaDi", 2025; Jaderberg et al., BMVC 2014.

    >>> from unfoldkit.rpcanet import RPCANetPlusPlus
    >>> net = RPCANetPlusPlus(stages=2, channels=16)
    >>> half = compress(net, "separable", 0.5, torch.rand(2, 1, 32, 32))
    >>> 0.4 < half.parameters / half.parameters_before < 0.5
    True
    >>> half.layers[0].parameters_after < half.layers[0].parameters
    True
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if any(isinstance(part, Factors) for part in net.modules()):
        raise ValueError("net is compressed already; compress the network that it came from")
    layers = layers_of(net)
    pictures = [picture.clone() for picture in calibration]  # of inference mode, too
    known = weighings(net, pictures)
    weighed = {name: known.get(name, Weighing()) for name in layers}
    ranks = shares(layers, weighed, numbers(net), size)
    made = {
        name: METHODS[method](layers[name].weight.detach(), rank, weighed[name])
        for name, rank in ranks.items()
    }
    errors = output_errors(net, pictures, {name: factors().detach() for name, factors in made.items()})
    small = deepcopy(net)
    copies = layers_of(small)
    for name, factors in made.items():
        factor(copies[name], factors)
    rows = [row(name, layers[name], factors, errors[name]) for name, factors in made.items()]
    return Compressed(small, numbers(small), numbers(net), rows)


def shares(layers: dict[str, Layer], weighed: dict[str, Weighing], total: int, size: float) -> dict[str, int]:
    """The rank of each layer whose parameters are to be fewer.

    Ranks are given out in units: one to every layer, then where a unit gains most for its parameters, while they
    last.
    """
    costs = {name: unit_costs(layer.weight.shape) for name, layer in layers.items()}
    costs = {name: units for name, units in costs.items() if len(units) > 1}
    least = total - sum(sum(units[1:]) for units in costs.values())
    if not least <= size * total < total:
        raise ValueError(f"size must be from {least / total:.3f} and below 1 for this network, got {size}")
    gains = {name: unit_gains(layers[name].weight.detach(), weighed[name]) for name in costs}
    given, left = dict.fromkeys(costs, 1), size * total - least
    while True:
        offers = {
            name: gains[name][count] / costs[name][count]
            for name, count in given.items()
            if count < len(costs[name]) and costs[name][count] <= left
        }
        if not offers:
            break
        name = max(offers, key=lambda offer: offers[offer])
        left -= costs[name][given[name]]
        given[name] += 1
    units = {name: unit_of(layers[name].weight.shape) for name in given}
    return {name: count * units[name] for name, count in given.items() if count < len(costs[name])}


def unit_costs(shape: torch.Size) -> list[int]:
    """The parameters of each unit of rank; the last one's are what the weight itself then needs more."""
    cost = unit_of(shape) * (shape[1] * shape[2] + shape[0] * shape[3])
    before = max(shape.numel() // cost - 1, 0)
    return [cost] * before + [shape.numel() - before * cost]


def unit_gains(weight: Tensor, weighing: Weighing) -> list[float]:
    """What each unit of rank saves of the loss; the last one all that is left.

    Where errors are not weighed, the share of the weight's square that it adds.
    """
    saved = svdvals(weighing.white(matrix_of(weight))).square()
    if weighing.inputs is None:
        saved = saved / saved.sum()
    parts = [part.sum().item() for part in saved.split(unit_of(weight.shape))]
    last = len(unit_costs(weight.shape)) - 1
    return [*parts[:last], sum(parts[last:])]


def row(name: str, layer: Layer, factors: Factors, error: float) -> CompressedLayer:
    before = layer.weight.numel()
    return CompressedLayer(name, before, factors.numbers, before, factors.operations, error)


def numbers(net: nn.Module) -> int:
    """The numbers that a network keeps, see `Factors.numbers`."""
    inside = [part for part in net.modules() if isinstance(part, Factors)]
    plain = sum(parameter.numel() for parameter in net.parameters())
    return plain + sum(part.numbers - sum(p.numel() for p in part.parameters()) for part in inside)
