"""The synthetic problem: Gaussian factors and a Gaussian x with a random Kronecker support."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...kernels import kron_matvec


class SyntheticProblem(NamedTuple):
    """One draw.

    factors: (M_i, N_i); x: (N_1, ..., N_I); support: (N_i,) booleans; clean: A x, (M,); noise: (M,), of unit
    variance.
    """

    factors: tuple[Tensor, ...]
    x: Tensor
    support: tuple[Tensor, ...]
    clean: Tensor
    noise: Tensor


def draw_synthetic(
    generator: torch.Generator,
    rows: Sequence[int] = (8, 12, 15),
    columns: Sequence[int] = (15, 15, 15),
    sparsity: int | Sequence[int] = 3,
    dtype: torch.dtype = torch.float64,
) -> SyntheticProblem:
    """Draw standard Gaussian A_i, `sparsity` nonzeros a factor, standard Gaussian entries of x and noise.

    A complex dtype makes all of them circular with unit variance.
    Source: He and Joseph, IEEE Trans. Signal Processing 2024, the synthetic experiment.

    Raises:
        ValueError: the factors' sizes and sparsities do not match, are less than one or name no factor, a
            sparsity exceeds its columns, or dtype is of whole numbers.

    >>> problem = draw_synthetic(torch.Generator().manual_seed(0), rows=(4, 5), columns=(6, 6), sparsity=2)
    >>> problem.clean.shape, int(problem.x.count_nonzero())
    (torch.Size([20]), 4)
    """
    counts = [sparsity] * len(rows) if isinstance(sparsity, int) else list(sparsity)
    require_sizes(rows, columns, counts)
    if not (dtype.is_floating_point or dtype.is_complex):
        raise ValueError(f"dtype must be floating point or complex, got {dtype}")

    def gaussian(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype, device=generator.device)

    factors = tuple(gaussian(m, n) for m, n in zip(rows, columns, strict=True))
    support = tuple(_support(generator, n, k) for n, k in zip(columns, counts, strict=True))
    x = gaussian(*columns) * torch.stack(torch.meshgrid(*support, indexing="ij")).all(0)
    clean = kron_matvec(list(factors), x.flatten())
    return SyntheticProblem(factors, x, support, clean, gaussian(clean.shape[0]))


def require_sizes(rows: Sequence[int], columns: Sequence[int], counts: Sequence[int]) -> None:
    """ValueError unless M_i, N_i and the nonzeros a factor make a problem.

    >>> require_sizes((4, 5), (6, 6), (2, 2))
    """
    if not len(rows) == len(columns) == len(counts):
        raise ValueError(
            f"rows, columns and sparsity name {len(rows)}, {len(columns)} and {len(counts)} factors"
        )
    if min([*rows, *columns, *counts], default=0) < 1:
        raise ValueError(f"rows {rows}, columns {columns} and sparsity {counts} must be at least 1")
    if any(k > n for k, n in zip(counts, columns, strict=True)):
        raise ValueError(f"sparsity {counts} exceeds the columns {list(columns)}")


def _support(generator: torch.Generator, length: int, count: int) -> Tensor:
    chosen = torch.randperm(length, generator=generator, device=generator.device)[:count]
    return torch.zeros(length, dtype=torch.bool, device=generator.device).index_fill(0, chosen, True)
