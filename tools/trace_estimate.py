"""Watch sparse channel estimation happen on one random problem, iteration by iteration.

  python tools/trace_estimate.py synthetic --estimators SVD,AM,PC0.8 --snr 20 --out runs/trace
  python tools/trace_estimate.py irs --estimators SVD,AM,PC0.8,classic --snr 12 --trial 3 --out runs/trace_irs
  tensorboard --logdir runs/trace

The problem is the one of that number in a run of tools/simulate.py with the same seed and sizes. Writes into --out
report.html (one page that needs no network), figures/*.png, trace.json, trace.mat, and tensorboard/ with a run for
each estimator: NMSE, cost, change and noise variance against the iteration, the prior variances of each factor as
heat maps over the iterations, the true against the estimated support, and pictures of the channel.
"""

from unfoldkit.common.configuration import run_with_options
from unfoldkit.sbl.simulation.options import IRSOptions, SyntheticOptions
from unfoldkit.sbl.simulation.trace_problem import trace_problem

EXPERIMENTS = {kind.name: (kind, kind.traced) for kind in (SyntheticOptions, IRSOptions)}


def main(arguments: list[str] | None = None) -> None:
    traced = run_with_options(
        "trace_estimate.py", __doc__, trace_problem, EXPERIMENTS, arguments, left_out=["first_rows"]
    )
    print(f"{traced.report} written; tensorboard --logdir {traced.report.parent}")


if __name__ == "__main__":
    main()
