"""Export trained weights for other programs, and check the export against the network.

    python tools/export.py --weights runs/s6/best.safetensors --format onnx --out s6.onnx
    python tools/export.py --weights official.pkl --format safetensors --pictures DIR

Any batch, height and width go through the exported network. It is run on random pictures, on a generated scene and
on --pictures, and every plane must agree with the source network within 1e-4 of the plane's largest value: else
the export fails, and the file is removed. What a picture's grey levels must go through, and what the outputs
mean, stands in the file's metadata (metadata_props in ONNX, metadata.json in a .pt2 file).

ONNX needs `pip install 'unfoldkit[export]'`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from unfoldkit.common.console import described_parser, one_line_errors

if TYPE_CHECKING:
    from torch import Tensor

    from unfoldkit.rpcanet.networks.unfolding import UnfoldedNetwork

ENDINGS = {"onnx": ".onnx", "torch-export": ".pt2", "safetensors": ".safetensors"}
TOLERANCE = 1e-4
RANDOM_SIZES = ((1, 1, 64, 48), (2, 1, 33, 70))


@dataclass
class Export:
    """What to export, and as what.

    Args:
        weights: a .safetensors file of train.py, or an officially published .pkl.
        format: onnx (opset 20), torch-export (a .pt2 program) or safetensors.
        out: the file to write; by default the weights' name with the format's ending, in this folder.
        pictures: picture files or folders on which the export is checked, too, at their own size.
    """

    weights: str
    format: Literal["onnx", "torch-export", "safetensors"] = "onnx"
    out: str | None = None
    pictures: list[str] = field(default_factory=list)


def export(options: Export) -> tuple[Path, float]:
    """Write the file and check it; returns where it is and the largest relative difference found."""
    from unfoldkit import rpcanet
    from unfoldkit.rpcanet.inference.export import export as write
    from unfoldkit.rpcanet.inference.export import exported, largest_difference

    net = rpcanet.load_weights(options.weights)
    out = Path(options.out or Path(options.weights).stem + ENDINGS[options.format])
    if out.exists() and out.samefile(options.weights):
        raise ValueError(f"{out}: holds the weights to export; choose another --out")
    images = check_images(net, options.pictures)
    try:
        write(net, out, options.format, rpcanet.read_training(options.weights))
    except ImportError as error:
        raise ValueError(
            f"--format {options.format} needs {error.name}: pip install 'unfoldkit[export]'"
        ) from None
    run = exported(out, options.format)
    largest = max(largest_difference(net, run, image) for image in images)
    if not largest < TOLERANCE:
        out.unlink()
        raise ValueError(f"{out}: differs from {options.weights} by {largest:.1e} of a plane's largest value")
    return out, largest


def check_images(net: "UnfoldedNetwork", pictures: list[str]) -> "list[Tensor]":
    """Random pictures, a generated scene and the pictures given, normalised as the network expects."""
    import torch

    from unfoldkit.datasets import SyntheticScenes, normalise, read_image
    from unfoldkit.tools.predict import inputs_in

    generator = torch.Generator().manual_seed(0)
    random = [255 * torch.rand(size, generator=generator) for size in RANDOM_SIZES]
    levels = [
        SyntheticScenes("test", 1, size=64)[0].image,
        *(read_image(path) for path in inputs_in(pictures)),
    ]
    return [
        *((image - net.mean) / net.std for image in random),
        *(normalise(x, net.mean, net.std)[None] for x in levels),
    ]


def main() -> None:
    parser = described_parser("export.py", __doc__)
    parser.add_class_arguments(Export)
    options = Export(**parser.parse_args().as_dict())
    with one_line_errors("export.py"):
        out, largest = export(options)
        print(f"{out}: agrees with {options.weights} within {largest:.1e} of each plane's largest value")


if __name__ == "__main__":
    main()
