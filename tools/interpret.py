"""Look inside trained weights, or a classical method: how low-rank, how sparse, stage by stage.

    python tools/interpret.py --weights runs/train/best.safetensors --images PICTURES/ --out runs/inside
    python tools/interpret.py --weights RPCANet.pkl --images sirst/images --names sirst/idx_427/test.txt
    python tools/interpret.py --method pcp --images PICTURES/ --show Misc_1,Misc_2

Measured over all pictures, in constant memory: the singular values of max(B_k, 0), their effective rank and their
energy in the leading 1, 5 and 10, the share of O_k above 0, |D - B_k - O_k|, and of networks that have such parts
the contrast prior's response, how far memory moves and the noise N_k. A classical method's stages are its
iterations 1, 3 and 10 and its end. In the folder --out:

    report.html         everything on one page that needs no network
    measures.json       mean and standard deviation of every measure at every stage
    measures.mat        the same for MATLAB
    stages/NAME.mat     image, background, object, restoration, ... (height x width x stages) of those shown
    figures/*.png       spectrum, sparsity, profiles and the heat maps of the pictures shown
    tensorboard/        all of it: tensorboard --logdir runs
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unfoldkit.common.console import (
    MethodName,
    described_parser,
    keep_memory,
    one_line_errors,
    require_device,
)
from unfoldkit.common.report import Report, fresh_writer
from unfoldkit.rpcanet.inside.report import (
    Subject,
    log_measures,
    show_measures,
    show_pictures,
    write_measures,
)

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from unfoldkit.rpcanet.inside.interpretation import Interior


@dataclass
class Interpretation:
    """What to look into, on what.

    Args:
        images: a folder of pictures (not searched below), or one picture.
        weights: a .safetensors file of train.py, or an officially published .pkl.
        method: a classical method in place of weights.
        out: folder for the results.
        names: a file of picture names without ending, one a line, such as a data set's test.txt; by default all.
        show: names of the pictures to draw, separated by commas, or how many, evenly over the folder.
        size: pictures are resized to this height and width; by default as trained, else 256; 0 keeps their own
            size, which must then be one for all.
        batch_size: pictures at once.
        device: cpu, cuda, ...
    """

    images: str
    weights: str | None = None
    method: MethodName | None = None
    out: str = "runs/inside"
    names: str | None = None
    show: str = "4"
    size: int | None = None
    batch_size: int = 4
    device: str = "cpu"


def interpret(options: Interpretation) -> Path:
    """Write everything that is listed at the top of this file; returns the report's path."""
    import torch

    from unfoldkit.rpcanet.inside.interpretation import interior_measures
    from unfoldkit.rpcanet.inside.measures import Statistics

    keep_memory()
    require_device(options.device)
    subject = subject_of(options)
    paths = pictures_of(options)
    shown = chosen(options.show, list(paths))
    statistics, planes = Statistics(), {}
    for names, image in batches(paths, subject, options):
        with torch.inference_mode():
            interior = subject.look(image)
            statistics.update(interior_measures(image, interior))
        for i, name in enumerate(names):
            if name in shown:
                planes[name] = planes_of(i, image, interior)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    write_measures(out, statistics, subject, asdict(options))
    with fresh_writer(out / "tensorboard") as writer:
        log_measures(writer, statistics, subject)
        report = Report(out, writer)
        show_measures(report, statistics, subject)
        show_pictures(report, planes, subject)
        subject_name = options.method or Path(str(options.weights)).name
        return report.write(f"Inside {subject_name}: {statistics.count} pictures")


def subject_of(options: Interpretation) -> Subject:
    from unfoldkit import rpcanet
    from unfoldkit.rpcanet.classical import METHODS
    from unfoldkit.rpcanet.inside.interpretation import SOLVER_STEPS, look_at_solver, look_inside

    if options.batch_size < 1:
        raise ValueError(f"--batch_size must be at least 1, got {options.batch_size}")
    if options.method is not None and options.weights is None:
        method = METHODS[options.method]
        labels = [*map(str, SOLVER_STEPS), "end"]
        size = 256 if options.size is None else options.size
        return Subject(
            lambda image: look_at_solver(method, image), labels, "iteration", size, 0.0, 255.0, "level / 255"
        )
    if options.weights is None or options.method is not None:
        raise ValueError("expected one of --weights and --method")
    net = rpcanet.optimize(rpcanet.load_weights(options.weights).to(options.device))
    trained = rpcanet.trained_size(rpcanet.read_training(options.weights))
    labels = [str(k + 1) for k in range(len(net.stages))]
    size = trained if options.size is None else options.size
    return Subject(lambda image: look_inside(net, image), labels, "stage", size, net.mean, net.std, "logit")


def pictures_of(options: Interpretation) -> dict[str, Path]:
    """The pictures by name; raises where there are none, or where one that --names lists is missing."""
    from unfoldkit.datasets.files import read_names
    from unfoldkit.datasets.picture import stem
    from unfoldkit.tools.predict import inputs_in

    found = {stem(path): path for path in inputs_in([options.images])}
    if options.names is None:
        return found
    names = read_names(Path(options.names))
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"{options.names}: no pictures {', '.join(missing[:3])} in {options.images}")
    return {name: found[name] for name in names}


def chosen(show: str, names: list[str]) -> list[str]:
    """The names that --show lists, or as many as it says."""
    if show.isdigit():
        count = min(int(show), len(names))
        return [names[i * len(names) // count] for i in range(count)]
    wanted = show.split(",")
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise ValueError(f"--show: no picture {', '.join(unknown)} among the {len(names)}")
    return wanted


def batches(
    paths: dict[str, Path], subject: Subject, options: Interpretation
) -> "Iterator[tuple[list[str], Tensor]]":
    """Names and pictures, read ahead, under a progress bar."""
    import torch
    from rich.progress import Progress

    from unfoldkit.common.streaming import ahead

    together = options.batch_size if subject.size else 1
    names = list(paths)

    def read() -> "Iterator[tuple[list[str], Tensor]]":
        for start in range(0, len(names), together):
            part = names[start : start + together]
            yield part, torch.stack([levels(paths[name], subject) for name in part])

    with Progress() as progress:
        task = progress.add_task(f"Looking inside, {len(names)} pictures", total=len(names))
        for part, image in ahead(read()):
            yield part, image.to(options.device)
            progress.advance(task, len(part))


def levels(path: Path, subject: Subject) -> "Tensor":
    """(1, height, width), as the networks take pictures."""
    import cv2

    from unfoldkit.datasets import read_image
    from unfoldkit.datasets.preparation import normalise

    image = read_image(path)
    if subject.size:
        image = cv2.resize(image, (subject.size, subject.size), interpolation=cv2.INTER_LINEAR)
    return normalise(image, subject.mean, subject.std)


def planes_of(i: int, image: "Tensor", interior: "Interior") -> "dict[str, np.ndarray]":
    """Picture i of a batch: image (height, width), and each quantity's planes (K, height, width)."""
    import torch

    def kept(planes: "Iterable[Tensor]") -> "np.ndarray":
        return torch.cat([plane[i] for plane in planes]).float().cpu().numpy()

    parts = dict(
        zip(("background", "object", "restoration"), zip(*interior.stages, strict=True), strict=True)
    )
    if interior.responses:
        parts["contrast"] = interior.responses
    if interior.noises:
        parts["noise"] = interior.noises
    return {"image": kept([image])[0], **{name: kept(planes) for name, planes in parts.items()}}


def main() -> None:
    parser = described_parser("interpret.py", __doc__)
    parser.add_class_arguments(Interpretation)
    options = Interpretation(**parser.parse_args().as_dict())
    with one_line_errors("interpret.py"):
        print(f"{interpret(options)} written; tensorboard --logdir {options.out}")


if __name__ == "__main__":
    main()
