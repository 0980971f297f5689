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


@pytest.fixture(scope="session")
def hard(matrices):
    """A function that draws a matrix of a kind."""

    def draw(kind, m, n, dtype, seed=0):
        square = torch.arange(max(m, n), dtype=torch.float64)
        columns = torch.arange(n, dtype=torch.float64)
        generator = torch.Generator().manual_seed(seed)
        gaussian = torch.randn(m, n, generator=generator, dtype=torch.float64)
        identity = torch.eye(m, n, dtype=torch.float64)
        made = {
            "kahan": lambda: (
                torch.diag(0.96**square)
                @ (torch.eye(len(square)).double() - 0.28 * (square[:, None] < square))
            ),
            "laeuchli": lambda: torch.cat([torch.ones(1, n).double(), 1e-9 * identity[: m - 1]]),
            "nilpotent": lambda: identity.roll(1, 1).triu(1),
            "denormal": lambda: 1e-40 * gaussian,
            "every second column": lambda: gaussian * (columns % 2),
        }
        if kind not in made:
            return matrices(seed, kind, m, n, dtype, batch=())
        real = made[kind]()[:m, :n]
        return ((1 + 1j) * real if dtype.is_complex else real).to(dtype)

    return draw
