"""The EM loop in C gives what the one in PyTorch gives, for every estimator that it knows."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import dataclasses
from itertools import product

import pytest
import torch

from unfoldkit.kernels.native import compiler
from unfoldkit.sbl import KSBL, AMKroSBL, PCKroSBL, SVDKroSBL
from unfoldkit.sbl.em import compiled
from unfoldkit.sbl.estimate import Ended

METHODS = {
    "SVD": SVDKroSBL(max_iterations=20),
    "AM": AMKroSBL(max_iterations=20),
    "KSBL": KSBL(max_iterations=20),
    "PC0.8": PCKroSBL(0.8, max_iterations=20),
    "PC0.5": PCKroSBL(0.5, coupled=(0,), max_iterations=20),
}
TOLERANCE = {"SVD": 1e-8, "AM": 1e-8, "KSBL": 1e-8, "PC0.8": 1e-6, "PC0.5": 1e-6}
SIZES = {
    "one factor": {"rows": (9,), "columns": (12,)},
    "two": {},
    "three": {"rows": (8, 3, 4), "columns": (5, 4, 6)},
    "four": {"rows": (2, 3, 4, 1), "columns": (3, 3, 3, 1)},
    "tall and wide": {"rows": (12, 2), "columns": (20, 3)},
}
SETTINGS = {
    "default": {},
    "floor": {"pruning": 0.0, "floor": 1e-4},
    "published": {"as_published": True},
    "published, scaled": {"as_published": True, "scaled_start": True},
}

pytestmark = pytest.mark.skipif(compiler._compiler() is None, reason="needs a C compiler")


@pytest.fixture
def solved(monkeypatch):
    """How many batches have gone through C."""
    count = []
    solve = compiled.solve

    def counted(*args):
        count.append(1)
        return solve(*args)

    monkeypatch.setattr(compiled, "solve", counted)
    return count


def by_pytorch(method, *problem):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "serves", lambda *_: False)
        return method(*problem, history=True)


def assert_equal(found, expected, tolerance):
    def near(ours, theirs):
        scale = tolerance * float(theirs.nan_to_num().abs().max())
        torch.testing.assert_close(ours.to(theirs.dtype), theirs, rtol=tolerance, atol=scale, equal_nan=True)

    near(found.mean, expected.mean)
    near(found.variance, expected.variance)
    near(found.noise_variance, expected.noise_variance)
    for ours, theirs in zip(found.hyperparameters, expected.hyperparameters, strict=True):
        near(ours, theirs)
    assert torch.equal(found.iterations, expected.iterations)
    assert torch.equal(found.ended, expected.ended)
    near(found.residual_to_noise, expected.residual_to_noise)
    if found.cost is not None:
        near(found.cost, expected.cost)
        near(found.change, expected.change)
        near(found.noise_variance_path, expected.noise_variance_path)
        for ours, theirs in zip(found.hyperparameter_path, expected.hyperparameter_path, strict=True):
            near(ours, theirs)


def combinations():
    """Whatever else is combined comes with one of the settings in turn; its other settings are slow."""
    kinds = (METHODS, (torch.float64, torch.complex128), SIZES, (True, False), SETTINGS)
    for case in product(*map(enumerate, kinds)):
        numbers, values = zip(*case, strict=True)
        yield pytest.param(*values, marks=pytest.mark.slow if sum(numbers) % len(SETTINGS) else [])


each_combination = pytest.mark.parametrize(
    ("name", "dtype", "sizes", "known_noise", "settings"), [*combinations()]
)


@each_combination
def test_it_is_the_estimate_of_pytorch(draw, solved, name, dtype, sizes, known_noise, settings):
    factors, _, y, s2 = draw(dtype=dtype, batch=(3,), **SIZES[sizes])
    method = dataclasses.replace(METHODS[name], **SETTINGS[settings])
    problem = (factors, y, s2 if known_noise else None)
    expected = by_pytorch(method, *problem)
    assert not solved
    found = method(*problem, history=True)
    assert solved
    assert_equal(found, expected, TOLERANCE[name])


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
@pytest.mark.parametrize("name", METHODS)
def test_single_precision_is_computed_in_double(draw, solved, name, dtype):
    factors, _, y, s2 = draw(dtype=dtype, batch=(3,))
    method = METHODS[name]
    wide = torch.complex128 if dtype.is_complex else torch.float64
    expected = by_pytorch(method, [A.to(wide) for A in factors], y.to(wide), s2.double())
    found = method(factors, y, s2)
    assert solved
    assert found.mean.dtype == dtype
    assert torch.equal(found.iterations, expected.iterations)
    for ours, theirs in zip(found.hyperparameters, expected.hyperparameters, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5 * float(theirs.max()))


@pytest.mark.parametrize("exponent", [-150, -90, 70])
def test_any_scale(draw, solved, exponent):
    factors, _, y, _ = draw(columns=(4, 8))
    problem = factors, y * 10.0**exponent, torch.tensor(0.0, dtype=torch.float64)
    method = SVDKroSBL(as_published=True, scaled_start=True, max_iterations=10)
    assert_equal(method(*problem), by_pytorch(method, *problem), 1e-6)
    assert solved


@pytest.mark.parametrize("name", METHODS)
def test_a_member_is_the_same_to_the_last_bit_in_any_batch_on_any_number_of_threads(draw, name):
    factors, _, y, s2 = draw(dtype=torch.complex128, batch=(7,))
    method, threads = METHODS[name], torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        members = [method([A[i] for A in factors], y[i], s2[i]) for i in range(7)]
        torch.set_num_threads(3)
        together = torch.cat(method(factors, y, s2).hyperparameters, -1)
    finally:
        torch.set_num_threads(threads)
    alone = [torch.cat(member.hyperparameters) for member in members]
    assert torch.equal(torch.stack(alone), together)


def test_what_overflows_as_published_ends_as_not_finite(draw):
    factors, _, y, s2 = draw(batch=(2,))
    scale = torch.tensor([[1e160], [1.0]], dtype=torch.float64)
    estimate = SVDKroSBL(as_published=True)(factors, scale * y, s2)
    assert (estimate.ended == Ended.NOT_FINITE).tolist() == [True, False]
    assert (estimate.mean[0] == 0).all()
    alone = SVDKroSBL(as_published=True)([A[1] for A in factors], y[1], s2[1])
    torch.testing.assert_close(estimate.mean[1], alone.mean)


def test_what_else_goes_through_pytorch(draw, solved):
    factors, _, y, s2 = draw()
    SVDKroSBL()([A.requires_grad_() for A in factors], y, s2)
    factors = [A.detach() for A in factors]
    SVDKroSBL(tolerance=None, max_iterations=3)(factors, y, s2)
    large = [torch.randn(3, 2**9, dtype=torch.float64)] * 2
    SVDKroSBL(max_iterations=2)(large, torch.randn(9, dtype=torch.float64), 0.1)

    class Extended(SVDKroSBL):
        """Its M-step may be another."""

    Extended(max_iterations=3)(factors, y, s2)
    assert not solved


def test_without_a_compiler_pytorch_gives_the_estimate(draw, monkeypatch):
    factors, _, y, s2 = draw()
    expected = SVDKroSBL()(factors, y, s2)
    monkeypatch.setattr(compiler, "load", lambda source: None)
    torch.testing.assert_close(SVDKroSBL()(factors, y, s2).mean, expected.mean, rtol=1e-8, atol=1e-10)
