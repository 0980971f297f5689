"""Spectral efficiency against pilots spent, with the phases of a surface set by the estimate."""

import json
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

from unfoldkit.tools.benchmarks.timing import setting


def run(
    patterns: Sequence[int],
    snr: float,
    bits: int,
    coherence: int,
    trials: int,
    seed: int,
    json_path: str | None,
) -> int:
    """Sweep, print a table, and write the file `json_path`."""
    import torch

    from unfoldkit.common.files import write_whole
    from unfoldkit.sbl import AMKroSBL, Estimate, KroneckerOMP, LeastSquares, PCKroSBL, SVDKroSBL
    from unfoldkit.sbl.systems import IRSMIMO
    from unfoldkit.sbl.systems.pilot_sweep import rates_by_pilots

    torch.set_num_threads(1)
    estimators: dict[str, Callable[..., Estimate]] = {
        "LS": LeastSquares(),
        "KOMP": KroneckerOMP(),
        "SVD": SVDKroSBL(),
        "AM": AMKroSBL(),
        "PC0.8": PCKroSBL(0.8, coupled=(0, 2)),
    }
    system = IRSMIMO()
    rates = rates_by_pilots(system, estimators, patterns, snr, coherence, bits, trials, seed)
    table = Table("estimator", *(f"{count * system.pilots} pilots" for count in patterns))
    for name, row in rates.items():
        table.add_row(name, *(f"{value:.2f}" for value in row))
    Console().print(table)
    if json_path:
        about = {"snr": snr, "bits": bits, "coherence": coherence, "trials": trials, "seed": seed}
        pilots = [count * system.pilots for count in patterns]
        content = {"setting": setting("cpu"), **about, "pilots": pilots, "rates": rates}
        write_whole(json_path, json.dumps(content, indent=2) + "\n")
    return 0
