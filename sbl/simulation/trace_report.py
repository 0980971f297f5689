"""What a traced estimation leaves behind: files, figures, TensorBoard and a page."""

import json
import shutil
from pathlib import Path
from typing import Any

from torch import Tensor

from unfoldkit.common.figures import rendered
from unfoldkit.common.files import write_whole
from unfoldkit.common.report import Report, fresh_writer, write_mat

from ..em.tracing import Trace
from .trace_figures import channel_figure, convergence_figure, hyperparameter_figure, support_figure
from .trace_problem import Traced


def write_trace(traced: Traced, settings: dict[str, Any]) -> None:
    """The page, and beside it everything else that `trace_problem` leaves."""
    out = traced.report.parent
    out.mkdir(parents=True, exist_ok=True)
    _clear(out)
    _write_files(out, traced, settings)
    with fresh_writer(out / "tensorboard" / "problem") as writer:
        report = Report(out, writer)
        _show(report, traced)
        report.write(f"Estimation, iteration by iteration: {settings['experiment']}, {settings['snr']:g} dB")
    for name, kept in traced.traces.items():
        _log(out / "tensorboard" / name, kept, traced.nmse[name])


def _clear(out: Path) -> None:
    """Takes away what an earlier trace left of each estimator, which TensorBoard would show beside this one's."""
    earlier = out / "trace.json"
    if not earlier.exists():
        return
    for name in json.loads(earlier.read_text(encoding="utf-8"))["estimators"]:
        shutil.rmtree(out / "tensorboard" / name, ignore_errors=True)
        (out / "figures" / f"hyperparameters_{name}.png").unlink(missing_ok=True)


def _write_files(out: Path, traced: Traced, settings: dict[str, Any]) -> None:
    """trace.json: the curves.  trace.mat: the curves, prior variances and last means, a struct an estimator."""
    curves = {name: _curves(kept, traced.nmse[name]) for name, kept in traced.traces.items()}
    content = {"settings": settings, "estimators": curves}
    write_whole(out / "trace.json", json.dumps(content, indent=1) + "\n")
    structs = {}
    for name, kept in traced.traces.items():
        g = {f"g{i}": path.numpy() for i, path in enumerate(kept.hyperparameters, start=1)}
        structs["e_" + name.replace(".", "_")] = {**curves[name], **g, "mean": kept.mean[-1].numpy()}
    write_mat(out / "trace.mat", structs)


def _curves(kept: Trace, nmse: Tensor) -> dict[str, list[float]]:
    curves = {"nmse": nmse, "cost": kept.cost, "change": kept.change, "noise_variance": kept.noise_variance}
    return {name: values.tolist() for name, values in curves.items()}


def _log(folder: Path, kept: Trace, nmse: Tensor) -> None:
    """The curves and heat maps of one estimator as a run of its own, so that TensorBoard overlays them."""
    with fresh_writer(folder) as writer:
        for name, values in _curves(kept, nmse).items():
            for iteration, value in enumerate(values, start=1):
                writer.add_scalar(f"estimate/{name}", value, iteration)
        picture = rendered(hyperparameter_figure(kept.hyperparameters))
        writer.add_image("estimate/hyperparameters", picture, dataformats="HWC")


def _show(report: Report, traced: Traced) -> None:
    posed, traces = traced.problem, traced.traces
    curves = {name: _curves(kept, traced.nmse[name]) for name, kept in traces.items()}
    rows = {
        name: [str(len(kept.cost)), f"{traced.nmse[name][-1]:.3g}", f"{kept.noise_variance[-1]:.3g}"]
        for name, kept in traces.items()
    }
    report.table(("estimator", "iterations", "NMSE", "noise variance"), rows)
    report.figure("convergence", convergence_figure(curves), "What each iteration makes of the estimate.")
    report.heading("Support")
    report.figure(
        "support",
        support_figure({name: kept.mean[-1] for name, kept in traces.items()}, posed.support),
        "Energy of the estimate along each factor; crosses mark the true support where it is known.",
    )
    report.heading("Magnitudes")
    found = {name: posed.seen(kept.mean[-1]) for name, kept in traces.items()}
    report.figure(
        "channel",
        channel_figure(posed.truth, found, *posed.picture),
        "Truth, estimates and their errors (the first pattern of the surface, where there are several).",
    )
    report.heading("Prior variances")
    for name, kept in traces.items():
        report.figure(
            f"hyperparameters_{name}",
            hyperparameter_figure(kept.hyperparameters, posed.support),
            f"{name}: the prior variances of each factor over the iterations.",
        )
