"""One random problem of an experiment, estimated iteration by iteration."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .options import IRSOptions, SyntheticOptions, decibels, different

if TYPE_CHECKING:
    from torch import Tensor

    from ..em.tracing import Trace


class Posed(NamedTuple):
    """One problem, and how an estimate x (..., N_1, ..., N_I) of it is judged.

    seen: what x says of the truth, (..., rows, columns) or more axes before.  nmse: of seen against truth, (...).
    truth: of the shape of one `seen`.  support: (N_i,) booleans, where they are known.
    picture: the symbol of what is seen, and its axes.
    """

    factors: "tuple[Tensor, ...]"
    y: "Tensor"
    noise_variance: "Tensor | None"
    seen: "Callable[[Tensor], Tensor]"
    nmse: "Callable[[Tensor, Tensor], Tensor]"
    truth: "Tensor"
    support: "tuple[Tensor, ...] | None"
    picture: tuple[str, str, str]


class Traced(NamedTuple):
    """A problem, what each estimator did to it, its NMSE at each iteration (T,), and the page that shows all."""

    problem: Posed
    traces: "dict[str, Trace]"
    nmse: "dict[str, Tensor]"
    report: Path


def trace_problem(
    options: SyntheticOptions | IRSOptions,
    out: str | Path,
    estimators: str,
    snr: float,
    trial: int = 0,
    seed: int = 0,
) -> Traced:
    """Watch estimators on the problem of that number in a run of `simulate` with the same seed and options.

    Leaves in `out` report.html, figures/*.png, trace.json, trace.mat, and tensorboard/ with a run for each
    estimator.

    Args:
        options: The experiment; options.traced holds estimators and an snr for it.
        out: Folder for the results.
        estimators: Comma-separated, of SVD, AM, KSBL, PC0.8, PC0.5, classic, PCSBL.
        snr: Signal-to-noise ratio in dB.
        trial: Number of the random problem.
        seed: The problem is drawn from a generator seeded by this and its number.

    Raises:
        ValueError: an option is at fault, or there is no estimator of that name that iterates.
        OSError: `out` cannot be written.

    >>> import contextlib, io, tempfile
    >>> small = SyntheticOptions(rows="4,5", columns="6,6", sparsity="2")
    >>> with contextlib.redirect_stdout(io.StringIO()):  # the progress bar
    ...     traced = trace_problem(small, tempfile.mkdtemp(), "SVD", 20.0)
    >>> len(traced.nmse["SVD"]) == len(traced.traces["SVD"].cost)
    True
    """
    from rich.progress import track

    from ..em.tracing import trace
    from .trace_report import write_trace

    out = Path(out)
    names, [snr_db] = different("estimators", estimators.split(",")), decibels(str(snr))
    methods = {name: _iterative(options, name, snr_db) for name in names}
    posed = pose_problem(options, snr_db, trial, seed)
    traces = {
        name: trace(method, posed.factors, posed.y, posed.noise_variance)
        for name, method in track(methods.items(), f"Tracing {len(methods)} estimators")
    }
    nmse = {name: posed.nmse(posed.seen(kept.mean), posed.truth) for name, kept in traces.items()}
    traced = Traced(posed, traces, nmse, out / "report.html")
    write_trace(traced, options.settings() | {"snr": snr_db, "trial": trial, "seed": seed})
    return traced


def _iterative(options: SyntheticOptions | IRSOptions, name: str, snr_db: float) -> Any:
    from ..em.loop import ExpectationMaximisation
    from .experiments import IRS_ESTIMATORS, SYNTHETIC_ESTIMATORS, irs_estimator, published

    table = IRS_ESTIMATORS if isinstance(options, IRSOptions) else SYNTHETIC_ESTIMATORS
    known = {known: method for known, method in table.items() if isinstance(method, ExpectationMaximisation)}
    if name not in known:
        raise ValueError(f"no estimator {name} that iterates; there are {', '.join(known)}")
    if isinstance(options, IRSOptions):
        return irs_estimator(name, options.as_published, snr_db)
    return published(known[name]) if options.as_published else known[name]


def pose_problem(
    options: SyntheticOptions | IRSOptions, snr_db: float, trial: int = 0, seed: int = 0
) -> Posed:
    """The problem of number `trial` that `simulate` draws with that seed.

    Raises ValueError where the options make no problem or several, or `trial` is negative.

    >>> posed = pose_problem(SyntheticOptions(), 20.0)
    >>> posed.y.shape, posed.truth.shape
    (torch.Size([1440]), torch.Size([15, 225]))
    """
    if trial < 0:
        raise ValueError(f"--trial must be at least 0, got {trial}")
    if isinstance(options, IRSOptions):
        return _pose_channel(options, snr_db, trial, seed)
    return _pose_synthetic(options, snr_db, trial, seed)


def _pose_synthetic(options: SyntheticOptions, snr_db: float, trial: int, seed: int) -> Posed:
    from ..systems import draw_synthetic, observe
    from .experiments import trial_generator
    from .metrics import nmse

    (_, experiment), *others = options.experiments()
    if others:
        raise ValueError("one problem is traced: the options make several: name one number for each")
    drawn = draw_synthetic(
        trial_generator(seed, trial), experiment.rows, experiment.columns, experiment.sparsity
    )
    y, s2 = observe(drawn.clean, drawn.noise, snr_db)
    dims = len(drawn.factors)
    return Posed(
        drawn.factors,
        y,
        s2 if options.known_noise else None,
        lambda x: x.flatten(-dims + 1) if dims > 1 else x.unsqueeze(-2),
        lambda found, truth: nmse(found, truth, 2),
        drawn.x.flatten(1) if dims > 1 else drawn.x[None],
        drawn.support,
        ("|x|", "index of the other factors", "index of the first factor"),
    )


def _pose_channel(options: IRSOptions, snr_db: float, trial: int, seed: int) -> Posed:
    from ..systems import observe
    from .experiments import trial_generator
    from .metrics import channel_nmse

    system = options.system()
    stream = ("training", trial) if options.fresh_training else ("training",)
    training = system.draw_training(trial_generator(seed, *stream))
    generator = trial_generator(seed, trial)
    channel = system.draw_channel(generator)
    y, s2 = observe(system.received(channel, training), system.draw_noise(generator), snr_db)
    return Posed(
        system.factors(training),
        y,
        s2,
        lambda x: system.channel_of(x, training),
        channel_nmse,
        system.cascade(channel, training),
        None,
        ("|H|", "antenna of the mobile station", "antenna of the base station"),
    )
