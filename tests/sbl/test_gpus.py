"""Simulation on GPUs: what is solved at once, and how long they wait; without one, in its place."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import dataclasses
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import pytest
import torch

from unfoldkit.sbl import IRSOptions, SyntheticOptions
from unfoldkit.sbl.em.block import solve as block
from unfoldkit.sbl.simulation import gpus, seeds, shards
from unfoldkit.sbl.simulation.experiments import (
    IRS_ESTIMATORS,
    SYNTHETIC_ESTIMATORS,
    IRSExperiment,
    SyntheticExperiment,
    irs_estimator,
)
from unfoldkit.sbl.simulation.seeds import KEPT_DRAWS, drawn_once


@dataclass(frozen=True)
class Counting:
    """An experiment whose scores are the trials' numbers, and which remembers what it was asked at once."""

    device: str
    unknowns: int = 1

    def drawn(self, seed, trials):
        ASKED.append(trials)

    def is_drawn(self, seed, trials):
        return True

    def rehearse(self):
        ASKED.append(range(0))

    def run(self, estimator, snrs_db, seed, trials):
        ASKED.append(trials)
        return [{"nmse": [snr + trial for trial in trials]} for snr in snrs_db]


ASKED: list[range] = []
IRS = IRSExperiment(), IRSExperiment(fresh_training=True)


def test_trials_go_in_parts_that_fit(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(shards, "trials_that_fit", lambda unknowns: 7)
    ASKED.clear()
    group = [shards.Shard(Counting("cuda"), "SVD", {"snr_db": snr}, 0, range(10, 18)) for snr in (0.0, 100.0)]
    first, second = shards.run_shards(group, shards.NUMBERS_VERSION)
    assert [range(10, 13), range(13, 16), range(16, 18)] == ASKED
    assert first["nmse"] == list(range(10, 18))
    assert second["nmse"] == list(range(110, 118))


@pytest.mark.parametrize(
    ("drawn", "fit", "size"), [(True, 2500, 2000), (False, 2500, 1000), (False, 300, 300)]
)
def test_what_is_not_drawn_yet_is_solved_as_it_comes(monkeypatch, drawn, fit, size):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(shards, "trials_that_fit", lambda unknowns: fit)
    monkeypatch.setattr(Counting, "is_drawn", lambda *_: drawn)
    ASKED.clear()
    shards.run_shards(
        [shards.Shard(Counting("cuda"), "SVD", {"snr_db": 0.0}, 0, range(4000))], shards.NUMBERS_VERSION
    )
    assert [range(0, size), range(size, 2 * size)] == ASKED[:2]


def test_a_piece_is_drawn_once_whoever_asks():
    count = []

    @drawn_once
    def draw(number):
        count.append(number)
        time.sleep(0.02)
        if number < 0:
            raise ValueError("nothing to draw")
        return number

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(draw, [1, 1, 1, 1])) == [1] * 4
    assert count == [1]
    assert draw.done(1)
    assert not draw.done(2)
    with pytest.raises(ValueError, match="nothing"):
        draw(-1)
    assert not draw.done(-1)
    for number in range(2, 2 + KEPT_DRAWS):
        draw(number)
    assert not draw.done(1)


@pytest.mark.parametrize("experiment", [SyntheticExperiment(), *IRS])
def test_scores_are_rehearsed(experiment):
    experiment.rehearse()


def test_trials_in_pieces_are_those_of_one_draw(monkeypatch):
    whole = [experiment.drawn(3, range(5)) for experiment in (SyntheticExperiment(), *IRS)]
    monkeypatch.setattr(seeds, "PIECE", 2)
    parts = [experiment.drawn(3, range(5)) for experiment in (SyntheticExperiment(), *IRS)]
    torch.testing.assert_close(parts, whole)


def test_before_a_run_each_estimator_solves_one_trial_while_the_first_are_drawn(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_device", lambda gpu: None)
    monkeypatch.setattr(shards, "trials_that_fit", lambda unknowns: 7)
    ASKED.clear()
    points = [(name, {"snr_db": snr}) for snr in (0.0, 100.0) for name in ("SVD", "AM")]
    shards.warm_up([shards.Shard(Counting("cuda"), *point, 0, range(10, 18)) for point in points])
    assert sorted(ASKED, key=len) == [range(0), *[range(10, 11)] * 2, *[range(10, 18)] * 2]


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("options", [IRSOptions(), SyntheticOptions(rows="4,5", columns="6,6")])
def test_what_is_compiled_ahead_is_what_the_estimators_launch(monkeypatch, options, published):
    options = dataclasses.replace(options, as_published=published)
    names = SYNTHETIC_ESTIMATORS.keys() & IRS_ESTIMATORS.keys()
    methods = [irs_estimator(name, published) for name in names]
    factors, complex_numbers, _ = options.shape()
    launched = {step.kind for method in methods if (step := step_of(method, factors)) is not None}
    compiled = []
    monkeypatch.setattr(gpus, "architecture", lambda index: "sm_90")
    monkeypatch.setattr(gpus, "start_gpu", lambda index: None)
    monkeypatch.setattr(gpus, "nvrtc", lambda: None)
    monkeypatch.setattr(gpus, "cubin", lambda *args, **kinds: compiled.append((*args, kinds)))
    monkeypatch.setattr(gpus.threading, "Thread", AtOnce)
    gpus.compile_ahead(names, *options.shape())
    wanted = [("em_solve", step) for step in launched] + [("em_posterior", block.FULL_MOMENT)]
    expected = [
        (block.SOURCES[name], "sm_90", block.definitions(factors, complex_numbers, step))
        for name, step in wanted
    ]
    assert sorted(compiled, key=str) == sorted(expected, key=str)


def step_of(method, factors):
    return method.compiled_step(factors) if hasattr(method, "compiled_step") else None


class AtOnce:
    """A thread that is over once it has been started."""

    def __init__(self, target, args=(), daemon=False):
        self.start = partial(target, *args)


def test_what_fits_goes_by_free_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (gpus.BYTES_AN_UNKNOWN * 5000, 0))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: gpus.BYTES_AN_UNKNOWN * 3000)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: gpus.BYTES_AN_UNKNOWN * 2000)
    assert gpus.trials_that_fit(1000) == 6
    assert gpus.trials_that_fit(10**6) == 1


def test_the_idle_share_is_that_of_looks(monkeypatch):
    class Stream:
        def query(self):
            return True

    monkeypatch.setattr(torch.cuda, "default_stream", lambda gpu: Stream())
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with gpus.watched() as waiting:
        time.sleep(0.05)
    assert waiting.looks == waiting.idle > 0
    assert waiting.seconds == pytest.approx(0.05, abs=0.05)
    assert "idle for 100%" in str(waiting)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.usefixtures("kernels_compiled")
@pytest.mark.parametrize("estimator", ["SVD", "PC0.8", "KOMP"])
def test_a_gpu_scores_the_trials_of_a_cpu(estimator):
    request = (estimator, [8.0, 16.0], 0, range(5))
    expected, found = (IRSExperiment(device=device).run(*request) for device in ("cpu", "cuda"))
    for cpu, gpu in zip(expected, found, strict=True):
        for name in cpu.keys() - {"seconds"}:
            assert gpu[name] == pytest.approx(cpu[name], rel=1e-5), name
        assert min(gpu["seconds"]) > 0
