"""Matrices that are hard on a decomposition, shared by the tests of kernels/."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import pytest
import torch

KINDS = ("gaussian", "zero", "rank one", "repeated", "graded")


def draw_matrix(
    seed: int, kind: str, m: int, n: int, dtype: torch.dtype, exponent: int = 0, batch: tuple[int, ...] = (2,)
) -> torch.Tensor:
    """A seeded batch of matrices of a kind, of norm about 10^exponent."""
    generator = torch.Generator().manual_seed(seed)
    k = min(m, n)
    wide = torch.complex128 if dtype.is_complex else torch.float64

    def gaussian(*shape: int) -> torch.Tensor:
        return torch.randn(*batch, *shape, dtype=wide, generator=generator)

    if kind == "gaussian":
        matrix = gaussian(m, n)
    elif kind == "zero":
        matrix = torch.zeros(*batch, m, n, dtype=wide)
    else:
        values = {
            "rank one": torch.arange(k) == 0,
            "repeated": 1 + (torch.arange(k) < k // 2).double(),
            "graded": 10.0 ** -torch.arange(k, dtype=torch.float64),
        }[kind].to(wide)
        left, right = torch.linalg.qr(gaussian(m, k)).Q, torch.linalg.qr(gaussian(n, k)).Q
        matrix = (left * values) @ right.mH
    return (matrix * 10.0**exponent).to(dtype)


@pytest.fixture(scope="session")
def matrices():
    """The function that draws a batch of matrices."""
    return draw_matrix
