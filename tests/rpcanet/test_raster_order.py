"""Components of small targets in raster order, against plain floods and scipy."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import math

import numpy as np
import pytest
from scipy import ndimage

from unfoldkit.rpcanet.metrics import CentroidProtocol
from unfoldkit.rpcanet.metrics.protocol import components

EIGHT = np.ones((3, 3))


def raster_order(mask):
    """Components of `mask` as lists of pixels, by flood from each pixel that is met first."""
    left, found = set(map(tuple, np.argwhere(mask))), []
    for start in map(tuple, np.argwhere(mask)):
        if start not in left:
            continue
        left.remove(start)
        component, front = [start], [start]
        while front:
            row, column = front.pop()
            around = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= around
            component += around
            front += around
        found.append(np.array(component))
    return found


def by_centroid(predicted, mask):
    """Found targets, targets and false pixels by the protocol's words."""
    targets, free = raster_order(mask), raster_order(predicted)
    found = 0
    for target in targets:
        for k, component in enumerate(free):
            if math.dist(component.mean(0), target.mean(0)) < 3:
                del free[k]
                found += 1
                break
    return found, len(targets), sum(map(len, free))


def test_centroid_equals_a_plain_raster_order_on_dense_maps():
    rng = np.random.default_rng(0)
    for _ in range(1000):
        shape, density = rng.integers(3, 20, 2), rng.uniform(0.05, 0.5)
        mask, predicted = rng.random((2, *shape)) < density
        found, targets, false = by_centroid(predicted, mask)
        counted = CentroidProtocol().match(predicted, mask)
        assert (counted.found, counted.targets, counted.false_pixels) == (found, targets, false)


def test_components_are_labelled_as_scipy_does():
    rng = np.random.default_rng(1)
    for _ in range(1000):
        mask = rng.random(rng.integers(3, 40, 2)) < rng.uniform(0.05, 0.5)
        number, labels, areas, centroids = components(mask)
        expected, count = ndimage.label(mask, EIGHT)
        first = [np.flatnonzero(expected == k)[0] for k in range(1, count + 1)]
        assert first == sorted(first)  # scipy's labels are in raster order
        assert number == count
        np.testing.assert_array_equal(labels, expected)
        np.testing.assert_array_equal(areas, np.bincount(expected.ravel())[1:])
        where = ndimage.center_of_mass(mask, expected, range(1, count + 1))
        np.testing.assert_allclose(centroids[:, ::-1], np.reshape(where, (-1, 2)))


@pytest.mark.reference
def test_centroid_order_case(reference_file):
    case = np.load(reference_file("cases/vision/centroid_order.npz"))
    assert CentroidProtocol().match(case["predicted"], case["mask"]) == (2, 2, 0, 24)
