"""A surface in Sionna: the paper's system as a special case, 3GPP hops, near range, and phases from estimates."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import math

import pytest
import torch

pytest.importorskip("sionna.phy", reason="needs the extra unfoldkit[sionna]")

import sionna.phy
from sionna.phy.channel import GenerateOFDMChannel, OFDMChannel, gen_single_sector_topology
from sionna.phy.channel.tr38901 import CDL, PanelArray, UMi
from sionna.phy.ofdm import ResourceGrid

from unfoldkit.sbl import AMKroSBL, LeastSquares, PCKroSBL, SVDKroSBL
from unfoldkit.sbl.ofdm.irs_channel import GeometricHop, IRSChannel, SphericalHop
from unfoldkit.sbl.systems import IRSMIMO, Channel, observe, steering_vectors
from unfoldkit.sbl.systems.surface import element_channels, quantised

CARRIER = 3.5e9


def generators(count):
    return [torch.Generator().manual_seed(k) for k in range(count)]


def hops(system, count, **options):
    return [GeometricHop(system, hop, generators(count), **options) for hop in ("to_irs", "to_bs")]


def panel(rows, columns):
    return PanelArray(rows, columns, "single", "V", "omni", CARRIER)


def cdl(sender, receiver, model="C"):
    return CDL(model, 100e-9, CARRIER, sender, receiver, "uplink")


@pytest.mark.parametrize(
    "sizes", [{}, {"bs": (4, 4), "ms": (2, 3), "irs": (4, 8), "grid": 6, "paths": 2, "on_grid": False}]
)
def test_the_system_of_the_paper_is_a_special_case(sizes):
    system = IRSMIMO(**sizes)
    training = system.draw_training(torch.Generator().manual_seed(9))
    expected = system.cascade(system.draw_channels(generators(3)), training)
    a, tau = IRSChannel(*hops(system, 3), patterns=training.patterns)(3, system.patterns, 1.0)
    found = a.sum(-2)[:, 0, :, 0].movedim(-1, 1)
    assert (found - expected).abs().max() < 1e-12 * expected.abs().max()
    assert not tau.any()


def test_an_estimator_of_the_paper_runs_on_it():
    system = IRSMIMO()
    training = system.draw_training(torch.Generator().manual_seed(9))
    a, _ = IRSChannel(*hops(system, 1), patterns=training.patterns)(1, system.patterns, 1.0)
    cascade = a.sum(-2)[0, 0, :, 0].movedim(-1, 0)
    clean = (cascade @ training.pilots).mT.flatten()
    y, s2 = observe(clean, system.draw_noise(torch.Generator().manual_seed(1)), 20.0)
    estimate = PCKroSBL(0.8, coupled=(0, 2))(system.factors(training), y, s2)
    found = system.channel_of(estimate.mean, training)
    assert (found - cascade).norm() < 0.1 * cascade.norm()


def test_hops_of_3gpp_and_a_direct_path_go_through_a_resource_grid():
    """At every subcarrier and symbol the channel is H2 diag(theta) H1 + H_direct, of the hops' own responses."""
    torch.manual_seed(0)
    user, surface, bs = panel(1, 2), panel(4, 4), panel(2, 2)
    grid = ResourceGrid(14, 24, 30e3)
    patterns = torch.polar(torch.ones(16, 14), 6 * torch.rand(16, 14))
    kept = [
        kept_responses(model, grid) for model in (cdl(user, surface), cdl(surface, bs, "D"), cdl(user, bs))
    ]
    channel = IRSChannel(kept[0], kept[1], patterns, direct=kept[2])
    h = GenerateOFDMChannel(channel, grid)(2)
    assert h.shape == (2, 1, 4, 1, 2, 14, 24)
    H1, H2, direct = (GenerateOFDMChannel(model, grid)(2)[:, 0, :, 0] for model in kept)
    expected = torch.einsum("bmstf,st,bsntf->bmntf", H2, patterns, H1) + direct
    assert (h[:, 0, :, 0] - expected).abs().max() < 1e-4 * expected.abs().max()
    y = OFDMChannel(channel, grid)(torch.ones(2, 1, 2, 14, 24, dtype=torch.complex64))
    assert y.shape == (2, 1, 4, 14, 24)


def umi(sender, receiver, senders):
    """An urban microcell's links from `senders` of this array to one of the other."""
    model = UMi(CARRIER, "low", sender, receiver, "uplink", enable_pathloss=False, enable_shadow_fading=False)
    model.set_topology(*gen_single_sector_topology(2, senders, "umi"))
    return model


def test_hops_may_be_of_urban_microcells_with_several_users():
    sionna.phy.config.seed = 5
    surface, grid = panel(2, 4), ResourceGrid(14, 24, 30e3)
    patterns = torch.polar(torch.ones(8), 6 * torch.rand(8, generator=torch.Generator().manual_seed(0)))
    kept = [
        kept_responses(model, grid) for model in (umi(panel(1, 1), surface, 3), umi(surface, panel(2, 2), 1))
    ]
    h = GenerateOFDMChannel(IRSChannel(*kept, patterns), grid)(2)
    assert h.shape == (2, 1, 4, 3, 1, 14, 24)
    H1, H2 = (GenerateOFDMChannel(model, grid)(2)[:, 0] for model in kept)
    expected = torch.einsum("bmstf,s,bsuatf->bmuatf", H2[:, :, 0], patterns, H1)
    assert (h[:, 0] - expected).abs().max() < 1e-4 * expected.abs().max()


def test_a_sparse_estimate_finds_what_3gpp_hops_make_of_each_element_from_half_as_many_patterns():
    torch.manual_seed(0)
    sionna.phy.config.seed = 7
    user, surface, bs = panel(1, 2), panel(1, 16), panel(1, 8)
    system = IRSMIMO(bs=8, ms=2, irs=16, grid=24, pilots=2, patterns=8)
    training = system.draw_training(torch.Generator().manual_seed(9))
    to_irs, to_bs = (
        model(4, 1, 1.0)[0].sum(-2)[:, 0, :, 0, :, 0].to(torch.complex128)
        for model in (cdl(user, surface, "D"), cdl(surface, bs, "D"))
    )
    noise = torch.stack([system.draw_noise(g) for g in generators(4)])
    y, s2 = observe(system.received(Channel(to_irs, to_bs), training), noise, 20.0)
    elements = torch.einsum("zbs,zsm->zsbm", to_bs, to_irs)

    def error(estimator):
        found = element_channels(system, estimator(system.factors(training), y, s2).mean)
        return float((found - elements).abs().square().sum() / elements.abs().square().sum())

    assert error(LeastSquares()) > 0.35
    for sparse in (AMKroSBL(), SVDKroSBL(), PCKroSBL(0.8, coupled=(0, 2))):
        assert error(sparse) < 0.2


def kept_responses(model, grid):
    """A channel model that gives one draw of `model` again and again."""
    response = model(2, grid.num_ofdm_symbols, 1 / grid.ofdm_symbol_duration)
    return lambda *sampled: response


def test_rays_with_delays_select_frequencies():
    system, grid = IRSMIMO(bs=4, ms=2, irs=8, grid=6), ResourceGrid(1, 64, 30e3)
    ones = torch.ones(8, dtype=torch.complex128)
    flat = GenerateOFDMChannel(IRSChannel(*hops(system, 1), patterns=ones), grid)(1)
    wide = GenerateOFDMChannel(IRSChannel(*hops(system, 1, delay_spread=1e-6), patterns=ones), grid)(1)
    assert flat.std(-1).abs().max() < 1e-12 * flat.abs().max()
    assert wide.abs().std(-1).max() > 0.05 * wide.abs().max()


def test_one_bit_costs_at_most_four_decibels():
    generator = torch.Generator().manual_seed(0)
    phases = 2 * math.pi * torch.rand(4096, generator=generator, dtype=torch.float64)
    kept = [
        float(torch.polar(torch.ones_like(phases), quantised(phases, b) - phases).mean().abs())
        for b in (1, 2, 3)
    ]
    lost = [-20 * math.log10(value) for value in kept]
    assert lost == pytest.approx([3.92, 0.91, 0.22], abs=0.1)
    assert len(quantised(phases, 2).unique()) == 4


def line(count, distance, offset=0.0):
    """Elements half a wavelength apart along y, at x = distance."""
    spacing = 299792458.0 / CARRIER / 2
    y = spacing * (torch.arange(count, dtype=torch.float64) - (count - 1) / 2) + offset
    return torch.stack((torch.full_like(y, distance), y, torch.zeros_like(y)), -1)


def response(distance, count=64):
    a, _ = SphericalHop(line(1, 0.0), line(count, distance, offset=0.5 * distance), CARRIER)(1, 1, 1.0)
    return a.flatten()


def test_spherical_waves_are_plane_far_away_and_not_near():
    cosine = -0.5 / math.sqrt(1.25)
    plane = steering_vectors(torch.tensor(cosine, dtype=torch.float64), 64)

    def alike(wave):
        return float((plane.conj() @ wave).abs() / wave.norm())

    assert alike(response(1e5)) == pytest.approx(1, abs=1e-4)
    assert alike(response(5.0)) < 0.9


def test_what_does_not_fit_is_named():
    system = IRSMIMO(bs=4, ms=2, irs=8, grid=6)
    with pytest.raises(ValueError, match="patterns must be"):
        IRSChannel(*hops(system, 1), patterns=torch.ones(7, dtype=torch.complex128))(1, 14, 1.0)
    other = GeometricHop(IRSMIMO(bs=4, ms=2, irs=9, grid=6), "to_bs", generators(1))
    with pytest.raises(ValueError, match="of as many elements"):
        IRSChannel(hops(system, 1)[0], other, torch.ones(8, dtype=torch.complex128))(1, 14, 1.0)
    wrong = GeometricHop(IRSMIMO(bs=5, ms=2, irs=5, grid=6), "to_bs", generators(1))
    with pytest.raises(ValueError, match="direct leads between"):
        IRSChannel(*hops(system, 1), torch.ones(8, dtype=torch.complex128), wrong)(1, 14, 1.0)
    with pytest.raises(ValueError, match="hop must be"):
        GeometricHop(system, "to_ms", generators(1))
    with pytest.raises(ValueError, match="batch_size must be the 1"):
        hops(system, 1)[0](2, 1, 1.0)
    with pytest.raises(ValueError, match="same place"):
        SphericalHop(line(1, 0.0), line(1, 0.0), CARRIER)
