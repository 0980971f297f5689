"""KroSBLChannelEstimator keeps the contract of Sionna's channel estimators, and estimates."""

import numpy as np
import pytest
import torch

pytest.importorskip("sionna.phy")

from sionna.phy import config
from sionna.phy.channel.tr38901 import PanelArray
from sionna.phy.mimo import StreamManagement
from sionna.phy.ofdm import LinearDetector, PilotPattern, ResourceGrid

from unfoldkit.sbl import (
    Cell,
    DelayGrid,
    KroSBLChannelEstimator,
    OffGridKroSBL,
    UnfoldedKroSBL,
    umi_channels,
)
from unfoldkit.sbl.ofdm.estimator import array_axes, on_grid


def uplink(streams=1, transmitters=2, symbols=(2, 11), **options):
    return ResourceGrid(
        *(14, 48, 30e3),
        num_tx=transmitters,
        num_streams_per_tx=streams,
        pilot_pattern="kronecker",
        pilot_ofdm_symbol_indices=list(symbols),
        **options,
    )


def received(grid, h, no, seed=0):
    """The pilots alone, through h and noise: (drops, receivers, antennas, symbols, fft_size)."""
    pattern = grid.pilot_pattern
    x = torch.zeros(pattern.mask.shape, dtype=h.dtype)
    x[pattern.mask.bool()] = pattern.pilots.to(h.dtype).flatten()
    y = h.new_zeros(*h.shape[:3], h.shape[-2], grid.fft_size)
    y[..., grid.effective_subcarrier_ind] = torch.einsum("brautsf,utsf->brasf", h, x)
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed), dtype=h.dtype)
    return y + no**0.5 * noise


@pytest.mark.parametrize("precision", ["single", "double"])
@pytest.mark.parametrize("receivers", [1, 2])
@pytest.mark.parametrize("streams", [1, 2])
def test_shapes_and_dtypes(precision, receivers, streams):
    grid = uplink(streams)
    estimator = KroSBLChannelEstimator(grid, (2, 2), precision=precision)
    complex_type = torch.complex64 if precision == "single" else torch.complex128
    y = torch.randn(3, receivers, 4, 14, 48, dtype=complex_type)
    for no in (0.1, torch.rand(3) + 0.1, torch.rand(3, receivers) + 0.1, torch.rand(3, receivers, 4) + 0.1):
        h_hat, err_var = estimator(y, no)
        assert h_hat.shape == err_var.shape == (3, receivers, 4, 2, streams, 14, 48)
        assert h_hat.dtype == complex_type
        assert err_var.dtype == complex_type.to_real()
        assert (err_var >= 0).all()


ESTIMATORS = {"off the grid": OffGridKroSBL(), "on the grid": on_grid(), "both": OffGridKroSBL(paths=2)}


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_a_batch_gives_what_its_members_give(kind):
    grid = uplink()
    estimator = KroSBLChannelEstimator(grid, (4, 4), precision="double", estimator=ESTIMATORS[kind])
    y = received(grid, umi_channels(grid, 3, 40).to(torch.complex128), 0.1)
    no = torch.tensor([0.1, 0.2, 0.05])
    h_hat, err_var = estimator(y, no)
    for member in range(3):
        alone, variance = estimator(y[member : member + 1], no[member : member + 1])
        torch.testing.assert_close(h_hat[member], alone[0], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(err_var[member], variance[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize(
    "cell", [Cell(), Cell(rows=2, dual=True), Cell(speed=20.0)], ids=["still", "dual", "20"]
)
def test_it_denoises_and_knows_its_error(cell, kind):
    grid = uplink()
    h = umi_channels(grid, 8, 60, cell)
    estimator = KroSBLChannelEstimator(grid, cell.array(), estimator=ESTIMATORS[kind])
    h_hat, err_var = estimator(received(grid, h, 0.1), 0.1)
    error = (h_hat - h).abs().square()
    assert error.mean() < 0.03  # least squares: 0.1 / 2, and interpolation
    assert 0.5 < err_var.mean() / error.mean() < 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize(("precision", "tolerance"), [("single", 1e-3), ("double", 1e-7)])
def test_a_gpu_gives_what_the_cpu_gives(kind, precision, tolerance):
    devices = "cpu", "cuda:0"
    grids = [uplink(precision=precision, device=device) for device in devices]
    pattern = grids[1].pilot_pattern  # each device draws its own
    grids[0].pilot_pattern = PilotPattern(
        pattern.mask.cpu(), pattern.pilots.cpu(), precision=precision, device="cpu"
    )
    complex_type = torch.complex64 if precision == "single" else torch.complex128
    y = received(grids[0], umi_channels(grids[0], 4, 60).to(complex_type), 0.1)
    options = {"estimator": ESTIMATORS[kind], "precision": precision}
    here, there = (
        KroSBLChannelEstimator(grid, (4, 4), device=device, **options)(y.to(device), 0.1)
        for grid, device in zip(grids, devices, strict=True)
    )
    for one, other in zip(here, there, strict=True):
        assert other.dtype == one.dtype
        torch.testing.assert_close(one, other.cpu(), rtol=tolerance, atol=tolerance)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_channels_are_drawn_on_the_cpu_where_there_is_a_gpu(monkeypatch):
    drawn = []
    for device in ("cuda:0", "cpu"):
        monkeypatch.setattr(config, "device", device)
        drawn.append(umi_channels(uplink(), 1, 7))
        assert config.device == device
    assert torch.equal(*drawn)


def test_leaving_the_grid_halves_the_error_of_few_sharp_paths():
    """Three paths between beams and delays of the grid."""
    grid = uplink()
    random = torch.Generator().manual_seed(3)
    beams = (
        2
        * torch.pi
        * torch.rand(2, 20, 2, 3, generator=random)
        * torch.arange(4.0)[:, None, None, None, None]
    )
    delays = 1e-6 * torch.rand(20, 2, 3, generator=random)
    frequencies = 2 * torch.pi * 30e3 * torch.arange(48.0)
    gains = torch.randn(20, 2, 3, generator=random, dtype=torch.complex64) / 3**0.5
    rows, columns = (torch.exp(1j * beams[:, i]) for i in (0, 1))
    waves = torch.exp(-1j * frequencies[:, None, None, None] * delays)
    h = torch.einsum("cbup,rbup,fbup,bup->bcruf", columns, rows, waves, gains).flatten(1, 2)
    h = h[:, None, :, :, None, None].expand(-1, 1, 16, 2, 1, 14, -1)
    y = received(grid, h, 0.1)
    losses = [
        float((KroSBLChannelEstimator(grid, (4, 4), estimator=e)(y, 0.1)[0] - h).abs().square().mean())
        for e in (None, on_grid())
    ]
    assert losses[0] < losses[1] / 2


def test_a_channel_without_paths_falls_back_to_the_grid():
    """Independent antennas and twelve taps: little is lost by looking for paths first."""
    grid = uplink()
    taps = (
        torch.randn(6, 16, 2, 12, generator=torch.Generator().manual_seed(4), dtype=torch.complex64) / 12**0.5
    )
    waves = torch.exp(-2j * torch.pi * torch.outer(torch.arange(12) / 48, torch.arange(48.0)))
    h = torch.einsum("baut,tf->bauf", taps, waves)[:, None, :, :, None, None].expand(-1, 1, 16, 2, 1, 14, -1)
    y = received(grid, h, 0.05)
    losses = [
        float((KroSBLChannelEstimator(grid, (4, 4), estimator=e)(y, 0.05)[0] - h).abs().square().mean())
        for e in (OffGridKroSBL(paths=16), on_grid())
    ]
    assert losses[0] < 1.5 * losses[1]


def test_guards_and_a_nulled_carrier_count_as_places():
    grid = ResourceGrid(
        *(14, 53, 30e3),
        num_tx=2,
        num_guard_carriers=(2, 2),
        dc_null=True,
        pilot_pattern="kronecker",
        pilot_ofdm_symbol_indices=[2, 11],
    )
    delay = 0.4e-6
    h = torch.exp(-2j * torch.pi * torch.as_tensor(grid.effective_subcarrier_ind) * 30e3 * delay)
    h = h.to(torch.complex64).expand(1, 1, 4, 2, 1, 14, 48)
    h_hat, _ = KroSBLChannelEstimator(grid, (4,))(received(grid, h, 1e-3), 1e-3)
    assert (h_hat - h).abs().square().mean() < 1e-3


def test_one_pilot_symbol_and_pilots_of_uneven_power():
    grid = uplink(symbols=(3,))
    pattern = grid.pilot_pattern
    pilots = pattern.pilots * torch.linspace(0.5, 2, pattern.num_pilot_symbols)
    grid.pilot_pattern = PilotPattern(pattern.mask, pilots)
    h = umi_channels(grid, 6, 80)
    h_hat, err_var = KroSBLChannelEstimator(grid, (4, 4))(received(grid, h, 0.05), 0.05)
    error = (h_hat - h).abs().square().mean()
    assert error < 0.05
    assert 0.4 < err_var.mean() / error < 2.5


def test_noise_may_be_unknown():
    grid = uplink()
    h = umi_channels(grid, 6, 90)
    y = received(grid, h, 0.1)
    known, _ = KroSBLChannelEstimator(grid, (4, 4))(y, 0.1)
    unknown, _ = KroSBLChannelEstimator(grid, (4, 4), estimate_noise=True)(y)
    losses = [(x - h).abs().square().mean() for x in (unknown, known)]
    assert losses[0] < 1.3 * losses[1]


def test_the_noise_variance_may_be_any_number():
    grid = uplink()
    estimator, y = KroSBLChannelEstimator(grid, (4,)), torch.ones(2, 1, 4, 14, 48, dtype=torch.complex64)
    assert torch.equal(estimator(y, 1)[0], estimator(y, torch.ones(2))[0])


@pytest.mark.parametrize("no", [10.0, 1.0])
def test_a_learned_profile_needs_ten_iterations_for_what_an_even_start_reaches_in_all(no):
    grid = uplink()
    plain = KroSBLChannelEstimator(grid, (4, 4), estimator=on_grid())
    profile = plain.learn_prior(received(grid, umi_channels(grid, 20, 200), no), no)
    assert [len(g) for g in profile] == list(plain.lengths)
    h = umi_channels(grid, 20, 300)
    started = KroSBLChannelEstimator(grid, (4, 4), estimator=on_grid(10), prior=profile)
    losses = [(e(received(grid, h, no), no)[0] - h).abs().square().mean() for e in (started, plain)]
    assert losses[0] <= losses[1]


def test_an_unfolded_network_takes_its_place():
    grid = uplink()
    network = UnfoldedKroSBL(iterations=3, factors=4, m_step="am")
    with torch.no_grad():
        h_hat, err_var = KroSBLChannelEstimator(grid, (2, 2), estimator=network)(
            torch.randn(2, 1, 4, 14, 48, dtype=torch.complex64), 0.5
        )
    assert h_hat.isfinite().all()
    assert (err_var > 0).all()


def test_sionnas_detector_takes_the_output():
    grid = uplink()
    h = umi_channels(grid, 2, 95)
    y = received(grid, h, 0.1)
    detector = LinearDetector(
        *("lmmse", "bit", "app", grid, StreamManagement(np.ones((1, 2)), 1)),
        constellation_type="qam",
        num_bits_per_symbol=2,
        hard_out=True,
    )
    found = detector(y, *KroSBLChannelEstimator(grid, (4, 4))(y, 0.1), torch.tensor(0.1))
    assert found.shape == (2, 2, 1, 2 * grid.num_data_symbols)


def test_arrays_have_their_axes():
    panel = PanelArray(
        num_rows_per_panel=2,
        num_cols_per_panel=3,
        polarization="dual",
        polarization_type="cross",
        antenna_pattern="omni",
        carrier_frequency=3.5e9,
    )
    axes = array_axes(panel)
    assert axes.sizes == (1, 1, 2, 3, 2)
    assert axes.beams == (True, True, False, True, True)


def test_what_does_not_fit_is_refused():
    grid = uplink()
    y = torch.ones(1, 1, 4, 14, 48, dtype=torch.complex64)
    with pytest.raises(ValueError, match="at least one antenna"):
        KroSBLChannelEstimator(grid, ())
    with pytest.raises(ValueError, match=r"y must be \(batch, receivers, 8"):
        KroSBLChannelEstimator(grid, (8,))(y, 0.1)
    with pytest.raises(ValueError, match="noise variance, is missing"):
        KroSBLChannelEstimator(grid, (4,))(y)
    with pytest.raises(ValueError, match="y has NaN"):
        KroSBLChannelEstimator(grid, (4,))(y / 0, 0.1)
    with pytest.raises(ValueError, match="must not be negative"):
        KroSBLChannelEstimator(grid, (4,))(y, -0.1)
    with pytest.raises(ValueError, match="no must be"):
        KroSBLChannelEstimator(grid, (4,))(y, torch.ones(3))
    with pytest.raises(ValueError, match="prior must hold vectors"):
        KroSBLChannelEstimator(grid, (4,), prior=[torch.ones(2)])
    with pytest.raises(ValueError, match="estimate_noise must be False"):
        KroSBLChannelEstimator(grid, (4,), estimator=UnfoldedKroSBL(), estimate_noise=True)
    with pytest.raises(ValueError, match="pilots of each stream on two subcarriers"):
        KroSBLChannelEstimator(
            ResourceGrid(14, 2, 30e3, num_tx=2, pilot_pattern="kronecker", pilot_ofdm_symbol_indices=[2]),
            (4,),
        )
    with pytest.raises(ValueError, match="span and oversampling"):
        KroSBLChannelEstimator(grid, (4,), delays=DelayGrid(span=-1.0))
