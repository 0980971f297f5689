"""The EM loop for a GPU gives what the one in C gives; here a CPU's threads stand for those of a block."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import ctypes
import dataclasses
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from torch.utils._pytree import tree_map_only

from unfoldkit.kernels.native import compiler
from unfoldkit.sbl import SVDKroSBL, UnfoldedKroSBL
from unfoldkit.sbl.em import compiled
from unfoldkit.sbl.em.block import solve as block
from unfoldkit.sbl.em.kronecker_posterior import kronecker_posterior
from unfoldkit.sbl.em.state import initial_state
from unfoldkit.sbl.problem import pose

from .test_compiled import METHODS, SETTINGS, SIZES, TOLERANCE, assert_equal, each_combination

HOST, RACES = (Path(__file__).with_name(name) for name in ("em_on_host.cpp", "em_races.cpp"))
GPU = "cuda"
ROOMS = [2**20, 6000, 2500]  # bytes for a problem in the stages on the host
IRS = {"rows": (6, 3, 16), "columns": (18, 18, 18)}
on_a_gpu = (
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.usefixtures("kernels_compiled"),
)
pytestmark = pytest.mark.skipif(
    compiler._compiler() is None or shutil.which("g++") is None, reason="needs C and C++ compilers"
)


def marked(*marks):
    def apply(test):
        for mark in marks:
            test = mark(test)
        return test

    return apply


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A function that gives a kernel as a function of C++, for so many factors of real or complex numbers."""
    folder = tmp_path_factory.mktemp("block")

    @lru_cache
    def build(name, factors, complex_numbers):
        built = folder / f"{name}-{factors}-{complex_numbers}.so"
        options = ["-std=c++17", "-O1", "-shared", "-fPIC", "-pthread", "-Wno-unknown-pragmas"]
        options += [
            f"-DFACTORS={factors}",
            f"-DCOMPLEX={complex_numbers}",
            f"-D{name.upper()}",
            f'-DEM_CU="{block.SOURCES[name].resolve()}"',
            *([f"-DSTEP={block.FULL_MOMENT}"] if name == "em_posterior" else []),
        ]
        subprocess.run(["g++", *options, HOST, "-o", built], check=True)
        return getattr(ctypes.CDLL(str(built)), f"{name}_on_host")

    return build


@pytest.fixture
def on_host(library, monkeypatch):
    """A function that lets kernels for a GPU run on the CPU, by so many threads."""

    def patch(threads):
        def launch(name, device, call, step, threads_of_a_gpu, size, *others):
            others = [ctypes.c_void_p(x.data_ptr()) if isinstance(x, torch.Tensor) else x for x in others]
            run = library(name, call.factors, call.complex_numbers)
            assert run(ctypes.byref(call), threads, size, *others) == 0

        class Library:
            def em_solve(self, reference, *moments):
                block.run(reference._obj, torch.device("cpu"))
                call = reference._obj
                launch("em_posterior", None, call, None, 0, block._size(call), *moments)
                return 0

        monkeypatch.setattr(compiled.compiler, "load", lambda source: Library())
        monkeypatch.setattr(block, "_launch", launch)
        monkeypatch.setattr(block, "rooms", lambda device: ROOMS)

    return patch


FEW = pytest.mark.parametrize(("dtype", "sizes"), [(torch.float64, "two"), (torch.complex128, "three")])


@FEW
@pytest.mark.parametrize("threads", [1, 3])
def test_the_posterior_is_that_of_pytorch(draw, on_host, dtype, sizes, threads):
    factors, _, y, s2 = draw(dtype=dtype, batch=(3,), **SIZES[sizes])
    problem = pose(factors, y, s2)
    random = torch.Generator().manual_seed(0)
    g = [torch.rand(3, n, dtype=torch.float64, generator=random) for n in problem.lengths]
    g = [(v * (v > 0.3)).index_fill(1, torch.tensor(0), 0.5) for v in g]
    state = initial_state(problem, (*g[:-1], g[-1].index_fill(0, torch.tensor(2), 0)))
    expected = kronecker_posterior(state)
    on_host(threads)
    mean, variance, residual = compiled._moments(*compiled._posed(state))
    torch.testing.assert_close(mean, expected.mean(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(variance, expected.variance(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(residual, expected.residual(), rtol=1e-9, atol=1e-12)
    assert mean[2].count_nonzero() == 0 < mean[:2].count_nonzero()


UNFOLDED = {
    "svd": {"m_step": "svd"},
    "svd, published": {"m_step": "svd", "as_published": True, "neighbours": 0},
    "am": {"m_step": "am", "sweeps": 2, "neighbours": 1},
}


def learned(options, factors):
    """An estimator as if trained, its parameters fixed."""
    net = UnfoldedKroSBL(iterations=4, factors=factors, **options)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return net.requires_grad_(False)


@FEW
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("options", UNFOLDED)
def test_unfolded_iterations_are_those_of_pytorch(draw, on_host, monkeypatch, dtype, sizes, options, threads):
    factors, _, y, s2 = draw(dtype=dtype, batch=(3,), **SIZES[sizes])
    net = learned(UNFOLDED[options], len(factors))
    expected = net(factors, y, s2)
    on_host(threads)
    monkeypatch.setattr(block, "serves", lambda *_: True)
    found = net(factors, y, s2)
    assert_equal(found, expected, 1e-8)
    some = [torch.ones(1, A.shape[-1], dtype=torch.float64) for A in factors]
    torch.testing.assert_close(
        found.functional(some).variance, expected.functional(some).variance, rtol=1e-7, atol=0.0
    )


def test_what_asks_for_gradients_goes_through_pytorch(draw, monkeypatch):
    factors, _, y, s2 = draw()
    monkeypatch.setattr(block, "serves", lambda *_: pytest.fail("asked for a kernel"))
    net = learned({}, len(factors)).requires_grad_(True)
    assert net(factors, y, s2).mean.requires_grad
    assert learned({}, len(factors))(factors, y.requires_grad_(), s2).mean.requires_grad


@each_combination
def test_it_is_the_estimate_of_the_loop_in_c(draw, on_host, name, dtype, sizes, known_noise, settings):
    factors, _, y, s2 = draw(dtype=dtype, batch=(3,), **SIZES[sizes])
    method = dataclasses.replace(METHODS[name], **SETTINGS[settings])
    problem = (factors, y, s2 if known_noise else None)
    expected = method(*problem, history=True)
    on_host(1)
    assert_equal(method(*problem, history=True), expected, TOLERANCE[name])


@pytest.mark.parametrize("name", METHODS)
def test_threads_share_the_work(draw, on_host, name):
    factors, _, y, s2 = draw(dtype=torch.complex128, rows=(6, 3, 7), columns=(8, 8, 8))
    expected = METHODS[name](factors, y, s2)
    on_host(3)
    assert_equal(METHODS[name](factors, y, s2), expected, TOLERANCE[name])


@pytest.mark.parametrize("name", ["SVD", "PC0.8"])
def test_a_problem_that_shrinks_goes_on_in_a_smaller_block(draw, on_host, monkeypatch, name):
    factors, _, y, s2 = draw(dtype=torch.complex128, rows=(6, 3, 7), columns=(8, 8, 8))
    on_host(3)
    monkeypatch.setattr(block, "rooms", lambda device: [2**20, 15000, 6500])
    launch, left = block._launch, []

    def watched(kernel, device, call, *others):
        launch(kernel, device, call, *others)
        if kernel == "em_solve":
            left.append((ctypes.c_int64 * 2).from_address(call.iterations)[0])

    monkeypatch.setattr(block, "_launch", watched)
    found = METHODS[name](factors, y, s2)
    assert 0 < left[0] < left[1] < left[2] == int(found.iterations)
    monkeypatch.setattr(block, "rooms", lambda device: [2**20] * 3)
    assert_equal(found, METHODS[name](factors, y, s2), TOLERANCE[name])


@pytest.mark.parametrize("complex_numbers", [0, 1])
def test_threads_wait_for_what_others_write(tmp_path, complex_numbers):
    options = [
        "-std=c++17",
        "-g",
        "-O1",
        "-fsanitize=thread",
        "-pthread",
        "-Wno-unknown-pragmas",
        "-DFACTORS=3",
    ]
    options += [f"-DCOMPLEX={complex_numbers}", f'-DEM_CU="{block.SOURCES["em_solve"].resolve()}"']
    built = subprocess.run(["g++", *options, RACES, "-o", tmp_path / "races"], capture_output=True, text=True)
    if "tsan" in built.stderr:
        pytest.skip("needs ThreadSanitizer")
    built.check_returncode()
    command = [*(["setarch", "-R"] if shutil.which("setarch") else []), tmp_path / "races"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert "data race" not in run.stderr, run.stderr[:4000]
    run.check_returncode()
    assert len(run.stdout.split()) == 10


def on_cpu(estimate):
    """The estimate with its tensors on the CPU."""
    names = [field.name for field in dataclasses.fields(estimate)]
    moved = tree_map_only(torch.Tensor, torch.Tensor.cpu, [getattr(estimate, name) for name in names])
    return dataclasses.replace(estimate, **dict(zip(names, moved, strict=True)))


@marked(*on_a_gpu)
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("known_noise", [True, False])
@pytest.mark.parametrize(("dtype", "sizes"), [(torch.float64, "three"), (torch.complex128, "irs")])
@pytest.mark.parametrize("name", METHODS)
def test_a_gpu_gives_the_estimate_of_the_loop_in_c(draw, on_gpu, name, dtype, sizes, known_noise, settings):
    sizes = IRS if sizes == "irs" else SIZES[sizes]
    factors, _, y, s2 = draw(dtype=dtype, batch=(5,), **sizes)
    method = dataclasses.replace(METHODS[name], **SETTINGS[settings])
    s2 = s2 if known_noise else None
    expected = method(factors, y, s2, history=True)
    found = method([A.to(GPU) for A in factors], y.to(GPU), s2 if s2 is None else s2.to(GPU), history=True)
    assert on_gpu
    assert_equal(on_cpu(found), expected, TOLERANCE[name])


@marked(*on_a_gpu)
@pytest.mark.parametrize("options", UNFOLDED)
def test_a_gpu_gives_the_unfolded_estimate_of_a_cpu(draw, options):
    factors, _, y, s2 = draw(dtype=torch.complex128, batch=(5,), **IRS)
    net = learned(UNFOLDED[options], 3)
    problem = [A.to(GPU) for A in factors], y.to(GPU), s2.to(GPU)
    found = net(*problem)
    assert found.functionals.posterior is None  # it never was in PyTorch
    assert_equal(on_cpu(found), net(factors, y, s2), 1e-8)


@marked(*on_a_gpu)
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
@pytest.mark.parametrize("name", METHODS)
def test_single_precision_on_a_gpu(draw, on_gpu, name, dtype):
    factors, _, y, s2 = draw(dtype=dtype, batch=(5,))
    expected = METHODS[name](factors, y, s2)
    found = METHODS[name]([A.to(GPU) for A in factors], y.to(GPU), s2.to(GPU))
    assert on_gpu
    assert found.mean.dtype == dtype
    error = torch.linalg.vector_norm(found.mean.cpu() - expected.mean) / torch.linalg.vector_norm(
        expected.mean
    )
    assert error < 1e-3


@marked(*on_a_gpu)
@pytest.mark.parametrize("name", METHODS)
def test_a_member_is_the_same_to_the_last_bit_in_any_batch_on_a_gpu(draw, on_gpu, name):
    factors, _, y, s2 = draw(dtype=torch.complex128, batch=(300,), **IRS)
    problem = pose([A.to(GPU) for A in factors], y.to(GPU), s2.to(GPU))
    method = METHODS[name]
    state, step = method.begin(problem), method.compiled_step(3)
    stop = compiled.Stop(method._pruning(problem), method.max_iterations, method.tolerance)
    together = compiled.solve(state, step, stop, False, False)
    for i in range(0, 300, 60):
        members = torch.arange(i, i + 7, device=GPU)
        alone = compiled.solve(state.take(members), step, stop, False, False)
        assert all(torch.equal(u, v[i : i + 7]) for u, v in zip(alone.g, together.g, strict=True))
    assert len(on_gpu) == 6


@marked(*on_a_gpu)
def test_what_does_not_fit_goes_through_pytorch_on_a_gpu(draw, on_gpu):
    factors, _, y, s2 = draw(rows=(12, 12, 12), columns=(40, 40, 40))
    SVDKroSBL(max_iterations=2)([A.to(GPU) for A in factors], y.to(GPU), s2.to(GPU))
    assert not on_gpu


@pytest.fixture
def on_gpu(monkeypatch):
    """How many batches have gone through the kernel."""
    count = []
    run = block.run

    def counted(*args):
        count.append(1)
        run(*args)

    monkeypatch.setattr(block, "run", counted)
    return count
