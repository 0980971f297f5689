"""What a GPU counts, whole batches in torch, equals what is counted picture by picture: here on CPU tensors."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import numpy as np
import pytest
import torch

from unfoldkit.rpcanet.metrics import CentroidProtocol, OverlapProtocol, TargetROC, VesselProtocol, batched
from unfoldkit.rpcanet.metrics.protocol import components, planes

KINDS = ("dense", "sparse", "grey", "squares", "nothing found", "nothing there", "full", "spiral")


def spiral(size):
    """One component as long as the picture has room for."""
    mask, row, column, step = torch.zeros(size, size), 0, 0, (0, 1)
    for _ in range(size * size):
        mask[row, column] = 1
        ahead = (row + 2 * step[0], column + 2 * step[1])
        inside = all(0 <= x < size for x in (row + step[0], column + step[1]))
        if not inside or (all(0 <= x < size for x in ahead) and mask[ahead] == 1):
            step = (step[1], -step[0])
            if mask[row + 2 * step[0], column + 2 * step[1]] == 1:
                break
        row, column = row + step[0], column + step[1]
    return mask


def maps(kind):
    """Probabilities and masks of 5 pictures of 33x40."""
    generator = torch.Generator().manual_seed(KINDS.index(kind))
    probability = torch.rand(5, 1, 33, 40, generator=generator)
    mask = (torch.rand(5, 1, 33, 40, generator=generator) < 0.02).float()
    if kind == "dense":
        mask = (torch.rand(5, 1, 33, 40, generator=generator) < 0.4).float()
    elif kind == "sparse":
        probability = probability**20
    elif kind == "grey":  # many ties
        probability = (probability * 8).round() / 8
    elif kind == "squares":
        mask = torch.zeros(5, 1, 33, 40)
        for picture in range(4):  # and a fifth without a target
            mask[picture, :, 3 * picture : 3 * picture + 4, 5:11] = 1
        probability = (0.6 * mask.roll((1, 2), (2, 3)) + 0.3 * probability).clamp(0, 1)
    elif kind == "nothing found":
        probability = torch.zeros_like(probability)
    elif kind == "nothing there":
        mask = torch.zeros_like(mask)
    elif kind == "full":
        mask = torch.ones_like(mask)
    else:
        mask = torch.zeros(5, 1, 33, 40)
        mask[:, 0, :, :33] = spiral(33)
    return probability, mask


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", [OverlapProtocol, CentroidProtocol, TargetROC, VesselProtocol])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_count_is_the_same(metric, kind, dtype):
    probability, mask = maps(kind)
    probability = probability.to(dtype)
    one_by_one, at_once = metric(), metric()
    for picture in range(5):
        one_by_one.update(probability[picture : picture + 1], mask[picture : picture + 1])
    one_by_one.update(probability, mask)
    for part in (slice(2), slice(2, 5), slice(5)):
        region = [torch.ones_like(mask[part, 0]) > 0] if metric is VesselProtocol else []
        at_once.count_batch(*planes(probability[part], mask[part]), *region)
    for name in one_by_one._defaults:
        assert torch.equal(getattr(one_by_one, name), getattr(at_once, name)), name
    expected, found = one_by_one.compute(), at_once.compute()
    for name in expected:
        assert torch.equal(expected[name].nan_to_num(-1), found[name].nan_to_num(-1)), name


@pytest.mark.parametrize("kind", KINDS)
def test_components_are_those_of_opencv_in_raster_order(kind):
    _, mask = maps(kind)
    labels = batched.labels_of(mask[:, 0] > 0)
    pictures = zip(batched.centroids(mask[:, 0] > 0), mask[:, 0], labels, strict=True)
    for (areas, centroids), plane, named in pictures:
        expected = components(plane.numpy() > 0)
        assert len(areas) == expected.number
        np.testing.assert_array_equal(areas, expected.areas)
        np.testing.assert_array_equal(centroids, expected.centroids)
        _, numbers = named[plane > 0].unique(return_inverse=True)
        assert (numbers + 1).tolist() == expected.labels[plane > 0].tolist()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", [OverlapProtocol, CentroidProtocol, TargetROC, VesselProtocol])
def test_a_gpu_counts_the_same(metric, kind):
    probability, mask = maps(kind)
    host, device = metric(), metric().cuda()
    host.update(probability, mask)
    device.update(probability.cuda(), mask.cuda())
    for name in host._defaults:
        assert torch.equal(getattr(host, name), getattr(device, name).cpu()), name
