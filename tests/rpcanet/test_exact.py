"""Parts that add up to the picture."""

import pytest
import torch

from unfoldkit.rpcanet import exact_parts
from unfoldkit.rpcanet.inside.measures import effective_rank, spectrum


def scene(height=37, width=50):
    """A smooth background of rank 2, and the same with two objects."""
    rows, columns = torch.linspace(0, 1, height)[:, None], torch.linspace(0, 1, width)
    background = (0.4 + 0.2 * rows * columns).expand(1, 1, height, width)
    objects = torch.zeros(1, 1, height, width, dtype=torch.bool)
    objects[..., 8:12, 20:23] = objects[..., 30:32, 5:8] = True
    return background, torch.where(objects, 0.95, background), objects


def test_they_add_up_and_objects_are_there_alone():
    _, picture, objects = scene()
    background, object_ = exact_parts(picture, objects, margin=0)
    torch.testing.assert_close(background + object_, picture)
    assert bool((object_[~objects] == 0).all())


def test_what_spread_around_objects_goes_with_them():
    truth, picture, objects = scene()
    blurred = torch.nn.functional.avg_pool2d(picture, 3, 1, 1, count_include_pad=False)
    errors = [
        float((exact_parts(blurred, objects, margin)[0] - truth)[..., 4:16, 16:27].abs().max())
        for margin in (0, 1)
    ]
    assert errors[1] < 0.03 < errors[0]


def test_objects_are_replaced_by_what_is_around_them():
    truth, picture, objects = scene()
    background, object_ = exact_parts(picture, objects)
    assert float((background - truth).abs().max()) < 0.03
    assert float(object_[objects].min()) > 0.3
    ranks = [effective_rank(spectrum(plane[0, 0])) for plane in (background, picture)]
    assert ranks[0] < ranks[1]


@pytest.mark.parametrize("everywhere", [False, True])
def test_no_object_leaves_the_picture_and_nothing_else_leaves_no_background(everywhere):
    picture = torch.rand(2, 1, 9, 14)
    background, _ = exact_parts(picture, torch.full_like(picture, everywhere, dtype=torch.bool))
    assert torch.equal(background, torch.zeros_like(picture) if everywhere else picture)


def test_each_picture_of_a_batch_is_split_alone():
    pictures, objects = torch.rand(3, 1, 20, 31), torch.rand(3, 1, 20, 31) > 0.8
    together, _ = exact_parts(pictures, objects)
    alone = torch.cat([exact_parts(p[None], m[None])[0] for p, m in zip(pictures, objects, strict=True)])
    torch.testing.assert_close(together, alone)
