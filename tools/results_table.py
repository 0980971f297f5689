"""Write the tables of results from the JSON files that evaluate.py and benchmark.py leave in tools/results.

    python tools/evaluate.py --method ipi --dataset sirst --root DIR --json tools/results/2026-11-23-sirst-ipi.json
    python tools/benchmark.py kernels --json tools/results/2026-11-26-kernels-epyc.json
    python tools/results_table.py --write docs/results.md
    python tools/results_table.py --write README.md

One table for each data set: what was measured here (the file's settings make the command of the last column),
what the papers state (tools/results/published.json), and a line on what was not run; those of channel estimation;
those of speed, one for each file (kernels, networks, family, estimators, classical); those of
tools/results/records; the README's lines of results; and the cards of docs/segmentation/weights.md. Without
--write they are printed; with it those that the document has marks for replace what lies between the two. Nothing
in them is typed.
"""

from unfoldkit.tools.benchmarks.result_tables import everything
from unfoldkit.tools.benchmarks.tables import publish


def main() -> None:
    publish("results_table.py", __doc__, everything)


if __name__ == "__main__":
    main()
