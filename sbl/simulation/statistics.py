"""What the scores of many trials say, each figure with its standard error."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

OUTAGES = (1.0, 0.1)  # NMSEs: worse than answering zero, and of no use
ENERGIES = ("error_energy", "reference_energy")
Statistic = tuple[float, float]  # a figure and its standard error


def summary(scores: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Figures of the trials at one point, and the standard error of each as NAME_standard_error.

    nmse: `mean` over trials, as published; with its heavy tail it is ruled by few of them.
    pooled_nmse: `pooled`, the sum over trials and patterns of ||error||^2 over that of ||reference||^2.
    median_nmse: `median`.
    outage_above_1, outage_above_0.1: `mean`, the share of trials whose NMSE is above that or not a number.
    ser, srr, iterations, seconds: `mean`, where they are given.

    scores: a list of all trials for each metric; error_energy and reference_energy are ||error||^2 and
    ||reference||^2 of each trial.

    >>> scores = {"nmse": [0.01, 0.03, 8.0], "error_energy": [1.0, 3.0, 4.0], "reference_energy": [100, 100, 0.5]}
    >>> found = summary(scores)
    >>> [round(found[name], 3) for name in ("nmse", "pooled_nmse", "median_nmse", "outage_above_1")]
    [2.68, 0.04, 0.03, 0.333]
    """
    nmse = scores["nmse"]
    statistics = {
        "nmse": mean(nmse),
        "pooled_nmse": pooled(*(scores[name] for name in ENERGIES)),
        "median_nmse": median(nmse),
    }
    for limit in OUTAGES:
        statistics[f"outage_above_{limit:g}"] = mean([float(not value <= limit) for value in nmse])
    statistics |= {name: mean(values) for name, values in scores.items() if name not in ("nmse", *ENERGIES)}
    return {
        key: figure
        for name, pair in statistics.items()
        for key, figure in zip((name, f"{name}_standard_error"), pair, strict=True)
    }


def mean(values: Sequence[float]) -> Statistic:
    """The mean of n values, and its standard error sqrt(sum (x - mean)^2 / (n - 1) / n).

    Of a share of n trials that is sqrt(p (1 - p) / (n - 1)).

    >>> mean([1.0, 2.0, 3.0, 4.0])
    (2.5, 0.6454972243679028)
    """
    count = len(values)
    centre = math.fsum(values) / count
    spread = math.fsum(np.square(np.asarray(values) - centre).tolist()) / max(1, count - 1)
    return centre, math.sqrt(spread / count)


def pooled(errors: Sequence[float], references: Sequence[float]) -> Statistic:
    """R = sum(errors) / sum(references) of n trials, and the standard error of that ratio by the delta method.

    sqrt(n / (n - 1) sum (error - R reference)^2) / sum(references).
    Source: Cochran, Sampling Techniques, 1977, section 6.3.

    >>> pooled([1.0, 3.0], [10.0, 10.0])
    (0.2, 0.1)
    """
    count, total = len(errors), math.fsum(references)
    ratio = math.fsum(errors) / total
    left = math.fsum(np.square(np.asarray(errors) - ratio * np.asarray(references)).tolist())
    return ratio, math.sqrt(left * count / max(1, count - 1)) / total


def median(values: Sequence[float]) -> Statistic:
    """The median of n values, and its bootstrap standard error in closed form.

    The median of n values that are drawn with replacement is the k-th smallest of them with probability
    w_k = I(k / n) - I((k - 1) / n), I the regularised incomplete beta function of ((n + 1) / 2, (n + 1) / 2); the
    standard error is sqrt(sum w_k x_k^2 - (sum w_k x_k)^2). Exact for an odd n.
    Source: Maritz and Jarrett, A note on estimating the variance of the sample median, JASA 1978.

    >>> centre, error = median([1.0, 2.0, 3.0])
    >>> centre, round(error**2, 6) == round(14 / 27, 6)
    (2.0, True)
    """
    from scipy.special import betainc

    x = np.sort(np.asarray(values, dtype=float))
    half = (len(x) + 1) / 2
    weights = np.diff(betainc(half, half, np.linspace(0, 1, len(x) + 1)))
    centre = float(weights @ x)
    return float(np.median(x)), math.sqrt(max(0.0, float(weights @ (x - centre) ** 2)))
