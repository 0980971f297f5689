"""Public functions and the options that are drawn for them by name."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from functools import partial
from types import SimpleNamespace

import torch
from fuzzed_calls import (
    COUNTS,
    DTYPES,
    IMAGES,
    MATRICES,
    NETWORKS,
    NUMBERS,
    PLANES,
    counted,
    inside,
    maybe,
    scored,
    separating,
    solving,
    tensors,
    uplink,
)
from hypothesis import strategies as st

from unfoldkit import datasets, kernels, rpcanet, sbl
from unfoldkit.rpcanet import classical, metrics
from unfoldkit.rpcanet.inference.tiling import padded, tiled
from unfoldkit.rpcanet.inside import measures
from unfoldkit.sbl import systems

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
