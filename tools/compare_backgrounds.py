"""How low-rank the backgrounds of trained networks are, and what they cost.

    python tools/compare_backgrounds.py runs/a/best.safetensors runs/b/best.safetensors --dataset sirst --root DIR

Prints for each network its parameters, the IoU, the effective rank of max(B_k, 0) at every stage (mean over
pictures, the pictures' own before it) and the milliseconds a picture in the trained form. The effective rank is
exp(-sum p_i log p_i) of the shares p_i of the singular values (Roy and Vetterli, 2007): 1 for a rank-one picture.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from unfoldkit.common.console import DataSetName, described_parser, one_line_errors


@dataclass
class Row:
    """One network's figures; ranks of the picture and of the backgrounds of its stages."""

    name: str
    parameters: int
    iou: float
    ranks: list[float]
    milliseconds: float


def measure(weights: Path, dataset: str, root: str | None, count: int) -> Row:
    """Over the test split, at the size the network was trained with."""
    import torch

    from unfoldkit import rpcanet
    from unfoldkit.datasets import SegmentationDataset, open_pictures, protocol_of
    from unfoldkit.rpcanet.inside.measures import effective_rank, spectrum
    from unfoldkit.rpcanet.metrics import protocol

    net = rpcanet.load_weights(weights)
    training = rpcanet.read_training(weights)
    size, seed = rpcanet.trained_size(training), rpcanet.trained_seed(training)
    pictures = open_pictures(dataset, "test", root, count=count, size=size or 128, seed=seed)
    samples = SegmentationDataset(pictures, size or None, net.mean, net.std, augment=False, seed=seed)
    metrics = protocol(protocol_of(dataset))
    ranks, seconds = [], 0.0
    for sample in (samples[i] for i in range(len(samples))):
        image = sample.image.unsqueeze(0)
        with torch.no_grad():
            start = time.perf_counter()
            found = net(image, return_stages=True)
            seconds += time.perf_counter() - start
        metrics.update(found.object.sigmoid(), sample.mask.unsqueeze(0))
        planes = torch.cat([image, *(stage.background for stage in found.stages)])
        ranks.append(effective_rank(spectrum(planes[:, 0])))
    return Row(
        f"{type(net).__name__} ({weights})",
        sum(parameter.numel() for parameter in net.parameters()),
        metrics.compute()["iou"].item(),
        torch.stack(ranks).mean(0).tolist(),
        1e3 * seconds / len(samples),
    )


def shown(row: Row) -> str:
    picture, *stages = (f"{rank:.1f}" for rank in row.ranks)
    return (
        f"{row.name}: {row.parameters} parameters, IoU {100 * row.iou:.2f}, effective rank {picture} of the "
        f"picture, {' '.join(stages)} of B_1 ... B_K, {row.milliseconds:.1f} ms a picture"
    )


def main() -> None:
    parser = described_parser("compare_backgrounds.py", __doc__)
    parser.add_argument("weights", nargs="+", type=Path, help="files of train.py")
    parser.add_argument(
        "--dataset", type=DataSetName, default="synthetic", help="whose test split to measure on"
    )
    parser.add_argument("--root", type=str, help="the data set's folder")
    parser.add_argument("--count", type=int, default=80, help="generated scenes (synthetic only)")
    options = parser.parse_args()
    with one_line_errors("compare_backgrounds.py"):
        for weights in options.weights:
            print(shown(measure(weights, options.dataset, options.root, options.count)), flush=True)


if __name__ == "__main__":
    main()
