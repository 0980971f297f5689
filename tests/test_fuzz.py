"""Whatever goes in, a result or an error of a documented type comes out, and the error says what was wrong."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import inspect
import math
import re
from functools import partial
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unfoldkit import datasets, kernels, rpcanet, sbl
from unfoldkit.rpcanet import classical, metrics
from unfoldkit.rpcanet.inference.saved_maps import read_map, recognised_scale
from unfoldkit.rpcanet.inference.tiling import padded, tiled
from unfoldkit.rpcanet.inside import interpretation, measures
from unfoldkit.rpcanet.inside.measures import stage_measures
from unfoldkit.sbl import systems
from unfoldkit.sbl.em.tracing import trace
from unfoldkit.sbl.simulation.metrics import channel_nmse, nmse, support_recovery_rate, symbol_error_rate

FEW, MANY = 4, 400  # cases a function
DTYPES = [torch.float32, torch.float64, torch.complex128, torch.float16, torch.int64, torch.bool]
SIZES = st.integers(0, 5)
NUMBERS = st.one_of(st.floats(-3, 3), st.sampled_from([0.0, -1.0, math.nan, math.inf, 1e30]))


@st.composite
def tensors(draw, min_dims=0, max_dims=4):
    """Tensors of any small shape and type, one in a few with a value that is no number."""
    shape = draw(st.lists(SIZES, min_size=min_dims, max_size=max_dims))
    dtype = draw(st.sampled_from([*DTYPES[:3], *DTYPES[:2], *DTYPES]))
    values = torch.randn(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    if values.numel() and draw(st.integers(0, 4)) == 0:
        values.view(-1)[0] = draw(st.sampled_from([math.nan, math.inf, 1e30]))
    if not (dtype.is_floating_point or dtype.is_complex):
        values = values.nan_to_num(0, 9, -9).clamp(-9, 9)
    return values.to(dtype)


MATRICES = st.one_of(tensors(2, 3), tensors())
LISTS = st.lists(MATRICES, max_size=3)
ANY_NUMBER = st.one_of(NUMBERS, st.integers(-2, 4))
SHAPE_ERRORS = (ValueError, torch.linalg.LinAlgError)

KERNELS = {
    "svd": (MATRICES,),
    "svdvals": (MATRICES,),
    "eigh": (MATRICES,),
    "leading_singular_triplet": (MATRICES,),
    "soft_threshold": (tensors(), st.one_of(NUMBERS, tensors())),
    "hard_threshold": (tensors(), st.one_of(NUMBERS, tensors())),
    "group_soft_threshold": (tensors(), st.one_of(NUMBERS, tensors()), st.integers(-4, 4)),
    "singular_value_threshold": (MATRICES, st.one_of(NUMBERS, tensors(max_dims=2))),
    "lowrank_sparse_step": (MATRICES, MATRICES, MATRICES, NUMBERS, NUMBERS),
    "mode_product": (tensors(), MATRICES, st.integers(-4, 4)),
    "kron_matvec": (LISTS, tensors()),
    "nonnegative_least_squares": (MATRICES, tensors()),
    "large_kernel_conv2d": (tensors(), tensors()),
    "conv_spectrum": (tensors(),),
    "same_conv2d": (tensors(4, 4), tensors(4, 4), tensors(1, 1)),
    "batch_norm": (tensors(2, 4), st.none(), st.none(), st.one_of(st.none(), tensors(1, 1))),
}
LIBRARY_ERRORS = ("same_conv2d", "batch_norm")  # they say that PyTorch's RuntimeError may come
OTHER_CALLS = ("Estimate", "OracleLS", "UnfoldedKroSBL")
ESTIMATORS = {name: getattr(sbl, name) for name in sbl.__all__ if name not in OTHER_CALLS}
ESTIMATORS = {name: x() for name, x in ESTIMATORS.items() if inspect.isclass(x)}
ESTIMATORS["UnfoldedKroSBL"] = sbl.UnfoldedKroSBL(iterations=2, factors=2)
FITTING = st.builds(
    lambda seed, rows, columns, bad: _problem(seed, rows, columns, bad),
    st.integers(0, 99),
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.lists(st.integers(1, 4), min_size=3, max_size=3),
    st.sampled_from([0.0, 0.0, 0.0, math.nan, math.inf]),
)


def _problem(seed, rows, columns, bad):
    random = torch.Generator().manual_seed(seed)
    factors = [torch.randn(m, n, generator=random) for m, n in zip(rows, columns, strict=False)]
    y = torch.randn(math.prod(rows), generator=random)
    y[0] += bad
    return factors, y


COUNTS = st.integers(-1, 4)


def uplink(**sizes):
    system, random = systems.IRSMIMO(**sizes), torch.Generator().manual_seed(0)
    training, channel = system.draw_training(random), system.draw_channel(random)
    y = system.received(channel, training) + system.draw_noise(random)
    factors = system.factors(training)
    assert y.shape[-1] == math.prod(A.shape[-2] for A in factors)
    found = system.channel_of(torch.ones([A.shape[-1] for A in factors], dtype=y.dtype), training)
    assert found.shape == system.cascade(channel, training).shape


def drawn(rows, columns, sparsity):
    problem = systems.draw_synthetic(torch.Generator().manual_seed(0), rows, columns, sparsity)
    assert int(problem.x.count_nonzero()) == sparsity ** len(rows)


CHANNEL_SIZES = ("bs", "ms", "irs", "grid", "paths", "spread", "pilots", "patterns")
SYSTEMS = {
    "IRSMIMO": (uplink, (), tuple((name, COUNTS) for name in CHANNEL_SIZES)),
    "draw_synthetic": (drawn, (st.lists(COUNTS, max_size=3), st.lists(COUNTS, max_size=3), COUNTS), ()),
    "observe": (systems.observe, (tensors(), tensors(), NUMBERS), ()),
    "steering_vectors": (
        systems.steering_vectors,
        (tensors(), st.one_of(COUNTS, st.tuples(COUNTS, COUNTS))),
        (),
    ),
    "angular_grid": (systems.angular_grid, (st.one_of(COUNTS, st.tuples(COUNTS, COUNTS)),), ()),
    "channel_nmse": (channel_nmse, (tensors(), tensors()), ()),
    "symbol_error_rate": (symbol_error_rate, (tensors(3), tensors(3), NUMBERS), ()),
    "trace": (lambda problem: trace(sbl.SVDKroSBL(), *problem, 0.1), (FITTING,), ()),
}


IMAGES = st.builds(
    lambda seed, *shape: torch.rand(shape, generator=torch.Generator().manual_seed(seed)),
    st.integers(0, 99),
    *(st.integers(1, 2), st.just(1), st.integers(1, 12), st.integers(1, 12)),
)
PLANES = st.one_of(IMAGES, tensors(4, 4), tensors())
NETWORKS = {
    "rpcanet": rpcanet.RPCANet(stages=1, channels=4).eval(),
    "rpcanet++": rpcanet.RPCANetPlusPlus(stages=2, channels=4).eval(),
    "lowrank": rpcanet.LowRankRPCANet(stages=1, channels=4).eval(),
    "drpca_net": rpcanet.DRPCANet(stages=1, channels=4).eval(),
    "l_rpcanet": rpcanet.LRPCANet(stages=2, channels=4, narrow=2, noise_layers=1, carry_noise=True).eval(),
}
VISION = {
    **{f"{name} forward": (net, (PLANES,), ()) for name, net in NETWORKS.items()},
    "decompose": (
        lambda levels, size: rpcanet.decompose(NETWORKS["rpcanet++"], levels, size),
        (tensors(), SIZES),
        (),
    ),
    "optimize": (
        lambda name, dtype, image: rpcanet.optimize(NETWORKS[name], dtype)(image),
        (st.sampled_from(list(NETWORKS)), st.sampled_from([*DTYPES, torch.bfloat16, torch.float32]), PLANES),
        (),
    ),
    "evaluate": (
        lambda image, mask, *rest: rpcanet.evaluate(
            NETWORKS["rpcanet"], [SimpleNamespace(image=image, mask=mask)], *rest
        ),
        (PLANES, PLANES, st.sampled_from(["overlap", "vessel", "defect", "none"]), st.integers(-1, 200)),
        (),
    ),
    "decomposition_loss": (
        lambda image, *rest: rpcanet.decomposition_loss(
            rpcanet.Decomposition(image, image, image), image, *rest
        ),
        (PLANES, PLANES, NUMBERS),
        (),
    ),
    "background_foreground": (classical.background_foreground, (tensors(),), ()),
    "SegmentationDataset": (
        lambda size, *rest: datasets.SegmentationDataset(datasets.SyntheticScenes("val", 1, 40), size, *rest)[
            0
        ],
        (st.integers(-1, 50), NUMBERS, NUMBERS, st.booleans(), COUNTS, st.booleans()),
        (),
    ),
    "stage_measures": (stage_measures, (tensors(), tensors(), tensors()), ()),
    "soft_iou_loss": (rpcanet.soft_iou_loss, (PLANES, PLANES), ()),
    "batch_iou_loss": (rpcanet.batch_iou_loss, (PLANES, PLANES), ()),
    "build": (
        rpcanet.build,
        (st.one_of(st.sampled_from(list(NETWORKS)), st.text(max_size=3)),),
        (("stages", st.integers(-1, 2)), ("channels", st.integers(-1, 5)), ("std", NUMBERS)),
    ),
    **{f"classical {name}": (method, (tensors(),), ()) for name, method in classical.METHODS.items()},
    "SyntheticScenes": (
        lambda *a: datasets.SyntheticScenes(*a)[0],
        (st.sampled_from(["train", "val", "x"]), st.integers(-1, 2), st.integers(-1, 70), st.integers(-1, 5)),
        (),
    ),
    "normalise": (
        lambda x, mean, std: datasets.normalise(x.real.to(torch.float64).numpy(), mean, std),
        (tensors(), NUMBERS, NUMBERS),
        (),
    ),
    "nmse": (lambda a, b: nmse(a, b, 1), (tensors(1), tensors(1)), ()),
    "support_recovery_rate": (lambda a, b: support_recovery_rate(a, b, 1), (tensors(1), tensors(1)), ()),
    **{
        f"protocol {name}": (
            lambda p, m, name=name: metrics.protocol(name).update(p, m),
            (PLANES, PLANES),
            (),
        )
        for name in ("overlap", "centroid", "vessel", "defect")
    },
}


def scored(levels, mask, *options):
    with TemporaryDirectory() as folder:
        np.save(f"{folder}/a_pred.npy", levels.numpy())
        rpcanet.score_predictions(folder, [SimpleNamespace(name="a", mask=mask)], *options)


def maybe(strategy):
    return st.one_of(st.none(), strategy)


def solving(estimator, **options):
    """An estimator of any options on a problem that fits."""
    return (
        lambda problem, noise, **chosen: estimator(**chosen)(*problem, noise),
        (FITTING, maybe(NUMBERS)),
        options.items(),
    )


def separating(name, **options):
    return classical.METHODS[name], (st.one_of(IMAGES, tensors(2, 3), tensors()),), options.items()


def counted(metric, probability, mask):
    metric.update(probability, mask)
    metric.compute()


def inside(name, image):
    if name in NETWORKS:
        return interpretation.interior_measures(image, interpretation.look_inside(NETWORKS[name], image))
    found = interpretation.look_at_solver(classical.METHODS[name], image)
    return interpretation.interior_measures(image, found)


STEPS = st.integers(-1, 5)
EM = {
    "pruning": st.one_of(NUMBERS, st.tuples(NUMBERS), st.tuples(NUMBERS, NUMBERS, NUMBERS)),
    "floor": NUMBERS,
    "max_iterations": STEPS,
    "tolerance": maybe(NUMBERS),
    "scaled_start": st.booleans(),
}
DESCENT = {"lambda_": maybe(NUMBERS), "tolerance": maybe(NUMBERS), "max_iterations": STEPS}
PATCHES = {"patch": STEPS, "step": STEPS, "lambda_": NUMBERS, "tolerance": NUMBERS, "max_iterations": STEPS}
ARRAY = st.one_of(COUNTS, st.tuples(COUNTS, COUNTS))
ANY_DTYPE = st.sampled_from(DTYPES)
PUBLISHED_KEYS = [
    "lowrank.convs.0.weight",
    "lowrank.conv1_C.0.weight",
    "lowrank.ConvLSTM.conv_xf.weight",
    "x",
]
PUBLISHED_KEYS = [f"decos.{stage}.{key}" for stage in (0, 1) for key in PUBLISHED_KEYS] + ["x", ""]
SETTINGS = st.dictionaries(st.sampled_from(["size", "crop", "seed"]), maybe(st.one_of(COUNTS, st.text())))
TRAININGS = st.dictionaries(st.sampled_from(["data", "recipe"]), maybe(SETTINGS))
OPTIONS = {
    "group_soft_threshold": (
        kernels.group_soft_threshold,
        (tensors(), NUMBERS, st.lists(st.integers(-4, 4), max_size=3).map(tuple)),
        (),
    ),
    "large_kernel_conv2d": (
        kernels.large_kernel_conv2d,
        (IMAGES, IMAGES),
        (
            ("bias", maybe(tensors(0, 1))),
            ("padding", st.one_of(STEPS, st.tuples(STEPS, STEPS), st.sampled_from(["same", "valid", "x"]))),
            ("spectrum", maybe(tensors())),
        ),
    ),
    "conv_spectrum": (kernels.conv_spectrum, (IMAGES, st.tuples(STEPS, STEPS)), ()),
    "nonnegative_least_squares": (
        kernels.nonnegative_least_squares,
        (MATRICES, tensors(), maybe(tensors())),
        (),
    ),
    "singular_value_threshold": (
        kernels.singular_value_threshold,
        (MATRICES, NUMBERS),
        (("weights", maybe(tensors())), ("partial", STEPS), ("rank", maybe(STEPS))),
    ),
    "KSBL": solving(sbl.KSBL, **EM),
    "ClassicSBL": solving(sbl.ClassicSBL, **EM),
    "SVDKroSBL": solving(sbl.SVDKroSBL, **EM),
    "PCSBL": solving(sbl.PCSBL, shape=NUMBERS, rate=NUMBERS, coupling=NUMBERS, **EM),
    "AMKroSBL": solving(
        sbl.AMKroSBL, inner_tolerance=NUMBERS, inner_relative=st.booleans(), sweeps=STEPS, **EM
    ),
    "PCKroSBL": solving(
        sbl.PCKroSBL,
        beta=NUMBERS,
        coupled=maybe(st.lists(st.integers(-1, 3), max_size=3).map(tuple)),
        inner_tolerance=NUMBERS,
        sweeps=STEPS,
        **EM,
    ),
    "DecomposedSBL": solving(sbl.DecomposedSBL, refinement=STEPS, iterations=STEPS, sweeps=STEPS),
    "OMP": solving(sbl.OMP, sparsity=maybe(STEPS)),
    "KroneckerOMP": solving(
        sbl.KroneckerOMP, sparsity=maybe(st.one_of(STEPS, st.lists(STEPS, max_size=3).map(tuple)))
    ),
    "UnfoldedKroSBL": solving(
        sbl.UnfoldedKroSBL,
        iterations=STEPS,
        factors=STEPS,
        m_step=st.sampled_from(["svd", "am", "x"]),
        sweeps=STEPS,
        neighbours=STEPS,
    ),
    "pcp": separating("pcp", **DESCENT),
    "pssv": separating("pssv", rank=STEPS, **DESCENT),
    "wnnm": separating("wnnm", strength=maybe(NUMBERS), tolerance=maybe(NUMBERS), max_iterations=STEPS),
    "ipi": separating("ipi", **PATCHES),
    "pstnn": separating("pstnn", **PATCHES),
    "background_foreground": (
        lambda frames, name: classical.background_foreground(frames, classical.METHODS[name]),
        (tensors(3, 3), st.sampled_from(list(classical.METHODS))),
        (),
    ),
    "tiled": (partial(tiled, NETWORKS["rpcanet"]), (PLANES, st.integers(-1, 9), STEPS), ()),
    "padded": (partial(padded, NETWORKS["rpcanet"]), (PLANES, STEPS), ()),
    "decompose": (
        partial(rpcanet.decompose, NETWORKS["rpcanet"]),
        (tensors(2, 2), maybe(STEPS), st.integers(-1, 200)),
        (),
    ),
    "autocast": (
        lambda name, image: torch.autocast("cpu", torch.bfloat16)(NETWORKS[name])(image),
        (st.sampled_from(["rpcanet", "rpcanet++", "drpca_net", "l_rpcanet"]), PLANES),
        (),
    ),
    "PixelCurves": (
        lambda bins, *maps: counted(metrics.PixelCurves(bins), *maps),
        (STEPS, PLANES, PLANES),
        (),
    ),
    "TargetROC": (lambda bins, *maps: counted(metrics.TargetROC(bins), *maps), (STEPS, PLANES, PLANES), ()),
    "score": (
        lambda image, name: rpcanet.score(
            torch.sigmoid, [SimpleNamespace(image=image, mask=(image > 0.8).float())], name
        ),
        (IMAGES, st.sampled_from(list(metrics.PROTOCOLS))),
        (),
    ),
    "score_predictions": (
        scored,
        (
            st.one_of(IMAGES, tensors()),
            st.one_of(IMAGES, tensors()),
            st.sampled_from([*metrics.PROTOCOLS, "none"]),
            maybe(NUMBERS),
            maybe(NUMBERS),
        ),
        (),
    ),
    "PictureRows": (
        lambda name, *maps: metrics.PictureRows(name).update(["a"], *maps),
        (st.sampled_from(list(metrics.PROTOCOLS)), PLANES, PLANES, maybe(PLANES)),
        (),
    ),
    "ThresholdCurve": (
        lambda name, bins, *maps: metrics.ThresholdCurve(name, bins).update(*maps),
        (st.sampled_from(list(metrics.PROTOCOLS)), STEPS, PLANES, PLANES, maybe(PLANES)),
        (),
    ),
    "from_published": (
        partial(rpcanet.from_published, source="published"),
        (st.dictionaries(st.sampled_from(PUBLISHED_KEYS), tensors()),),
        (),
    ),
    "trained_size": (rpcanet.trained_size, (TRAININGS,), ()),
    "trained_seed": (rpcanet.trained_seed, (TRAININGS,), ()),
    "protocol_of": (datasets.protocol_of, (st.one_of(st.sampled_from(datasets.NAMES), st.text()),), ()),
    "record_of": (datasets.record_of, (st.one_of(st.sampled_from(datasets.NAMES), st.text()),), ()),
    "objects": (
        lambda x, level: datasets.objects(x.real.to(torch.float64).numpy(), level),
        (tensors(), st.sampled_from(["maximum", "half", "any", "x"])),
        (),
    ),
    "grade": (
        lambda x, *rest: datasets.grade(x.real.to(torch.float64).numpy(), *rest).image,
        (
            tensors(),
            st.one_of(st.sampled_from([None, "full", "percentile", "x"]), st.tuples(NUMBERS, NUMBERS)),
        ),
        (),
    ),
    "protocol": (metrics.protocol, (st.text(max_size=4),), ()),
    "spectrum": (measures.spectrum, (tensors(),), ()),
    "effective_rank": (measures.effective_rank, (tensors(),), ()),
    "leading_energy": (measures.leading_energy, (tensors(),), ()),
    "sparsity": (measures.sparsity, (tensors(),), ()),
    "fidelity": (measures.fidelity, (tensors(), tensors(), tensors()), ()),
    "look_inside": (inside, (st.sampled_from([*NETWORKS, *classical.METHODS]), PLANES), ()),
    "open_pictures": (
        lambda split, **chosen: datasets.open_pictures("synthetic", split, **chosen)[0],
        (st.sampled_from(["train", "test", "val", "x"]),),
        (("count", maybe(COUNTS)), ("size", st.integers(-1, 60)), ("seed", st.integers(-2, 2**33))),
    ),
    "draw_synthetic": (
        lambda sizes, dtype: systems.draw_synthetic(torch.Generator(), *zip(*sizes, strict=True), dtype),
        (st.lists(st.tuples(COUNTS, COUNTS, COUNTS), min_size=1, max_size=3), ANY_DTYPE),
        (),
    ),
    "IRSMIMO": (
        uplink,
        (),
        (("bs", ARRAY), ("ms", ARRAY), ("irs", ARRAY), ("on_grid", st.booleans()), ("dtype", ANY_DTYPE)),
    ),
    "angular_grid": (systems.angular_grid, (ARRAY, ANY_DTYPE), ()),
}


def arguments_of(functions):
    return {name for function in functions for name in inspect.signature(function).parameters}


OTHERS = [tiled, padded, measures.spectrum, measures.effective_rank, measures.fidelity, metrics.PixelCurves]
OTHERS += [metrics.PictureRows, metrics.ThresholdCurve, read_map, recognised_scale]
OTHERS += [stage_measures, classical.background_foreground, channel_nmse, symbol_error_rate, trace]
OTHERS += [getattr(systems, name) for name in systems.__all__]
PUBLIC = [
    x for package in (kernels, datasets, rpcanet, sbl) for x in map(package.__dict__.get, package.__all__)
]
ARGUMENTS = arguments_of([*filter(callable, PUBLIC), *classical.METHODS.values(), *OTHERS])
ARGUMENTS |= {
    "protocol",
    "image",
    "factors",
    "y",
    "noise_variance",
    "estimate",
    "truth",
    "probability",
    "mask",
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
    fuzzed |= {"train", "evaluate_data_set", "predict", "interpret", "export_weights"}
    packages = (kernels, datasets, rpcanet, sbl, classical, metrics, systems)
    public = {name: getattr(package, name) for package in packages for name in package.__all__}
    functions = {name for name, x in public.items() if inspect.isfunction(x)}
    made = {name for name, x in public.items() if inspect.isclass(x) and "__call__" in vars(x)}
    assert functions | made <= fuzzed


def damaged(content, position, length, value, cut):
    """Bytes overwritten somewhere, or the end cut off."""
    position = int(position * len(content))
    return (
        content[:position]
        if cut
        else content[:position] + bytes([value]) * length + content[position + length :]
    )


DAMAGE = (st.floats(0, 1), st.integers(0, 40), st.integers(0, 255), st.booleans())


def named_or_read(load, path):
    try:
        assert load(path) is not None
    except ValueError as error:
        assert path.name in str(error)  # noqa: PT017 - a result is right, too


@sets
@pytest.mark.parametrize("ending", [".png", ".jpg", ".bmp", ".tiff", ".ppm", ".gif"])
def test_damaged_pictures(tmp_path, ending, count):
    levels = np.random.default_rng(0).integers(0, 255, (9, 11, 3), dtype=np.uint8)
    whole, path = cv2.imencode(ending, levels)[1].tobytes(), tmp_path / f"picture{ending}"

    def read(*damage):
        path.write_bytes(damaged(whole, *damage))
        named_or_read(datasets.read_image, path)
        named_or_read(datasets.read_mask, path)
        named_or_read(datasets.read_graded, path)
        named_or_read(lambda path: list(datasets.read_pages(path)), path)

    fuzz(count, function=read, strategies=DAMAGE, errors=())


@sets
@pytest.mark.parametrize("kind", ["network", "published", "estimator", "checkpoint", "configuration"])
def test_damaged_files_of_the_tools(tmp_path, kind, count):
    from unfoldkit.common.configuration import read_configuration
    from unfoldkit.common.runs import Checkpoints

    path = tmp_path / "file.any"
    torch.manual_seed(0)
    if kind == "network":
        rpcanet.save_weights(rpcanet.build("rpcanet", stages=1, channels=2), path)
    elif kind == "estimator":
        sbl.save_estimator(sbl.UnfoldedKroSBL(iterations=2), path)
    elif kind == "configuration":
        path.write_text("network:\n  name: rpcanet\n  stages: 3\ndata:\n  root: null\n")
    else:
        torch.save({"decos.0.lowrank.convs.0.weight": torch.ones(4, 1, 3, 3), "a": torch.ones(2)}, path)
    loaders = {
        "network": rpcanet.load_weights,
        "published": rpcanet.load_weights,
        "estimator": sbl.load_estimator,
    }
    loaders |= {"checkpoint": Checkpoints().load_checkpoint, "configuration": read_configuration}
    whole = path.read_bytes()

    def load(*damage):
        path.write_bytes(damaged(whole, *damage))
        named_or_read(loaders[kind], path)

    fuzz(count, function=load, strategies=DAMAGE, errors=())


PLACES = [
    "images/a.png",
    "masks/a.png",
    "images/b.png",
    "masks/b.png",
    "img_idx/test_SIRST.txt",
    "masks/a_pixels0.png",
]
PLACES += [
    "test/images/a.png",
    "test/masks/a.png",
    "test/images/c.jpg",
    "test.txt",
    "a.png",
    "1st_manual/a.png",
]
CONTENTS = ["picture", "other size", "black", "damaged", "text", "empty", "folder"]


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if content == "folder":
        path.mkdir()
        return
    levels = np.zeros((9, 14) if content == "other size" else (12, 10), np.uint8)
    levels[2:5, 3:6] = 0 if content == "black" else 255
    whole = cv2.imencode(".png", levels)[1].tobytes()
    path.write_bytes({"text": b"a\nb\n", "empty": b"", "damaged": whole[:40]}.get(content, whole))


@sets
def test_any_folder_of_pictures(tmp_path, count):
    numbers = iter(range(10**6))

    def opened(name, split, files, skip_bad, keep_empty):
        root = tmp_path / str(next(numbers))
        root.mkdir()
        for place, content in files.items():
            put(root / place, content)
        try:
            pictures = datasets.open_pictures(name, split, root, skip_bad=skip_bad, keep_empty=keep_empty)
            assert datasets.inputs_in([root])
            for k in range(len(pictures)):
                assert pictures[k].image.shape == pictures[k].mask.shape
        except (FileNotFoundError, ValueError) as error:
            words = set(re.findall(r"\w+", str(error)))
            assert str(root) in str(error) or words & ARGUMENTS  # noqa: PT017 - a result is right, too

    files = st.dictionaries(st.sampled_from(PLACES), st.sampled_from(CONTENTS), max_size=6)
    names = st.sampled_from([*datasets.NAMES, "folder", "folder", "folder", "none"])
    splits = st.sampled_from(["train", "test", "test", "val", "", "../x"])
    fuzz(count, function=opened, strategies=(names, splits, files, st.booleans(), st.booleans()))


def test_the_slow_set_has_two_thousand_cases():
    functions = len(KERNELS) + len(ESTIMATORS) + len(SYSTEMS) + len(VISION) + len(OPTIONS) + 6 + 5 + 2
    assert functions * MANY >= 2000
