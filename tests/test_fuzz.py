"""Whatever goes in, a result or an error of a documented type comes out, and the error says what was wrong."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import inspect

import pytest
import torch
from fuzzed_calls import (
    ESTIMATORS,
    FITTING,
    KERNELS,
    LIBRARY_ERRORS,
    LISTS,
    NETWORKS,
    NUMBERS,
    SHAPE_ERRORS,
    SYSTEMS,
    VISION,
    public,
    tensors,
)
from fuzzed_options import OPTIONS
from fuzzing import MANY, fuzz, sets
from hypothesis import strategies as st

from unfoldkit import datasets, kernels, rpcanet, sbl
from unfoldkit.rpcanet import classical, metrics
from unfoldkit.sbl import systems


@sets
@pytest.mark.parametrize("name", KERNELS)
def test_kernels(name, count):
    errors = (*SHAPE_ERRORS, RuntimeError) if name in LIBRARY_ERRORS else SHAPE_ERRORS
    fuzz(count, function=getattr(kernels, name), strategies=KERNELS[name], errors=errors)


@sets
@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators(name, count):
    estimator = ESTIMATORS[name]
    noise = st.one_of(st.none(), NUMBERS, tensors(max_dims=2))
    problems = st.one_of(FITTING, FITTING, st.tuples(LISTS, tensors()))
    fuzz(count, function=lambda p, s: estimator(*p, s), strategies=(problems, noise))


@sets
def test_least_squares_on_a_support(count):
    supports = st.lists(tensors(), max_size=3)
    fitting = st.tuples(FITTING, st.integers(0, 99)).map(lambda drawn: (drawn[0], _support(*drawn)))
    any_ = st.tuples(st.one_of(FITTING, st.tuples(LISTS, tensors())), supports)
    fuzz(
        count,
        function=lambda drawn: sbl.OracleLS(drawn[1])(*drawn[0]),
        strategies=(st.one_of(fitting, any_),),
    )


def _support(problem, seed):
    random = torch.Generator().manual_seed(seed)
    return [torch.rand(A.shape[-1], generator=random) < 0.5 for A in problem[0]]


@sets
@pytest.mark.parametrize("name", SYSTEMS)
def test_systems_and_scores(name, count):
    function, strategies, keywords = SYSTEMS[name]
    fuzz(count, function=function, strategies=strategies, keywords=keywords)


@sets
@pytest.mark.parametrize("name", VISION)
def test_vision_and_data(name, count):
    function, strategies, keywords = VISION[name]
    fuzz(count, function=function, strategies=strategies, keywords=keywords)


@sets
@pytest.mark.parametrize("name", OPTIONS)
def test_options(name, count):
    function, strategies, keywords = OPTIONS[name]
    fuzz(count, function=function, strategies=strategies, keywords=keywords)


def test_no_public_function_is_left_out():
    fuzzed = {*KERNELS, *ESTIMATORS, *SYSTEMS, *OPTIONS, *(word for name in VISION for word in name.split())}
    fuzzed |= {"OracleLS", "read_image", "read_mask", "read_training", "load_weights", "load_estimator"}
    fuzzed |= {type(made).__name__ for made in NETWORKS.values()}
    fuzzed |= {"read_graded", "read_pages", "inputs_in"}  # below
    fuzzed |= {"PictureFiles", "save_weights", "save_estimator"}  # through open_pictures, and the loaders
    # Through the commands that call them, in test_fuzzed_command_lines.py.
    fuzzed |= {
        "train",
        "evaluate_data_set",
        "predict",
        "interpret",
        "export_weights",
        "compress_weights",
        "compress",
    }
    fuzzed |= {"simulate", "trace_problem", "train_estimator"}
    # Told a truth, a generator or a name, and tested on their own: test_baselines.py, test_calibration.py,
    # test_zoo.py, test_graphs.py; what needs Sionna, which may be missing: tests/ofdm, test_ofdm_oracle.py.
    fuzzed |= {
        "GenieMMSE",
        "LMMSE",
        "covariance_root",
        "sample_root",
        "genie_bound",
        "bilinear_bound",
        "calibrate",
    }
    fuzzed |= {"card", "pretrained", "pretrained_names", "Graph", "Graphs"}
    packages = (kernels, datasets, rpcanet, sbl, classical, metrics, systems)
    values = {name: x for package in packages for name, x in public(package).items()}
    functions = {name for name, x in values.items() if inspect.isfunction(x)}
    made = {name for name, x in values.items() if inspect.isclass(x) and "__call__" in vars(x)}
    assert functions | made <= fuzzed


def test_the_slow_set_has_two_thousand_cases():
    functions = len(KERNELS) + len(ESTIMATORS) + len(SYSTEMS) + len(VISION) + len(OPTIONS) + 6 + 5 + 2
    assert functions * MANY >= 2000
