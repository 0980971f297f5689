"""A weights file exported for other programs and held to the network it came from."""

from pathlib import Path

import torch
from torch import Tensor

from unfoldkit.common.files import whole_file

from ...datasets import SyntheticScenes, normalise, read_image
from ...datasets.inputs import inputs_in
from ..networks.unfolding import UnfoldedNetwork
from ..networks.weights import derived_file, load_weights, read_training
from .export import export, exported, largest_difference
from .options import Export

ENDINGS = {"onnx": ".onnx", "torch-export": ".pt2", "safetensors": ".safetensors"}
TOLERANCE = 1e-4
RANDOM_SIZES = ((1, 1, 64, 48), (2, 1, 33, 70))


def export_weights(options: Export) -> tuple[Path, float]:
    """Write the exported file once it is checked; returns where it is and the largest relative difference found.

    Raises ValueError where the export would overwrite its source, differs from it by more than 1e-4 of a plane's
    largest value, or needs a package that is missing; what was there before then stays.
    """
    net = load_weights(options.weights)
    out = derived_file(options.weights, options.out, ENDINGS[options.format])
    images = check_images(net, options.pictures)
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out, ENDINGS[options.format]) as draft:
        try:
            export(net, draft, options.format, read_training(options.weights))
        except ImportError as error:
            raise ValueError(
                f"--format {options.format} needs {error.name}: pip install 'unfoldkit[export]'"
            ) from None
        run = exported(draft, options.format)
        largest = torch.tensor([largest_difference(net, run, image) for image in images]).max().item()
        if not largest < TOLERANCE:
            raise ValueError(
                f"{out}: differs from {options.weights} by {largest:.1e} of a plane's largest value"
            )
    return out, largest


def check_images(net: UnfoldedNetwork, pictures: list[str]) -> list[Tensor]:
    """Random pictures, a generated scene and the pictures given, normalised as the network expects."""
    generator = torch.Generator().manual_seed(0)
    random = [255 * torch.rand(size, generator=generator) for size in RANDOM_SIZES]
    levels = [
        SyntheticScenes("test", 1, size=64)[0].image,
        *(read_image(path) for path in inputs_in(pictures).values()),
    ]
    return [
        *((image - net.mean) / net.std for image in random),
        *(normalise(x, net.mean, net.std)[None] for x in levels),
    ]
