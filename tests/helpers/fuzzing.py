"""How functions are fuzzed: a result or an error of a documented type, whose text names an argument."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import inspect
import re

import pytest
from fuzzed_calls import SHAPE_ERRORS, public
from hypothesis import given, settings
from hypothesis import strategies as st

from unfoldkit import datasets, kernels, rpcanet, sbl
from unfoldkit.rpcanet import classical, metrics
from unfoldkit.rpcanet.inference.saved_maps import read_map, recognised_scale
from unfoldkit.rpcanet.inference.tiling import padded, tiled
from unfoldkit.rpcanet.inside import measures
from unfoldkit.rpcanet.inside.measures import stage_measures
from unfoldkit.sbl import systems
from unfoldkit.sbl.em.tracing import trace
from unfoldkit.sbl.simulation.metrics import channel_nmse, symbol_error_rate

FEW, MANY = 4, 400  # cases a function


def arguments_of(functions):
    return {name for function in functions for name in inspect.signature(function).parameters}


OTHERS = [tiled, padded, measures.spectrum, measures.effective_rank, measures.fidelity, metrics.PixelCurves]
OTHERS += [metrics.PictureRows, metrics.ThresholdCurve, read_map, recognised_scale]
OTHERS += [stage_measures, classical.background_foreground, channel_nmse, symbol_error_rate, trace]
OTHERS += [getattr(systems, name) for name in systems.__all__]
PUBLIC = [value for package in (kernels, datasets, rpcanet, sbl) for value in public(package).values()]
ARGUMENTS = arguments_of([*filter(callable, PUBLIC), *classical.METHODS.values(), *OTHERS])
ARGUMENTS |= {
    "protocol",
    "image",
    "axes",
    "factors",
    "y",
    "noise_variance",
    "estimate",
    "truth",
    "probability",
    "mask",
    "a_pred",
    "region",
    "names",
}  # of methods


def result_or_documented_error(function, arguments, keywords=None, errors=SHAPE_ERRORS):
    try:
        function(*arguments, **(keywords or {}))
    except SHAPE_ERRORS as error:
        assert set(re.findall(r"\w+", str(error))) & ARGUMENTS, str(error)  # noqa: PT017 - a result is right, too
    except errors as error:
        assert str(error)  # noqa: PT017


def cases(count):
    return settings(max_examples=count, derandomize=True, deadline=None)


def fuzz(count, *, function, strategies, keywords=(), errors=SHAPE_ERRORS):
    @cases(count)
    @given(st.data())
    def run(data):
        arguments = [data.draw(strategy) for strategy in strategies]
        named = data.draw(st.fixed_dictionaries({}, optional=dict(keywords)))
        result_or_documented_error(function, arguments, named, errors)

    run()


def sets(test):
    return pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])(test)
