"""Measures of a decomposition against plain NumPy, and what networks show of their inside."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from unfoldkit.datasets import SegmentationDataset, open_pictures
from unfoldkit.rpcanet import RPCANet, RPCANetPlusPlus, load_weights, optimize
from unfoldkit.rpcanet.inside.interpretation import Interior, interior_measures, look_inside
from unfoldkit.rpcanet.inside.measures import (
    Statistics,
    effective_rank,
    leading_energy,
    spectrum,
    stage_measures,
)


def by_definition(image, backgrounds, objects):
    """The measures of one picture (height, width) and its stages (K, height, width), in float64 NumPy."""
    image, backgrounds, objects = (np.asarray(x, np.float64) for x in (image, backgrounds, objects))
    values = [np.linalg.svd(np.maximum(plane, 0), compute_uv=False) for plane in (image, *backgrounds)]
    shares = [s / s.sum() for s in values]
    return {
        "spectrum": np.stack(values),
        "effective_rank": np.array([np.exp(-np.sum(p[p > 0] * np.log(p[p > 0]))) for p in shares]),
        "energy": np.array([[np.sum(s[:r] ** 2) / np.sum(s**2) for r in (1, 5, 10)] for s in values]),
        "sparsity": np.array([np.count_nonzero(plane > 0) / plane.size for plane in objects]),
        "fidelity": np.array(
            [np.sqrt(np.sum((image - b - o) ** 2)) for b, o in zip(backgrounds, objects, strict=True)]
        ),
    }


def agree(measures, wanted, tolerance):
    assert measures.keys() == wanted.keys()
    for name, values in wanted.items():
        scale = np.abs(values).max()
        assert_close(measures[name].double().numpy() / scale, values / scale, rtol=0, atol=tolerance)


def test_measures_are_their_definitions():
    random = torch.Generator().manual_seed(0)
    image = torch.randn(2, 24, 17, generator=random, dtype=torch.float64)
    backgrounds, objects = torch.randn(2, 2, 3, 24, 17, generator=random, dtype=torch.float64)
    measures = stage_measures(image, backgrounds, objects)
    for i in range(2):
        wanted = by_definition(image[i], backgrounds[i], objects[i])
        agree({name: values[i] for name, values in measures.items()}, wanted, 1e-12)


def test_a_plane_of_rank_r_has_all_its_energy_in_r_values():
    left, right = torch.rand(30, 5, dtype=torch.float64), torch.rand(5, 20, dtype=torch.float64)
    values = spectrum(left @ right)
    assert_close(leading_energy(values, (5,)), torch.ones(1, dtype=torch.float64))
    assert effective_rank(values) <= 5


def test_effective_rank_counts_equal_singular_values():
    values = spectrum(torch.stack([torch.diag(torch.tensor([2.0] * r + [0.0] * (5 - r))) for r in (1, 3, 5)]))
    assert_close(effective_rank(values), torch.tensor([1.0, 3.0, 5.0]))


def test_nothing_has_rank_zero_and_no_share_of_energy():
    values = spectrum(-torch.rand(8, 8))
    assert effective_rank(values) == 0
    assert leading_energy(values).isnan().all()


def test_statistics_do_not_depend_on_batches():
    random = torch.Generator().manual_seed(1)
    values = 1e4 + torch.randn(37, 3, generator=random)
    statistics = Statistics()
    for batch in values.split(5):
        statistics.update({"x": batch})
    assert statistics.count == 37
    assert_close(statistics.mean["x"].numpy(), values.numpy().astype(np.float64).mean(0))
    assert_close(statistics.std["x"].numpy(), values.numpy().astype(np.float64).std(0))


def test_pictures_of_other_sizes_are_refused():
    statistics = Statistics()
    statistics.update({"spectrum": torch.ones(1, 8)})
    with pytest.raises(ValueError, match=r"expected spectrum \(8,\), got spectrum \(9,\)"):
        statistics.update({"spectrum": torch.ones(1, 9)})


def test_misfitting_stages_are_refused():
    with pytest.raises(ValueError, match=r"got \(2, 8, 8\), \(2, 3, 8, 8\) and \(2, 3, 8, 9\)"):
        stage_measures(torch.ones(2, 8, 8), torch.ones(2, 3, 8, 8), torch.ones(2, 3, 8, 9))


@pytest.mark.parametrize("form", [lambda net: net, optimize], ids=["as trained", "inference form"])
def test_contrast_prior_and_memory_of_every_stage(form):
    torch.manual_seed(0)
    net, image = form(RPCANetPlusPlus(stages=3, channels=8).eval()), torch.rand(2, 1, 20, 24)
    with torch.no_grad():
        measures = interior_measures(image, look_inside(net, image))
        restoration, object_, memory = image, torch.zeros_like(image), None
        contrast, change = [], []
        for stage in net.stages:
            (background, following, restored), now = stage(restoration, object_, memory)
            prior = stage.oem.dcpm(object_ + restoration - background).numpy()
            contrast.append(np.sqrt((prior**2).mean((1, 2, 3))))
            if memory is not None:
                old, new = (
                    np.concatenate([part.numpy() for part in state], axis=1) for state in (memory, now)
                )
                change.append(np.sqrt(((new - old) ** 2).sum((1, 2, 3)) / (old**2).sum((1, 2, 3))))
            restoration, object_, memory = restored, following, now
    assert_close(measures["contrast"].numpy(), np.stack(contrast, 1), rtol=1e-4, atol=1e-6)
    assert_close(measures["memory_change"].numpy(), np.stack(change, 1), rtol=1e-4, atol=1e-6)


def test_looking_inside_leaves_the_network_as_it_was():
    net = RPCANet(stages=2, channels=4).eval()
    interior = look_inside(net, torch.rand(1, 1, 16, 16))
    assert (interior.responses, interior.memory_changes) == ((), ())
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.reference
@pytest.mark.parametrize("count", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_official_weights_on_real_pictures(reference_file, count):
    """float32 planes on both sides: what is left is the rounding of the singular values, 1e-6 of the largest."""
    pictures = open_pictures("sirst", "test", reference_file("data/sirst"))
    samples = SegmentationDataset(pictures, size=256, mean=0, std=255)
    net = optimize(load_weights(reference_file("weights/rpcanet_sirst_official.pkl")))
    statistics, wanted = Statistics(), []
    for start in range(0, count, 4):
        image = torch.stack([samples[i].image for i in range(start, start + 4)])
        with torch.inference_mode():
            interior: Interior = look_inside(net, image)
            statistics.update(interior_measures(image, interior))
        backgrounds, objects = (
            torch.cat(planes, 1) for planes in list(zip(*interior.stages, strict=True))[:2]
        )
        wanted += [by_definition(*planes) for planes in zip(image[:, 0], backgrounds, objects, strict=True)]
    together = {name: np.stack([measures[name] for measures in wanted]) for name in wanted[0]}
    agree(statistics.mean, {name: values.mean(0) for name, values in together.items()}, 2e-6)
    agree(statistics.std, {name: values.std(0) for name, values in together.items()}, 2e-6)
