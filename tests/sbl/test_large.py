"""Problems whose full matrix could not be stored."""

import pytest

from unfoldkit.tools.benchmarks.estimators import four_factors


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "columns", "seconds", "gibibytes"), [(32, 64, 30, 2), (64, 128, 120, 10)])
def testfour_factors(rows, columns, seconds, gibibytes):
    time, memory = four_factors("test", rows, columns, seconds, gibibytes)
    assert time.value < seconds
    assert memory.value < gibibytes
