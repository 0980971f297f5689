"""Monte-Carlo experiments of sparse channel estimation.

  python tools/simulate.py synthetic --estimators SVD,AM,KSBL,KOMP,OLS --trials 200 --out runs/synthetic
  python tools/simulate.py irs --estimators SVD,AM,PC0.8,PC0.5 --trials 50 --out runs/irs
  python tools/simulate.py ofdm --config tools/configs/mimo_ofdm_chest.yaml --out runs/mimo_ofdm_chest
  python tools/simulate.py irs --trials 5000 --device cuda --out runs/irs_5000

Writes into --out: results.csv and results.json (per point: means, pooled and median NMSE, outages, standard errors
of all, trials, seconds, settings, seed), one PNG for each metric and one of the NMSE's distribution, and the same
for TensorBoard. Finished shards are kept in --out/shards: the same command continues an interrupted run, and a
finished run can be given more trials, points or estimators.
"""

from unfoldkit.common.configuration import run_with_options
from unfoldkit.sbl.simulation.ofdm_options import OFDMOptions
from unfoldkit.sbl.simulation.options import IRSOptions, SyntheticOptions
from unfoldkit.sbl.simulation.simulate import simulate

EXPERIMENTS = {kind.name: (kind, kind.simulated) for kind in (SyntheticOptions, IRSOptions, OFDMOptions)}


def main(arguments: list[str] | None = None) -> None:
    run_with_options("simulate.py", __doc__, simulate, EXPERIMENTS, arguments)


if __name__ == "__main__":
    main()
