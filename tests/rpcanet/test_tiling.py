"""Networks on pictures of any size: padding and blended tiles."""

import pytest
import torch

from unfoldkit.rpcanet import Decomposition, RPCANet, decompose
from unfoldkit.rpcanet.inference.tiling import padded, tiled


def pointwise(image):
    return Decomposition(image * 2, image + 1, image)


@pytest.mark.parametrize("shape", [(40, 200), (200, 40), (101, 97), (64, 64)])
def test_tiles_of_a_pointwise_map_make_the_whole(shape):
    image = torch.rand(2, 1, *shape)
    whole, parts = pointwise(image), tiled(pointwise, image, tile=48, overlap=16)
    for a, b in zip(whole[:3], parts[:3], strict=True):
        torch.testing.assert_close(a, b)


def test_no_tile_exceeds_its_size_and_neighbours_overlap():
    seen = []

    def watch(image):
        seen.append(image.shape[2:])
        return pointwise(image)

    tiled(watch, torch.rand(1, 1, 130, 50), tile=64, overlap=16)
    assert len(seen) == 3
    assert all(height == 64 and width == 50 for height, width in seen)


def test_a_network_in_tiles_agrees_with_the_whole_picture():
    torch.manual_seed(0)
    net = RPCANet(stages=1, channels=4).eval()
    image = torch.rand(1, 1, 150, 70)
    with torch.inference_mode():
        whole, parts = net(image), tiled(net, image, tile=96, overlap=40)
    torch.testing.assert_close(parts.object, whole.object, atol=0.02, rtol=0)
    seams = (parts.object - whole.object).abs()
    assert seams[..., :50, :].max() < 1e-6  # out of reach of the second tile


def test_padding_is_zero_at_the_bottom_and_right():
    seen = []

    def watch(image):
        seen.append(image)
        return pointwise(image)

    image = torch.rand(1, 1, 33, 64)
    found = padded(watch, image)
    assert seen[0].shape == (1, 1, 64, 64)
    assert seen[0][..., 33:, :].abs().max() == 0
    assert torch.equal(found.restoration, image)


def test_decompose_in_tiles():
    net = RPCANet(stages=1, channels=4).eval()
    levels = torch.randint(0, 256, (40, 300))
    tiles, whole = (decompose(net, levels, tile=tile).object for tile in (200, 1024))
    assert not torch.equal(tiles, whole)
    torch.testing.assert_close(tiles, whole, atol=0.05, rtol=0)


@pytest.mark.parametrize(("tile", "overlap"), [(64, 32), (64, 0), (10, 64)])
def test_tiles_must_exceed_twice_the_overlap(tile, overlap):
    with pytest.raises(ValueError, match="tile must exceed twice the overlap"):
        tiled(pointwise, torch.rand(1, 1, 100, 100), tile, overlap)
