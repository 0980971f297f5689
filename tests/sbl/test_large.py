"""Problems whose full matrix could not be stored."""

import pytest
import torch

from unfoldkit.kernels import kron_matvec
from unfoldkit.sbl import SVDKroSBL
from unfoldkit.sbl.systems import observe
from unfoldkit.tools.benchmarks.estimators import four_factors


@pytest.mark.parametrize(
    ("factors", "rows", "columns", "at_most"),
    [(2, 128, 300, 8), (3, 32, 64, 10), (3, 64, 128, 8), (4, 16, 32, 12)],
)
def test_large_problems_leave_the_flat_start_in_a_few_iterations(factors, rows, columns, at_most):
    """Support 3 a factor, 20 dB: by roots alone it takes 14, 18, 14 and 26 iterations."""
    random = torch.Generator().manual_seed(0)
    matrices = [torch.randn(rows, columns, generator=random) for _ in range(factors)]
    support = [torch.randperm(columns, generator=random)[:3].sort().values for _ in matrices]
    parts = [A[:, kept] for A, kept in zip(matrices, support, strict=True)]
    clean = kron_matvec(parts, torch.randn(3**factors, generator=random))
    y, s2 = observe(clean, torch.randn(clean.shape, generator=random), 20.0)
    estimate = SVDKroSBL()(matrices, y, s2, compact=True)
    assert estimate.iterations <= at_most
    for found, true in zip(estimate.support, support, strict=True):
        torch.testing.assert_close(found, true)


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "columns", "seconds", "gibibytes"), [(32, 64, 30, 2), (64, 128, 120, 10)])
def test_four_factors(rows, columns, seconds, gibibytes):
    time, memory = four_factors("test", rows, columns, seconds, gibibytes)
    assert time.value < seconds
    assert memory.value < gibibytes
