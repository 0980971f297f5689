"""What a compressed convolution keeps in place of its weight, and how a network takes such a form.

A weight (O, C, h, w) is seen as the matrix with a row for each (c, i) and a column for each (o, j): of rank K it
is a vertical convolution C -> K followed by a horizontal one K -> O.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...kernels import Monarch, same_conv2d
from ..modules.dcpm import CentralContrast
from ..modules.layers import Conv3x3

MARK = ".factors."  # in the names of what a compressed convolution keeps


def matrix_of(weight: Tensor) -> Tensor:
    """(C h, O w) of (O, C, h, w)."""
    return weight.permute(1, 2, 0, 3).flatten(2).flatten(0, 1)


def weight_of(matrix: Tensor, shape: torch.Size) -> Tensor:
    """(O, C, h, w) of (C h, O w)."""
    out_channels, in_channels, height, width = shape
    weight = matrix.view(in_channels, height, out_channels, width).permute(2, 0, 1, 3)
    return weight.contiguous(memory_format=torch.channels_last)


class Factors(nn.Module):
    """The numbers that a weight is made of; called, the weight."""

    def __init__(self, shape: torch.Size, **tensors: Tensor) -> None:
        super().__init__()
        self.shape = torch.Size(shape)
        self.rows, self.columns = shape[1] * shape[2], shape[0] * shape[3]
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                self.register_parameter(name, nn.Parameter(tensor))
            else:
                self.register_buffer(name, tensor)
        if not self.fits():
            shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
            raise ValueError(f"factors {shapes} do not make a weight of shape {tuple(shape)}")

    def forward(self) -> Tensor:
        with torch.autocast(next(self.parameters()).device.type, enabled=False):
            return weight_of(self.matrix(), self.shape)

    def fits(self) -> bool:
        """Whether the shapes are those of a weight of `shape`."""
        raise NotImplementedError

    def matrix(self) -> Tensor:
        """(C h, O w)."""
        raise NotImplementedError

    def monarch(self) -> Monarch | None:
        """Its transpose as a Monarch matrix, where it is one."""
        return None

    @property
    def numbers(self) -> int:
        """How many are kept; 32 marks of where a nonzero stands count as one."""
        kept = sum(parameter.numel() for parameter in self.parameters())
        return kept + sum(-(-buffer.numel() // 4) for buffer in self.buffers())

    @property
    def operations(self) -> int:
        """Multiplications for each pixel in the cheaper of both ways, by factors or by the weight."""
        found, dense = self.monarch(), self.shape.numel()
        return dense if found is None else min(dense, found.left.numel() + found.right.numel())


class BlockFactors(Factors):
    """A Monarch matrix of b blocks: left (b, O w / b, b r), right (b, b r, C h / b); with one block, low rank."""

    left: Tensor
    right: Tensor

    def fits(self) -> bool:
        left, right = self.left.shape, self.right.shape
        if len(left) != 3 or len(right) != 3 or not left[0] or left[2] % left[0]:
            return False
        blocks = left[0]
        sizes = (blocks, self.columns // blocks, left[2]), (blocks, left[2], self.rows // blocks)
        return (left, right) == sizes and not any(n % blocks for n in self.shape[:2])

    def matrix(self) -> Tensor:
        return self.monarch().dense().mT

    def monarch(self) -> Monarch:
        return Monarch(self.left, self.right)


class DictionaryFactors(Factors):
    """atoms (C h, k) times coefficients (k, O w), kept as `packed` keeps a sparse matrix."""

    atoms: Tensor
    values: Tensor
    marks: Tensor

    def fits(self) -> bool:
        return (
            self.atoms.ndim == 2
            and len(self.atoms) == self.rows
            and marked(self.values, self.marks, self.atoms.shape[1] * self.columns)
        )

    def coefficients(self) -> Tensor:
        return spread(self.values, self.marks, (self.atoms.shape[1], self.columns))

    def matrix(self) -> Tensor:
        return self.atoms @ self.coefficients()

    def monarch(self) -> Monarch:
        return Monarch(self.coefficients().mT[None], self.atoms.mT[None])


class LowRankSparseFactors(Factors):
    """left (C h, r) times right (r, O w), plus a sparse matrix as in `DictionaryFactors`."""

    left: Tensor
    right: Tensor
    values: Tensor
    marks: Tensor

    def fits(self) -> bool:
        left, right = self.left.shape, self.right.shape
        fitting = len(left) == len(right) == 2 and (left[0], right) == (self.rows, (left[1], self.columns))
        return fitting and marked(self.values, self.marks, self.rows * self.columns)

    def matrix(self) -> Tensor:
        return self.left @ self.right + spread(self.values, self.marks, (self.rows, self.columns))


FORMS: dict[frozenset[str], type[Factors]] = {
    frozenset(("left", "right")): BlockFactors,
    frozenset(("atoms", "values", "marks")): DictionaryFactors,
    frozenset(("left", "right", "values", "marks")): LowRankSparseFactors,
}


def packed(sparse: Tensor) -> dict[str, Tensor]:
    """The nonzero `values` of a matrix, row by row, and their `marks`: a bit for each entry, eight a byte."""
    flat = sparse.flatten()
    bits = nn.functional.pad((flat != 0).byte(), (0, -len(flat) % 8)).view(-1, 8)
    return {"values": flat[flat != 0], "marks": (bits << _places(bits)).sum(1, dtype=torch.uint8)}


def spread(values: Tensor, marks: Tensor, shape: tuple[int, int]) -> Tensor:
    """The matrix of `packed`, without asking how many entries are marked."""
    bits = (marks[:, None] >> _places(marks)) & 1
    there = bits.flatten()[: shape[0] * shape[1]]
    turn = there.cumsum(0) - 1
    return torch.where(there.bool(), values[turn.clamp_min(0)], 0).view(shape)


def marked(values: Tensor, marks: Tensor, entries: int) -> bool:
    """Whether `marks` are of so many entries, and of as many nonzeros as there are values."""
    if (
        values.ndim != 1
        or not len(values)
        or marks.dtype != torch.uint8
        or marks.shape != (-(-entries // 8),)
    ):
        return False
    return marks.is_meta or int(((marks[:, None] >> _places(marks)) & 1).sum()) == len(values)


def _places(like: Tensor) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=like.device)


class FactoredConv(Conv3x3):
    """A 3x3 convolution whose weight is made of `factors`."""

    factors: Factors

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        return self.factors()

    def forward(self, input: Tensor) -> Tensor:
        return same_conv2d(input, self.weight, self.bias)


class FactoredContrast(CentralContrast):
    """A contrast whose window is made of `factors`."""

    factors: Factors

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        return self.factors()


def factor(layer: Conv3x3 | CentralContrast, factors: Factors) -> None:
    """From now on the layer's weight is made of `factors`."""
    del layer.weight
    layer.__class__ = FactoredContrast if isinstance(layer, CentralContrast) else FactoredConv
    layer.factors = factors


def unfactor(layer: FactoredConv) -> None:
    """The layer keeps its weight again."""
    weight = layer.weight.detach()
    del layer.factors
    layer.__class__ = Conv3x3  # type: ignore[assignment]
    layer.weight = nn.Parameter(weight)  # type: ignore[misc]


def take_form(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Make room in `net` for the factors that `state` holds; raises ValueError where they make no such weight.

    Which form a layer has follows from names, its sizes from shapes.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        name, mark, part = key.partition(MARK)
        if mark:
            found.setdefault(name, {})[part] = tensor
    layers = dict(net.named_modules())
    for name, tensors in found.items():
        layer, form = layers.get(name), FORMS.get(frozenset(tensors))
        if form is None or not isinstance(layer, Conv3x3 | CentralContrast) or hasattr(layer, "factors"):
            continue  # a key that is not expected, or of a layer that has its form
        weight = layer.weight
        try:
            made = form(weight.shape, **{part: tensor.detach().clone() for part, tensor in tensors.items()})
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        factor(layer, made.to(weight.device))
