"""Public functions, and strategies for their arguments: anything of about the right kind."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import inspect
import math
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import torch
from hypothesis import strategies as st

from unfoldkit import datasets, rpcanet, sbl
from unfoldkit.rpcanet import classical, metrics
from unfoldkit.rpcanet.inside import interpretation
from unfoldkit.rpcanet.inside.measures import stage_measures
from unfoldkit.sbl import systems
from unfoldkit.sbl.em.tracing import trace
from unfoldkit.sbl.simulation.metrics import channel_nmse, nmse, support_recovery_rate, symbol_error_rate

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
    "truncated_svd": (MATRICES, st.integers(-1, 4), st.one_of(st.none(), MATRICES)),
    "monarch_project": (MATRICES, st.integers(-1, 4), st.integers(-1, 3)),
    "sparse_dictionary": (MATRICES, st.integers(-1, 6), st.integers(-1, 4), st.one_of(st.none(), MATRICES)),
    "low_rank_plus_sparse": (MATRICES, st.integers(-1, 4), NUMBERS),
    "mode_product": (tensors(), MATRICES, st.integers(-4, 4)),
    "kron_matvec": (LISTS, tensors()),
    "nonnegative_least_squares": (MATRICES, tensors()),
    "large_kernel_conv2d": (tensors(), tensors()),
    "conv_spectrum": (tensors(),),
    "same_conv2d": (tensors(4, 4), tensors(4, 4), tensors(1, 1)),
    "batch_norm": (tensors(2, 4), st.none(), st.none(), st.one_of(st.none(), tensors(1, 1))),
}
LIBRARY_ERRORS = ("same_conv2d", "batch_norm")  # they say that PyTorch's RuntimeError may come
TOLD = {"GenieMMSE", "LMMSE", "OracleLS"}
WITH_SIONNA = {"Cell", "KroSBLChannelEstimator", "PathOracle", "covariances", "umi_channels", "umi_paths"}
OTHER_CALLS = {"Estimate", "UnfoldedKroSBL"} | TOLD


def public(package):
    """What a package has by name, but for what is not to be had where Sionna is missing."""
    return {name: getattr(package, name) for name in package.__all__ if name not in WITH_SIONNA}


ESTIMATORS = {name: x for name, x in public(sbl).items() if name not in OTHER_CALLS}
ESTIMATORS = {name: x() for name, x in ESTIMATORS.items() if "__call__" in dir(x) and inspect.isclass(x)}
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
    "exact_parts": (
        rpcanet.exact_parts,
        (PLANES, st.one_of(PLANES, PLANES.map(lambda plane: plane != 0)), st.integers(-1, 3)),
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
