"""What tools/interpret.py leaves: measures as JSON, .mat and TensorBoard logs, and their figures."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unfoldkit.common.report import Report, write_mat

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from torch.utils.tensorboard import SummaryWriter

    from ..inference.preprocessing import Preprocessing
    from .interpretation import Interior
    from .measures import Statistics


class Subject(NamedTuple):
    """What is looked into, and how its stages and levels are called.

    look: from (batch, 1, height, width) to its `Interior`.  labels: of the stages.  axis: what they count.
    prepared: what pictures go through before.  object_unit: of O_k.
    """

    look: "Callable[[Tensor], Interior]"
    labels: list[str]
    axis: str
    prepared: "Preprocessing"
    object_unit: str

    @property
    def unit(self) -> str:
        return self.prepared.unit


def write_measures(out: Path, statistics: "Statistics", subject: Subject, settings: dict[str, Any]) -> None:
    """measures.json and measures.mat."""
    from unfoldkit.common.files import write_whole

    std = statistics.std
    content: dict[str, Any] = {
        "pictures": statistics.count,
        "stages": ["D", *subject.labels],
        "unit": subject.unit,
        "measures": {
            name: {"mean": mean.tolist(), "std": std[name].tolist()} for name, mean in statistics.mean.items()
        },
        "settings": settings,
    }
    write_whole(out / "measures.json", json.dumps(content, indent=1) + "\n")
    arrays = {f"{name}_mean": mean.cpu().numpy() for name, mean in statistics.mean.items()}
    arrays |= {f"{name}_std": values.cpu().numpy() for name, values in std.items()}
    write_mat(out / "measures.mat", {"pictures": statistics.count, **arrays})


def log_measures(writer: "SummaryWriter", statistics: "Statistics", subject: Subject) -> None:
    """Spectra over the index of the singular value; all else over the stage, 0 being the picture."""
    from .measures import LEADING

    mean, labels = dict(statistics.mean), ["D", *(f"B_{label}" for label in subject.labels)]
    for label, values in zip(labels, mean.pop("spectrum"), strict=True):
        for i, value in enumerate(values.tolist(), start=1):
            writer.add_scalar(f"spectrum/{label}", value, i)
    energy = mean.pop("energy").unbind(1)
    mean |= {f"energy_{r}": values for r, values in zip(LEADING, energy, strict=True)}
    for name, values in mean.items():
        first = len(subject.labels) + 1 - len(values)
        for k, value in enumerate(values.tolist(), start=first):
            writer.add_scalar(f"stage/{name}", value, k)


def show_measures(report: Report, statistics: "Statistics", subject: Subject) -> None:
    from .figures import profiles_figure, sparsity_figure, spectrum_figure

    mean, std = (
        {name: values.cpu().numpy() for name, values in part.items()}
        for part in (statistics.mean, statistics.std)
    )
    backgrounds = ["$D$", *(f"$B_{{{label}}}$" for label in subject.labels)]
    report.text(
        f"Mean and standard deviation over {statistics.count} pictures. Levels are {subject.unit}. Robust PCA "
        "promises a background that gets lower in rank and objects that get sparser from stage to stage."
    )
    report.table(("measure", "D", *subject.labels), table_rows(mean, std, len(subject.labels)))
    report.heading("Low-rankness of the background")
    report.figure(
        "spectrum",
        spectrum_figure(mean["spectrum"], std["spectrum"], backgrounds),
        "Singular values of max(B_k, 0), and of the picture D itself.",
    )
    report.heading("Sparsity of the objects")
    report.figure(
        "sparsity",
        sparsity_figure(mean["sparsity"], std["sparsity"], subject.labels, subject.axis),
        "Share of the pixels of O_k above 0.",
    )
    report.heading("Every stage")
    report.figure(
        "profiles",
        profiles_figure(mean, std, subject.labels, subject.unit, subject.axis),
        "Rank and energy of the background, fidelity and, where the network has them, contrast prior, memory and "
        "noise.",
    )


def table_rows(
    mean: "dict[str, np.ndarray]", std: "dict[str, np.ndarray]", stages: int
) -> dict[str, list[str]]:
    """Mean ± standard deviation of every measure but the spectrum, from the picture to the last stage."""
    from .measures import LEADING

    rows: dict[str, Any] = {"effective rank": (mean["effective_rank"], std["effective_rank"])}
    for j, r in enumerate(LEADING):
        rows[f"energy in the leading {r} (%)"] = (100 * mean["energy"][:, j], 100 * std["energy"][:, j])
    rows["O above 0 (%)"] = (100 * mean["sparsity"], 100 * std["sparsity"])
    rows["|D - B - O|"] = (mean["fidelity"], std["fidelity"])
    names = {
        "contrast": "contrast prior, RMS",
        "memory_change": "memory's relative change",
        "noise": "noise, RMS",
    }
    rows |= {label: (mean[name], std[name]) for name, label in names.items() if name in mean}
    return {
        name: [""] * (stages + 1 - len(values))
        + [f"{short(m)} ± {short(s)}" for m, s in zip(values, deviations, strict=True)]
        for name, (values, deviations) in rows.items()
    }


def short(value: float) -> str:
    """Three digits, or all of a whole number.

    >>> short(2837.4), short(0.07232)
    ('2837', '0.0723')
    """
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def show_pictures(report: Report, pictures: "dict[str, dict[str, np.ndarray]]", subject: Subject) -> None:
    """Heat maps and .mat files of the pictures shown."""
    import numpy as np

    from .figures import stage_maps

    columns = {
        "background": ("B", subject.unit, "cividis"),
        "object": ("O", subject.object_unit, "viridis"),
        "restoration": ("D", subject.unit, "cividis"),
        "contrast": ("w", "response", "viridis"),
        "noise": ("N", subject.unit, "cividis"),
    }
    if pictures:
        report.heading("Pictures")
    for name, planes in pictures.items():
        image = planes["image"]
        parts = {key: part for key, part in planes.items() if key != "image"}
        used = {symbol: (unit, colours) for symbol, unit, colours in map(columns.__getitem__, parts)}
        rows = {"input": [image]} | {
            label: [part[k] for part in parts.values()] for k, label in enumerate(subject.labels)
        }
        report.figure(
            name,
            stage_maps(rows, used, name),
            f"{name}: the picture, then background, object and restoration of every {subject.axis}.",
        )
        moved = {key: np.moveaxis(part, 0, -1) for key, part in parts.items()}
        path = report.folder / "stages" / f"{name}.mat"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_mat(path, {"image": image, **moved})
