"""The protocols on cases counted by hand, and against scikit-learn and plain loops."""

import json
import math

import numpy as np
import pytest
import torch
from scipy import integrate, ndimage
from two_processes import said_by_two

from unfoldkit.rpcanet.metrics import (
    PROTOCOLS,
    CentroidProtocol,
    OverlapProtocol,
    PixelCurves,
    TargetROC,
    protocol,
)

EIGHT = np.ones((3, 3))


def picture(*boxes, level=1.0, size=20):
    """(1, 1, size, size), `level` inside the boxes (row, column, height, width)."""
    x = torch.zeros(1, 1, size, size)
    for row, column, height, width in boxes:
        x[..., row : row + height, column : column + width] = level
    return x


def values(metric, *pairs):
    for probability, mask in pairs:
        metric.update(probability, mask)
    return {name: value.item() for name, value in metric.compute().items() if value.ndim == 0}


def test_overlap_by_hand():
    mask = picture((2, 2, 2, 2), (10, 10, 2, 2))
    answer = picture((3, 3, 2, 2), level=0.3)  # touches one target of two in one pixel; the peak is 0.3
    found = values(OverlapProtocol(), (answer, mask))
    assert found == pytest.approx(
        {
            "iou": 1 / 11,
            "niou": 1 / 11,
            "f1": 2 / 12,
            "precision": 1 / 4,
            "recall": 1 / 8,
            "pd": 1 / 2,
            "fa": 3 / 392,
        }
    )


def test_overlap_threshold_is_relative_to_each_pictures_peak():
    mask = picture((2, 2, 2, 2))
    answer = 0.1 * mask + picture((9, 9, 2, 2), level=0.05)  # exactly half the peak: not predicted
    assert values(OverlapProtocol(), (answer, mask))["iou"] == 1


def test_centroid_by_hand():
    mask = picture((2, 2, 2, 2), (10, 10, 2, 2))
    answer = picture((4, 2, 2, 2), (10, 14, 2, 2), level=0.9)  # 2 and 4 pixels from the targets
    found = values(CentroidProtocol(), (answer, mask))
    assert found["pd"] == 1 / 2
    assert found["fa"] == 4 / 400
    assert found["iou"] == 0


def test_centroid_reach_is_less_than_three_pixels():
    mask = picture((2, 2, 1, 1))
    assert values(CentroidProtocol(), (picture((2, 5, 1, 1)), mask))["pd"] == 0
    assert values(CentroidProtocol(), (picture((4, 4, 1, 1)), mask))["pd"] == 1


def test_one_prediction_serves_one_target():
    mask = picture((2, 2, 1, 1), (2, 4, 1, 1))
    assert values(CentroidProtocol(), (picture((2, 3, 1, 1)), mask))["pd"] == 1 / 2


def test_centroid_threshold_is_one_half():
    mask = picture((2, 2, 2, 2))
    assert values(CentroidProtocol(), (0.5 * mask, mask))["iou"] == 0
    assert values(CentroidProtocol(), (0.51 * mask, mask))["iou"] == 1


def test_touching_at_a_corner_is_one_target():
    mask = picture((2, 2, 1, 1), (3, 3, 1, 1))
    assert values(OverlapProtocol(), (picture((2, 2, 1, 1)), mask))["pd"] == 1


@pytest.mark.parametrize("name", ["overlap", "centroid"])
def test_nothing_to_find_and_nothing_found(name):
    found = values(protocol(name), (picture(), picture()))
    assert found["iou"] == found["niou"] == found["f1"] == 1
    assert math.isnan(found["precision"])
    assert math.isnan(found["recall"])
    assert math.isnan(found["pd"])
    assert math.isnan(found["auc"])
    assert math.isnan(found["fa"]) == (name == "overlap")


@pytest.mark.parametrize("name", ["overlap", "centroid"])
def test_prediction_empty(name):
    found = values(protocol(name), (picture(), picture((2, 2, 2, 2))))
    assert found["iou"] == found["niou"] == found["f1"] == found["recall"] == found["pd"] == found["fa"] == 0
    assert math.isnan(found["precision"])


def test_false_alarms_on_an_empty_mask():
    answer, clean = picture((2, 2, 2, 2)), (picture((5, 5, 2, 2)), picture((5, 5, 2, 2)))
    overlap = values(OverlapProtocol(), (answer, picture()), clean)
    assert overlap["fa"] == 0  # left out of pd and fa
    assert overlap["precision"] == 1 / 2  # but its pixels count
    assert overlap["niou"] == 1 / 2
    assert values(CentroidProtocol(), (answer, picture()), clean)["fa"] == 4 / 800


def scenes(count=6, size=32, seed=3):
    rng = np.random.default_rng(seed)
    masks = ndimage.binary_dilation(rng.random((count, 1, size, size)) > 0.995, np.ones((1, 1, 3, 3)))
    probability = np.clip(0.6 * masks + 0.5 * rng.random(masks.shape), 0, 1).astype(np.float32)
    return torch.from_numpy(probability), torch.from_numpy(masks).float()


def test_roc_equals_a_plain_loop():
    probability, mask = scenes()
    found, false, targets, pixels = np.zeros(201), np.zeros(201), 0, 0
    for p, m in zip(probability[:, 0].numpy(), mask[:, 0].numpy() > 0, strict=True):
        labels, number = ndimage.label(m, EIGHT)
        targets, pixels = targets + number, pixels + (~m).sum()
        p = p / p.max()
        for i in range(201):
            predicted = p >= np.float32(i / 200)
            found[i] += sum((predicted & (labels == k)).any() for k in range(1, number + 1))
            false[i] += (predicted & ~m).sum()
    roc = TargetROC()
    roc.update(probability, mask)
    result = roc.compute()
    np.testing.assert_allclose(result["roc_pd"], found / targets)
    np.testing.assert_allclose(result["roc_fa"], false / pixels)
    expected = integrate.trapezoid((found / targets)[::-1], (false / pixels)[::-1])
    assert result["auc"].item() == pytest.approx(expected)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_batches_accumulate(name):
    probability, mask = scenes()
    whole = values(protocol(name), (probability, mask))
    one_by_one = zip(probability.split(1), mask.split(1), strict=True)
    assert values(protocol(name), *one_by_one) == pytest.approx(whole)


WORKER = """
import json
from unfoldkit.rpcanet.metrics import protocol
probability, mask = torch.load(data)
mine = slice(0, 1) if rank == "0" else slice(1, None)
metrics = protocol("overlap")
metrics.update(probability[mine], mask[mine])
found = {name: value.item() for name, value in metrics.compute().items() if value.ndim == 0}
if rank == "0":
    print(json.dumps(found))
"""


def test_processes_accumulate(tmp_path):
    probability, mask = scenes()
    torch.save((probability, mask), tmp_path / "data.pt")
    printed = said_by_two(WORKER, tmp_path / "data.pt")
    assert json.loads(printed[0].splitlines()[-1]) == pytest.approx(
        values(protocol("overlap"), (probability, mask))
    )


def test_wrong_shapes_and_nan_are_refused():
    with pytest.raises(ValueError, match=r"got \(1, 1, 4, 4\) and \(1, 4, 4\)"):
        OverlapProtocol().update(torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4))
    with pytest.raises(ValueError, match="probability holds NaN"):
        OverlapProtocol().update(torch.full((1, 1, 4, 4), torch.nan), torch.zeros(1, 1, 4, 4))
    with pytest.raises(ValueError, match="protocol must be one of overlap, centroid"):
        protocol("coco")


def vessel_numbers(probability, mask):
    """One picture's numbers by scikit-learn."""
    from sklearn import metrics

    p, m = probability.numpy().ravel(), mask.numpy().ravel() > 0
    predicted = p > 0.5
    return {
        "accuracy": metrics.accuracy_score(m, predicted),
        "sensitivity": metrics.recall_score(m, predicted),
        "specificity": metrics.recall_score(~m, ~predicted),
        "precision": metrics.precision_score(m, predicted),
        "f1": metrics.f1_score(m, predicted),
        "iou": metrics.jaccard_score(m, predicted),
        "auc": metrics.roc_auc_score(m, p),
    }


def test_vessel_numbers_are_scikit_learns_averaged_over_pictures():
    probability, mask = scenes()
    probability = (8 * probability).round() / 8  # ties
    each = [vessel_numbers(p, m) for p, m in zip(probability, mask, strict=True)]
    expected = {name: np.mean([numbers[name] for numbers in each]) for name in each[0]}
    assert values(protocol("vessel"), (probability, mask)) == pytest.approx(expected, abs=1e-12)


def test_vessel_pictures_without_a_class_are_left_out_of_that_mean():
    mask = picture((2, 2, 2, 2))
    found = values(protocol("vessel"), (0.9 * mask, mask), (picture(), picture()))
    assert found == dict.fromkeys(found, 1.0)


def test_vessel_threshold_is_one_half():
    mask = picture((2, 2, 2, 2))
    assert values(protocol("vessel"), (0.5 * mask, mask))["sensitivity"] == 0


def test_defect_pixels_count_as_in_overlap():
    probability, mask = scenes()
    overlap, defect = (values(protocol(name), (probability, mask)) for name in ("overlap", "defect"))
    for name in ("iou", "niou", "f1", "precision", "recall"):
        assert defect[name] == overlap[name]


def test_structure_measure_and_mae_by_hand():
    """Half the picture is object and the map says 1/2 everywhere."""
    mask = picture((0, 0, 20, 10))
    found = values(protocol("defect"), (torch.full((1, 1, 20, 20), 0.5), mask))
    # Object similarity: 2 x 1/2 / (1/4 + 1) in both classes. Region similarity: the centroid splits at column 5;
    # left of it, a quarter of the picture, map and mask are constant (1); right of it the mask is not (0).
    assert found["mae"] == 0.5
    assert found["smeasure"] == pytest.approx(0.5 * 0.8 + 0.5 * 0.25)


def test_structure_measure_is_pysodmetrics_on_the_map_as_it_is():
    from py_sod_metrics import MAE, Smeasure

    probability, mask = scenes()
    structure, error = Smeasure(), MAE()
    for p, m in zip(probability[:, 0].numpy(), mask[:, 0].numpy() > 0, strict=True):
        structure.step(p.astype(np.float64), m, normalize=False)
        error.step(p.astype(np.float64), m, normalize=False)
    found = values(protocol("defect"), (probability, mask))
    assert found["smeasure"] == pytest.approx(structure.get_results()["sm"])
    assert found["mae"] == pytest.approx(error.get_results()["mae"])


@pytest.mark.parametrize("row", [0, 19])
def test_structure_measure_of_an_object_at_the_border_is_finite(row):
    mask = picture((row, 0, 1, 20))
    assert values(protocol("defect"), (mask, mask))["smeasure"] == pytest.approx(1)


def test_centroid_takes_components_in_raster_order():
    """(0, 5) is met first and takes (0, 3), which leaves (2, 2) to (1, 3); the other way round one stays over."""
    mask, answer = torch.zeros(2, 1, 1, 4, 6)
    mask[..., 0, 5] = mask[..., 1, 3] = 1
    answer[..., 0, 3] = answer[..., 2, 2] = 1
    found = values(CentroidProtocol(), (answer, mask))
    assert (found["pd"], found["fa"]) == (1, 0)


@pytest.mark.parametrize("name", [*PROTOCOLS, "roc", "curves"])
@pytest.mark.parametrize(
    ("level", "shown"), [(255.0, "0 to 255"), (-0.1, "-0.1 to 0"), (1.001, "0 to 1.001")]
)
def test_probabilities_outside_zero_to_one_are_refused(name, level, shown):
    metric = {"roc": TargetROC, "curves": PixelCurves}.get(name, lambda: protocol(name))()
    with pytest.raises(ValueError, match=f"from 0 to 1, found {shown}; divide levels of 0 to 255 by 255"):
        metric.update(picture((2, 2, 2, 2), level=level), picture((2, 2, 2, 2)))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_threshold_takes_the_place_of_the_protocols_rule(name):
    mask = picture((2, 2, 2, 2), (8, 8, 4, 4))
    answer = picture((2, 2, 2, 2), level=0.2) + picture((8, 8, 4, 4), level=0.4)
    assert values(protocol(name, threshold=0.1), (answer, mask))["iou"] == 1
    assert values(protocol(name, threshold=0.2), (answer, mask))["iou"] == 16 / 20
    assert values(protocol(name, threshold=0.4), (answer, mask))["iou"] == 0
    with pytest.raises(ValueError, match="threshold must be at least 0 and below 1, got 128"):
        protocol(name, threshold=128)


def test_vessel_counts_inside_a_region_alone():
    probability, mask = scenes()
    probability = probability.roll(2, dims=-1)
    region = torch.zeros_like(mask)
    region[..., 4:20, 7:30] = 255
    cut = probability[..., 4:20, 7:30], mask[..., 4:20, 7:30]
    metrics = protocol("vessel")
    metrics.update(probability, mask, region=region)
    inside = {name: value.item() for name, value in metrics.compute().items()}
    assert inside == values(protocol("vessel"), cut)
    assert inside != values(protocol("vessel"), (probability, mask))


def test_a_region_that_does_not_fit_is_refused():
    mask = picture((2, 2, 2, 2))
    with pytest.raises(ValueError, match=r"region \(20, 20\) and mask \(1, 1, 20, 20\) differ"):
        protocol("vessel").update(mask, mask, region=mask[0, 0])
    with pytest.raises(ValueError, match="region is empty"):
        protocol("vessel").update(mask, mask, region=picture())


def by_pysodmetrics(probability, mask, relative):
    """iou, f1, niou, smeasure and mae of pysodmetrics for maps as they are."""
    from py_sod_metrics import MAE, FmeasureHandler, FmeasureV2, IOUHandler, Smeasure

    options = {"with_dynamic": False, "with_adaptive": False, "with_binary": True}
    handlers = {
        "iou": IOUHandler(**options, sample_based=False),
        "niou": IOUHandler(**options),
        "f1": FmeasureHandler(**options, sample_based=False, beta=1),
    }
    pixels, structure, error = FmeasureV2(handlers), Smeasure(), MAE()
    for p, m in zip(probability[:, 0].numpy(), mask[:, 0].numpy() > 0, strict=True):
        pixels.step(p / p.max() if relative else p, m, normalize=False)
        structure.step(p.astype(np.float64), m, normalize=False)
        error.step(p.astype(np.float64), m, normalize=False)
    found = {name: value["binary"] for name, value in pixels.get_results().items()}
    return found | {"smeasure": structure.get_results()["sm"], "mae": error.get_results()["mae"]}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["overlap", "centroid", "defect"])
def test_numbers_are_pysodmetrics(name, dtype):
    for seed in range(20):
        probability, mask = scenes(count=4, size=48, seed=seed)
        noise = torch.rand(
            probability.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
        )
        probability = (0.5 * probability + 0.5 * noise).to(dtype)
        mask[0] = 1.0 * (seed % 2)  # nothing to find, or all
        found = values(protocol(name), (probability, mask))
        expected = by_pysodmetrics(probability, mask, relative=name != "centroid")
        for number in expected.keys() & found.keys():
            assert found[number] == pytest.approx(expected[number], abs=1e-9)
