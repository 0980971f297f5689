"""The oracle that is told every path's directions and delay: its posterior, and its paths beside the channels."""

import math

import pytest
import torch

pytest.importorskip("sionna.phy")

import sionna.phy
from sionna.phy.ofdm import ResourceGrid

from unfoldkit.sbl import Cell, KroSBLChannelEstimator, umi_channels
from unfoldkit.sbl.ofdm.oracle import KnownPaths, PathOracle, umi_paths

from .test_ofdm_estimator import received

CELLS = {"still": Cell(), "20 m/s": Cell(speed=20.0), "dual": Cell(rows=2, dual=True)}


def uplink(symbols=14, subcarriers=48, precision="single"):
    sionna.phy.config.seed = 1
    return ResourceGrid(
        *(symbols, subcarriers, 30e3),
        num_tx=2,
        pilot_pattern="kronecker",
        pilot_ofdm_symbol_indices=[1, symbols - 2],
        precision=precision,
    )


@pytest.mark.parametrize("case", range(10))
def test_it_is_the_gaussian_posterior(case):
    """As a system of equations for all amplitudes at once gives it."""
    random = torch.Generator().manual_seed(case)
    grid = uplink(symbols=5, subcarriers=16, precision="double")
    roots = torch.randn(1, 2, 3, 4, 5, 2, generator=random, dtype=torch.complex128)
    paths = KnownPaths(roots, 3e-6 * torch.rand(1, 2, 3, generator=random, dtype=torch.float64))
    y = torch.randn(1, 1, 4, 5, 16, generator=random, dtype=torch.complex128)
    no = float(torch.rand(1, generator=random)) + 0.1
    h_hat, err_var = PathOracle(grid, paths)(y, no)
    frequencies = 30e3 * torch.arange(-8, 8).double()
    mask, pilots = grid.pilot_pattern.mask[:, 0].bool(), grid.pilot_pattern.pilots[:, 0]
    for user in range(2):
        waves = torch.exp(-2j * math.pi * frequencies * paths.delays[0, user, :, None])
        columns = torch.einsum("patr,pf->atfpr", roots[0, user], waves).flatten(3)
        sent = torch.zeros(5, 16, dtype=torch.complex128)
        sent[mask[user]] = pilots[user]
        used = sent != 0
        A = (columns * sent[..., None])[:, used].flatten(0, 1)
        covariance = torch.linalg.inv(torch.eye(6) + A.mH @ A / no)
        mean = columns @ covariance @ A.mH @ y[0, 0][:, used].flatten() / no
        variance = torch.einsum("atfn,nm,atfm->atf", columns, covariance, columns.conj()).real
        torch.testing.assert_close(h_hat[0, 0, :, user, 0], mean)
        torch.testing.assert_close(err_var[0, 0, :, user, 0, :, ::8], variance[..., ::8])


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_its_paths_are_those_of_the_channels(cell):
    """Without noise nothing of the channel is left; with noise the error is as large as is said."""
    grid = uplink()
    h, paths = umi_channels(grid, 2, 70, cell), umi_paths(grid, 2, 70, cell)
    oracle = PathOracle(grid, paths)
    assert (oracle(received(grid, h, 1e-7), 1e-7)[0] - h).abs().square().mean() < 1e-5
    h_hat, err_var = oracle(received(grid, h, 0.1), 0.1)
    assert 0.8 < err_var.mean() / (h_hat - h).abs().square().mean() < 1.25


def test_paths_are_to_be_found_without_it():
    grid, cell = uplink(), Cell()
    h, paths = umi_channels(grid, 2, 70, cell), umi_paths(grid, 2, 70, cell)
    y = received(grid, h, 0.1)
    methods = PathOracle(grid, paths), KroSBLChannelEstimator(grid, cell.array())
    told, found = ((e(y, 0.1)[0] - h).abs().square().mean() for e in methods)
    assert told < found / 2


def test_what_does_not_fit_is_refused():
    grid = uplink()
    oracle = PathOracle(grid, umi_paths(grid, 1, 3))
    with pytest.raises(ValueError, match=r"those of the paths, \(1, 1, 16, 14"):
        oracle(torch.zeros(2, 1, 16, 14, 48) + 0j, 0.1)
    with pytest.raises(ValueError, match="at least one drop"):
        umi_paths(grid, 0, 3)
    with pytest.raises(ValueError, match="no must be positive"):
        oracle(torch.zeros(1, 1, 16, 14, 48) + 0j, 0.0)
