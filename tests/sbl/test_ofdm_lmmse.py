"""The LMMSE estimator whose filters are shared by all drops against Sionna's own."""

import pytest
import torch

sionna = pytest.importorskip("sionna.phy")

from sionna.phy.ofdm import LMMSEChannelEstimator, ResourceGrid  # noqa: E402

from unfoldkit.sbl.ofdm.comparison import ORDERS  # noqa: E402
from unfoldkit.sbl.ofdm.shared_lmmse import SharedLMMSE  # noqa: E402
from unfoldkit.sbl.ofdm.umi import Cell, covariances, umi_channels  # noqa: E402


@pytest.mark.parametrize("order", ORDERS)
def test_it_gives_what_sionnas_block_gives(order):
    grid = ResourceGrid(6, 24, 30e3, num_tx=2, pilot_pattern="kronecker", pilot_ofdm_symbol_indices=[1, 4])
    cell = Cell(rows=2, columns=2)
    covariance = covariances(grid, 30, 5, cell)
    h = umi_channels(grid, 2, 100, cell)
    random = torch.Generator().manual_seed(0)
    y = torch.randn(2, 1, 4, 6, 24, dtype=torch.complex64, generator=random) + h.sum((3, 4))
    no = torch.tensor(0.3)
    block = LMMSEChannelEstimator(grid, covariance.time, covariance.frequency, covariance.space, order=order)
    expected, expected_variance = block(y, no)
    found, variance = SharedLMMSE(grid, covariance, order)(y, no)
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-4)
    torch.testing.assert_close(variance, expected_variance, rtol=2e-3, atol=2e-4)
