"""A weights file compressed, with a report of its layers."""

import json
from collections.abc import Iterator
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from unfoldkit.common.files import require_distinct, write_result

from ...datasets import normalise, read_image
from ...datasets.inputs import evenly, inputs_in
from ...datasets.reading.levels import levels_of
from ..inference.preprocessing import Preprocessing, prepared_network
from ..networks.weights import derived_file, read_training, save_weights
from .compress import Compressed, compress
from .options import Compression


def compress_weights(options: Compression) -> tuple[Path, Compressed]:
    """Write the compressed network beside the training that its weights state; returns where, and the report.

    Raises ValueError and FileNotFoundError for options, weights or pictures that cannot be used.
    """
    if options.count < 1:
        raise ValueError(f"--count must be at least 1, got {options.count}")
    out = derived_file(options.weights, options.out, f"-{options.method}-{options.size:g}.safetensors")
    require_distinct({"--out": out, "--json": options.json})
    net, found = prepared_network(options.weights)
    made = compress(net, options.method, options.size, calibration(options, found))
    out.parent.mkdir(parents=True, exist_ok=True)
    save_weights(made.net, out, read_training(options.weights))
    if options.json is not None:
        write_result(options.json, json.dumps(report(options, made), indent=2) + "\n")
    return out, made


def calibration(options: Compression, found: Preprocessing) -> Iterator[Tensor]:
    """Pictures as the network takes them, (1, height, width) each, evenly over the folder."""
    paths = [] if options.pictures is None else list(inputs_in([options.pictures]).values())
    for path in evenly(paths, options.count):
        levels = read_image(path, found.grey, levels_of(found.levels))
        image = normalise(levels, found.mean, found.std)
        size = (found.size, found.size) if found.size else image.shape[1:]
        yield F.interpolate(image[None], size, mode="bilinear", align_corners=False)[0]


def report(options: Compression, made: Compressed) -> dict[str, object]:
    """What was done, in JSON's words."""
    return {
        "method": options.method,
        "size": options.size,
        "parameters": made.parameters,
        "parameters_before": made.parameters_before,
        "layers": [layer._asdict() for layer in made.layers],
    }
