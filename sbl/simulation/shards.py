"""Shards: the trials of one estimator at one point, the unit of work and of what an interrupted run keeps."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from unfoldkit.common.files import write_whole

from .gpus import trials_that_fit
from .ofdm_options import OFDMOptions
from .options import IRSOptions, Point, SyntheticOptions

# Of what the estimators and experiments compute: raised whenever a change alters numbers, so that shards that were
# computed before it are never mixed with those after it.
NUMBERS_VERSION = 6
# Trials of a shard; shards (of one estimator, at several SNRs) solved in one batch.
# Small kernels leave a GPU waiting for small batches.
SHARD_TRIALS = {"cpu": 200, "cuda": 5000}
SHARDS_TOGETHER = {"cpu": 1, "cuda": 5}
OFDM_TRIALS = 10  # a drop takes seconds
_OF_BOTH = {"nmse", "error_energy", "reference_energy", "iterations", "seconds"}
BOUND = "bound"  # in place of an estimator; it has what is of both experiments alone
_OF_A_LINK = {"claimed_error", "ser", "ber", "bler", "spectral_efficiency", "pilots"}
METRICS = {
    SyntheticOptions.name: _OF_BOTH | {"srr"},
    IRSOptions.name: _OF_BOTH | {"ser"},
    OFDMOptions.name: (_OF_BOTH | _OF_A_LINK) - {"iterations"},
}
NAMED = 3  # shards in a line about many

Scores = dict[str, list[float]]


@dataclass(frozen=True)
class Shard:
    """Trials of one estimator at one point; `experiment` is a `SyntheticExperiment` or its like."""

    experiment: Any
    estimator: str
    point: Point
    seed: int
    trials: range

    @property
    def name(self) -> str:
        at = "_".join(f"{key}={_exact(value)}" for key, value in self.point.items())
        return f"{label(self.estimator)}_{at}_{self.trials.start}-{self.trials.stop}.json"


@lru_cache
def label(estimator: str) -> str:
    """The estimator in a file's name; weights from a file by their content, which may change."""
    kind, _, path = estimator.partition(":")
    return f"{kind}-{hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]}" if path else kind


def _exact(value: float) -> str:
    """As short as it can be without giving two values one name."""
    return short if float(short := f"{value:g}") == value else repr(value)


def blocks(trials: int, size: int) -> list[range]:
    """The trials 0, 1, ..., shared out among shards.

    >>> blocks(300, 200)
    [range(0, 200), range(200, 300)]
    """
    return [range(start, min(start + size, trials)) for start in range(0, trials, size)]


def batches(shards: Sequence[Shard]) -> Iterator[list[Shard]]:
    """Shards that are solved together: as many as the device takes, of those that differ in their SNR alone."""
    alike: dict[Any, list[Shard]] = {}
    for shard in shards:
        alike.setdefault((shard.experiment, shard.estimator, shard.trials), []).append(shard)
    for group in alike.values():
        size = SHARDS_TOGETHER[group[0].experiment.device]
        yield from (group[start : start + size] for start in range(0, len(group), size))


def run_shards(shards: Sequence[Shard], version: int) -> list[Scores]:
    """Scores of the trials of shards that differ in their SNR alone, on one core.

    Raises ValueError where this process computes other numbers than those of `version`.
    """
    import torch

    if version != NUMBERS_VERSION:
        raise ValueError(
            f"a worker computes numbers of version {NUMBERS_VERSION}, expected version {version}"
        )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    snrs_db, one = [shard.point["snr_db"] for shard in shards], shards[0]
    scores = _run(one, snrs_db)
    torch.set_num_threads(threads)
    return scores


def _run(shard: Shard, snrs_db: Sequence[float]) -> list[Scores]:
    """Scores at each SNR; on a GPU, of as many trials at once as fit into the current one."""
    if shard.experiment.device == "cpu":
        return list(shard.experiment.run(shard.estimator, snrs_db, shard.seed, shard.trials))
    shard = replace(shard, experiment=_on_current_gpu(shard.experiment))
    parts = [
        shard.experiment.run(shard.estimator, snrs_db, shard.seed, part)
        for part in _parts(shard, len(snrs_db))
    ]
    together = zip(*parts, strict=True)
    return [{name: [value for part in at for value in part[name]] for name in at[0]} for at in together]


def warm_up(shards: Sequence[Shard]) -> None:
    """Begin to draw trials, and let each estimator solve one, all on the current GPU, until the run can begin.

    What the estimators load or compile is there before anything is timed. What fails here fails again in the run.
    """
    import torch

    from .seeds import pieces

    first, gpu = shards[0], torch.cuda.current_device()
    experiment, drawn = _on_current_gpu(first.experiment), pieces(first.trials)
    ones = {shard.estimator: replace(shard, trials=shard.trials[:1]) for shard in shards}
    threads = ThreadPoolExecutor(3, initializer=torch.cuda.set_device, initargs=(gpu,))
    threads.submit(lambda: [experiment.drawn(first.seed, piece) for piece in drawn])
    scored = threads.submit(experiment.rehearse)
    wait([scored, *(threads.submit(_run, one, [one.point["snr_db"]]) for one in ones.values())])
    experiment.drawn(first.seed, drawn[0])
    threads.shutdown(wait=False)


def _on_current_gpu(experiment: Any) -> Any:
    import torch

    return replace(experiment, device=f"cuda:{torch.cuda.current_device()}")


def _parts(shard: Shard, snrs: int) -> list[range]:
    """The trials of a shard, as many together as fit into the current GPU at so many SNRs, or are drawn yet."""
    from .seeds import PIECE

    size = max(1, trials_that_fit(shard.experiment.unknowns) // snrs)
    if not shard.experiment.is_drawn(shard.seed, shard.trials):
        size = min(size, PIECE)
    size = size // PIECE * PIECE or size
    return [shard.trials[start : start + size] for start in range(0, len(shard.trials), size)]


def write_shard(path: Path, settings: dict[str, Any], scores: Scores) -> None:
    """Keep a shard with what its numbers depend on; `settings` hold their version."""
    write_whole(path, json.dumps({"settings": settings, "scores": scores}))


def read_shard(folder: Path, shard: Shard, settings: dict[str, Any]) -> Scores:
    """The scores of a shard; raises ValueError, which says why, where they are not those of this run."""
    stored = read_json(folder / shard.name)
    if not isinstance(stored, dict) or not stored:
        raise ValueError("no scores")
    found = stored.get("settings")
    version = found.get("numbers_version") if isinstance(found, dict) else 1
    if version != NUMBERS_VERSION:
        raise ValueError(f"numbers of version {version}, not {NUMBERS_VERSION}")
    if found != settings:
        raise ValueError("numbers of other settings")
    scores = stored.get("scores")
    expected = _OF_BOTH if shard.estimator == BOUND else METRICS[settings["experiment"]]
    count = len(shard.trials)
    if not isinstance(scores, dict) or set(scores) != expected:
        raise ValueError("not all metrics")
    if not all(isinstance(values, list) and len(values) == count for values in scores.values()):
        raise ValueError("not all trials")
    if not all(isinstance(value, int | float) for values in scores.values() for value in values):
        raise ValueError("scores that are no numbers")
    return scores


def kept_scores(folder: Path, shards: Sequence[Shard], settings: dict[str, Any]) -> dict[str, Scores]:
    """Those of the shards that are kept, by name; says which are kept but of no use, and why."""
    kept: dict[str, Scores] = {}
    useless: dict[str, list[str]] = {}
    for shard in shards:
        found = _scores_or_fault(folder, shard, settings)
        if isinstance(found, dict):
            kept[shard.name] = found
        elif found:
            useless.setdefault(found, []).append(shard.name)
    for reason, names in useless.items():
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        print(f"{folder}: computed anew, since they hold {reason}: {', '.join(names[:NAMED])}{more}")
    return kept


def _scores_or_fault(folder: Path, shard: Shard, settings: dict[str, Any]) -> Scores | str:
    """The scores of a shard, or why they cannot be taken; an empty string where there are none."""
    try:
        return read_shard(folder, shard, settings)
    except FileNotFoundError:
        return ""
    except ValueError as error:
        return str(error)


def read_json(path: Path) -> Any:
    """What a file of a run holds; raises ValueError where that is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise ValueError("no readable JSON") from None
