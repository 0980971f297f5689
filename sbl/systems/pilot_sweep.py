"""Rate against pilots spent: a surface set by the estimate that so many pilots allow."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from ..estimate import Estimate
from .irs_mimo import IRSMIMO
from .observation import observe
from .surface import element_channels, rate_after_pilots

KNOWN = "known"


def rates_by_pilots(
    system: IRSMIMO,
    estimators: Mapping[str, Callable[..., Estimate]],
    patterns: Sequence[int],
    snr_db: float,
    coherence: int,
    bits: int | None = None,
    trials: int = 100,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Mean `rate_after_pilots` of each estimator's phases, (len(patterns),), and of the known channel's, `known`.

    patterns: numbers of the surface's patterns, each seen for `system.pilots` symbols; `known` spends none.
    snr_db: of a pilot symbol, and of the data at the mean channel through one element. All see the same channels.

    Raises ValueError where no number of patterns is given, or more pilots than `coherence` symbols.

    >>> from unfoldkit.sbl import LeastSquares
    >>> system = IRSMIMO(bs=4, ms=2, irs=8, grid=5, pilots=2)
    >>> rates = rates_by_pilots(system, {"LS": LeastSquares()}, [2, 40], 10.0, 100, trials=5)
    >>> sorted(rates), rates["known"][0] > max(rates["LS"])
    (['LS', 'known'], True)
    """
    if not patterns:
        raise ValueError("patterns must name at least one number of them")
    generators = [torch.Generator().manual_seed(seed + trial) for trial in range(trials)]
    channel = system.draw_channels(generators)
    true = torch.einsum("zbs,zsm->zsbm", channel.to_bs, channel.to_irs)
    snr = 10 ** (snr_db / 10) / true.abs().square().sum((-2, -1)).mean()
    known = rate_after_pilots(true, true, snr, bits, 0, coherence).mean()
    rates: dict[str, list[float]] = {name: [] for name in estimators}
    for count in patterns:
        sized = replace(system, patterns=count)
        training = sized.draw_training(torch.Generator().manual_seed(seed))
        noise = torch.stack([sized.draw_noise(g) for g in generators])
        y, s2 = observe(sized.received(channel, training), noise, snr_db)
        for name, estimator in estimators.items():
            found = element_channels(sized, estimator(sized.factors(training), y, s2).mean)
            spent = rate_after_pilots(true, found, snr, bits, count * system.pilots, coherence)
            rates[name].append(float(spent.mean()))
    return rates | {KNOWN: [float(known)] * len(patterns)}
