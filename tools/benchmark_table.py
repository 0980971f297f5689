"""Write the tables of speed from the JSON files that benchmark.py leaves in tools/results.

    python tools/benchmark.py kernels --json tools/results/2026-11-26-kernels-epyc.json
    python tools/benchmark_table.py --write docs/results.md

One table for each file, gathered by what was measured: kernels, networks, family, estimators,
classical. Without --write
they are printed; with it those of a subject replace what lies between its two marks. Nothing in them is typed.
"""

from unfoldkit.tools.benchmarks.speed_tables import SUBJECTS, marks, tables
from unfoldkit.tools.benchmarks.tables import publish


def main() -> None:
    publish(
        "benchmark_table.py",
        __doc__,
        lambda folder: {marks(subject): tables(subject, folder) for subject in SUBJECTS},
    )


if __name__ == "__main__":
    main()
