"""How low-rank the backgrounds of a trained network are over a data set, and what they cost."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from ...datasets import SegmentationDataset, open_pictures, protocol_of
from ..metrics import protocol
from ..metrics.batched import relative_to_peak
from ..networks.weights import load_weights, read_training, trained_seed, trained_size
from .exact import exact_parts
from .measures import effective_rank, spectrum
from .panels import backgrounds_panel

PICTURES = 4  # in a panel


@dataclass
class Backgrounds:
    """One network's figures.

    ranks: of the picture and of the backgrounds of its stages, then of the background of `exact_parts`.
    residuals: |D - B - O| / |D|, of the last stage's parts and of `exact_parts`.
    panel: `backgrounds_panel` of the first pictures, (3, height, width).
    """

    name: str
    parameters: int
    iou: float
    ranks: list[float]
    residuals: list[float]
    milliseconds: float
    panel: torch.Tensor


def measure_backgrounds(weights: Path, dataset: str, root: str | None, count: int | None) -> Backgrounds:
    """Over the test split, at the size the network was trained with."""
    net = load_weights(weights)
    training = read_training(weights)
    size, seed = trained_size(training), trained_seed(training)
    pictures = open_pictures(dataset, "test", root, count=count, size=size or 128, seed=seed)
    samples = SegmentationDataset(pictures, size or None, net.mean, net.std, augment=False, seed=seed)
    metrics = protocol(protocol_of(dataset))
    ranks, residuals, seconds = [], [], 0.0
    shown: list[torch.Tensor] = []
    for sample in (samples[i] for i in range(len(samples))):
        image = sample.image.unsqueeze(0)
        with torch.no_grad():
            start = time.perf_counter()
            found = net(image, return_stages=True)
            seconds += time.perf_counter() - start
        probability = found.object.sigmoid()
        metrics.update(probability, sample.mask.unsqueeze(0))
        exact = exact_parts(image, relative_to_peak(probability[0])[None] > 0.5)
        planes = torch.cat([image, *(stage.background for stage in found.stages), exact[0]])
        ranks.append(effective_rank(spectrum(planes[:, 0])))
        if len(shown) < PICTURES:
            shown.append(backgrounds_panel(image, found.background, exact[0]))
        parts = ((found.background, found.object), exact)
        residuals.append(torch.stack([(image - sum(pair)).norm() / image.norm() for pair in parts]))
    return Backgrounds(
        f"{type(net).__name__} ({weights})",
        sum(parameter.numel() for parameter in net.parameters()),
        metrics.compute()["iou"].item(),
        torch.stack(ranks).mean(0).tolist(),
        torch.stack(residuals).mean(0).tolist(),
        1e3 * seconds / len(samples),
        torch.cat(shown, 1),
    )
