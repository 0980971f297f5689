"""Watch sparse channel estimation happen on one random problem, iteration by iteration.

  python tools/trace_estimate.py synthetic --estimators SVD,AM,PC0.8 --snr 20 --out runs/trace
  python tools/trace_estimate.py irs --estimators SVD,AM,PC0.8,classic --snr 12 --trial 3 --out runs/trace_irs
  tensorboard --logdir runs/trace

The problem is the one of that number in a run of tools/simulate.py with the same seed and sizes. Writes into --out
report.html (one page that needs no network), figures/*.png, trace.json, trace.mat, and tensorboard/ with a run for
each estimator: NMSE, cost, change and noise variance against the iteration, the prior variances of each factor as
heat maps over the iterations, the true against the estimated support, and pictures of the channel.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unfoldkit.common.report import Report, fresh_writer, write_mat
from unfoldkit.tools.simulate import array, numbers

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from unfoldkit.sbl.em.tracing import Trace


class Posed(NamedTuple):
    """One problem, and how an estimate x (..., N_1, ..., N_I) of it is judged.

    seen: what x says of the truth, (..., rows, columns) or more axes before.  nmse: of seen against truth, (...).
    truth: of the shape of one `seen`.  support: (N_i,) booleans, where they are known.
    """

    factors: "tuple[Tensor, ...]"
    y: "Tensor"
    noise_variance: "Tensor | None"
    seen: "Callable[[Tensor], Tensor]"
    nmse: "Callable[[Tensor, Tensor], Tensor]"
    truth: "Tensor"
    support: "tuple[Tensor, ...] | None"
    picture: tuple[str, str, str]


def synthetic(
    out: Path,
    estimators: str = "SVD,AM,PC0.8",
    snr: float = 20.0,
    trial: int = 0,
    seed: int = 0,
    rows: str = "8,12,15",
    columns: str = "15,15,15",
    sparsity: int = 3,
    known_noise: bool = True,
) -> None:
    """A random Kronecker-sparse problem.

    Args:
        out: Folder for the results.
        estimators: Comma-separated, of SVD, AM, KSBL, PC0.8, PC0.5, classic, PCSBL.
        snr: Signal-to-noise ratio in dB.
        trial: Number of the random problem.
        seed: The problem is drawn from a generator seeded by this and its number.
        rows: Measurements M_i of each factor, comma-separated.
        columns: Unknowns N_i of each factor, comma-separated.
        sparsity: Nonzeros a factor.
        known_noise: Whether the estimators are told the noise variance.
    """
    from unfoldkit.sbl.simulation.experiments import SYNTHETIC_ESTIMATORS, trial_generator
    from unfoldkit.sbl.simulation.metrics import nmse
    from unfoldkit.sbl.systems.observation import observe
    from unfoldkit.sbl.systems.synthetic import draw_synthetic

    sizes = numbers("rows", rows, int), numbers("columns", columns, int)
    drawn = draw_synthetic(trial_generator(seed, trial), *sizes, sparsity)
    y, s2 = observe(drawn.clean, drawn.noise, snr)
    dims = len(drawn.factors)
    posed = Posed(
        drawn.factors,
        y,
        s2 if known_noise else None,
        lambda x: x.flatten(-dims + 1) if dims > 1 else x.unsqueeze(-2),
        lambda found, truth: nmse(found, truth, 2),
        drawn.x.flatten(1) if dims > 1 else drawn.x[None],
        drawn.support,
        ("|x|", "index of the other factors", "index of the first factor"),
    )
    settings = {"experiment": "synthetic", "snr": snr, "trial": trial, "seed": seed, "rows": rows}
    settings |= {"columns": columns, "sparsity": sparsity, "known_noise": known_noise}
    write(out, posed, chosen(estimators, SYNTHETIC_ESTIMATORS), settings)


def irs(
    out: Path,
    estimators: str = "SVD,AM,PC0.8,PC0.5",
    snr: float = 12.0,
    trial: int = 0,
    seed: int = 0,
    bs: str = "16",
    ms: str = "6",
    irs: str = "256",
    grid: int = 18,
    paths: int = 1,
    spread: int = 3,
    pilots: int = 3,
    patterns: int = 6,
    on_grid: bool = True,
) -> None:
    """A channel of the uplink of a MIMO system aided by an intelligent reflecting surface.

    Args:
        out: Folder for the results.
        estimators: Comma-separated, of SVD, AM, KSBL, PC0.8, PC0.5, classic, PCSBL.
        snr: Signal-to-noise ratio in dB.
        trial: Number of the random channel.
        seed: The channel is drawn from a generator seeded by this and its number.
        bs: Antennas of the base station; 4x4 for a planar array.
        ms: Antennas of the mobile station; 2x3 for a planar array.
        irs: Elements of the surface; 16x16 for a planar array.
        grid: Points of the angular grid, in each dimension of an array.
        paths: Departure directions of each hop.
        spread: Neighbouring arrival angles of each path.
        pilots: Pilot symbols for each pattern.
        patterns: Patterns of the surface.
        on_grid: Whether directions lie on the grid.
    """
    from unfoldkit.sbl.simulation.experiments import IRS_ESTIMATORS, trial_generator
    from unfoldkit.sbl.simulation.metrics import channel_nmse
    from unfoldkit.sbl.systems import IRSMIMO
    from unfoldkit.sbl.systems.observation import observe

    arrays = array("bs", bs), array("ms", ms), array("irs", irs)
    system = IRSMIMO(*arrays, grid, paths, spread, pilots, patterns, on_grid)
    training = system.draw_training(trial_generator(seed, "training"))
    generator = trial_generator(seed, trial)
    channel = system.draw_channel(generator)
    y, s2 = observe(system.received(channel, training), system.draw_noise(generator), snr)
    posed = Posed(
        system.factors(training),
        y,
        s2,
        lambda x: system.channel_of(x, training),
        channel_nmse,
        system.cascade(channel, training),
        None,
        ("|H|", "antenna of the mobile station", "antenna of the base station"),
    )
    settings = {"experiment": "irs", "snr": snr, "trial": trial, "seed": seed, "bs": bs, "ms": ms, "irs": irs}
    settings |= {"grid": grid, "paths": paths, "spread": spread, "pilots": pilots, "patterns": patterns}
    write(out, posed, chosen(estimators, IRS_ESTIMATORS), settings | {"on_grid": on_grid})


def chosen(text: str, known: dict[str, Any]) -> dict[str, Any]:
    """The estimators called by a comma-separated list, of those that iterate."""
    from unfoldkit.sbl.em.loop import ExpectationMaximisation

    iterative = {
        name: method for name, method in known.items() if isinstance(method, ExpectationMaximisation)
    }
    names = text.split(",")
    unknown = [name for name in names if name not in iterative]
    if unknown:
        raise ValueError(f"no estimator {', '.join(unknown)} that iterates; there are {', '.join(iterative)}")
    return {name: iterative[name] for name in names}


def write(out: Path, posed: Posed, estimators: dict[str, Any], settings: dict[str, Any]) -> None:
    """Trace every estimator on the problem and leave what is listed at the top of this file."""
    from rich.progress import track

    from unfoldkit.sbl.em.tracing import trace

    traces: dict[str, Trace] = {}
    for name, estimator in track(estimators.items(), f"Tracing {len(estimators)} estimators"):
        traces[name] = trace(estimator, posed.factors, posed.y, posed.noise_variance)
    errors = {name: posed.nmse(posed.seen(kept.mean), posed.truth) for name, kept in traces.items()}
    out.mkdir(parents=True, exist_ok=True)
    write_files(out, traces, errors, settings)
    with fresh_writer(out / "tensorboard" / "problem") as writer:
        report = Report(out, writer)
        show(report, posed, traces, errors)
        report.write(f"Estimation, iteration by iteration: {settings['experiment']}, {settings['snr']:g} dB")
    for name, kept in traces.items():
        log(out / "tensorboard" / name, kept, errors[name])
    print(f"{out / 'report.html'} written; tensorboard --logdir {out}")


def write_files(out: Path, traces: "dict[str, Trace]", errors: "dict[str, Tensor]", settings: Any) -> None:
    """trace.json: the curves.  trace.mat: the curves, prior variances and last means, a struct an estimator."""
    from unfoldkit.common.files import write_whole

    curves = {name: curves_of(kept, errors[name]) for name, kept in traces.items()}
    content = {"settings": settings, "estimators": curves}
    write_whole(out / "trace.json", json.dumps(content, indent=1) + "\n")
    structs = {}
    for name, kept in traces.items():
        g = {f"g{i}": path.numpy() for i, path in enumerate(kept.hyperparameters, start=1)}
        structs["e_" + name.replace(".", "_")] = {**curves[name], **g, "mean": kept.mean[-1].numpy()}
    write_mat(out / "trace.mat", structs)


def curves_of(kept: "Trace", nmse: "Tensor") -> dict[str, list[float]]:
    curves = {"nmse": nmse, "cost": kept.cost, "change": kept.change, "noise_variance": kept.noise_variance}
    return {name: values.tolist() for name, values in curves.items()}


def log(folder: Path, kept: "Trace", nmse: "Tensor") -> None:
    """The curves and heat maps of one estimator as a run of its own, so that TensorBoard overlays them."""
    from unfoldkit.common.figures import rendered
    from unfoldkit.sbl.simulation.trace_figures import hyperparameter_figure

    with fresh_writer(folder) as writer:
        for name, values in curves_of(kept, nmse).items():
            for iteration, value in enumerate(values, start=1):
                writer.add_scalar(f"estimate/{name}", value, iteration)
        picture = rendered(hyperparameter_figure(kept.hyperparameters))
        writer.add_image("estimate/hyperparameters", picture, dataformats="HWC")


def show(report: Report, posed: Posed, traces: "dict[str, Trace]", errors: "dict[str, Tensor]") -> None:
    from unfoldkit.sbl.simulation.trace_figures import (
        channel_figure,
        convergence_figure,
        hyperparameter_figure,
        support_figure,
    )

    curves = {name: curves_of(kept, errors[name]) for name, kept in traces.items()}
    rows = {
        name: [str(len(kept.cost)), f"{errors[name][-1]:.3g}", f"{kept.noise_variance[-1]:.3g}"]
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


def main(arguments: list[str] | None = None) -> None:
    from unfoldkit.common.console import run_command

    run_command("trace_estimate.py", __doc__, {"synthetic": synthetic, "irs": irs}, arguments)


if __name__ == "__main__":
    main()
