"""Evaluate trained weights on a data set, by one of the published protocols.

    python tools/evaluate.py --weights runs/train/best.safetensors --dataset synthetic
    python tools/evaluate.py --weights RPCANet.pkl --dataset sirst --root DIR --protocol overlap --json sirst.json
    python tools/evaluate.py --method ipi --dataset sirst --root DIR
    python tools/evaluate.py --predictions MASKS/ --dataset sirst --root DIR --csv pictures.csv --curve curve.csv

Weights that carry their preprocessing keep it; official ones take that of the data set they are evaluated on.
Saved predictions are compared with masks at the size of that data set (--size 0: their own). Prints a table.

--json writes the same numbers as fractions, such as iou, f1, pd, fa (null where one is undefined, such as pd
without any target), beside the settings they were measured with, the network, the time in seconds and, of
pictures of more than 8 bits, the levels that became 0 and 255; tools/results_table.py makes tables of such files.
--csv writes each picture's numbers, --curve IoU, Pd and Fa over thresholds with a picture beside it.
"""

from pathlib import Path

from unfoldkit.common.console import described_parser, one_line_errors
from unfoldkit.common.files import require_distinct
from unfoldkit.rpcanet.inference.options import Evaluation, curve_picture
from unfoldkit.rpcanet.names import LABELS, UNITS


def show(values: dict[str, float | None], title: str) -> None:
    """The numbers as a table, fractions in percent and the false-alarm rate in 1e-5."""
    from rich.console import Console
    from rich.table import Table

    table = Table("metric", "value", "unit")
    for name, value in values.items():
        scale, unit = UNITS.get(name, (100, "%"))
        table.add_row(LABELS.get(name, name), "undefined" if value is None else f"{scale * value:.4g}", unit)
    Console().print(f"\n{title}", table, sep="\n", highlight=False)


def require_outputs(options: Evaluation) -> None:
    """ValueError where one of the files to write would overwrite another, or is a folder."""
    outputs: dict[str, str | Path | None] = {
        f"--{name}": getattr(options, name) for name in ("json", "csv", "curve")
    }
    if options.curve is not None:
        outputs["the picture of --curve"] = curve_picture(options.curve)
    require_distinct(outputs)


def main() -> None:
    parser = described_parser("evaluate.py", __doc__)
    parser.add_class_arguments(Evaluation, skip={"skip_bad", "keep_empty"})
    parser.add_argument(
        "--skip_bad", "--skip-bad", action="store_true", help="leave out bad pictures and list them"
    )
    parser.add_argument(
        "--keep_empty",
        "--keep-empty",
        action="store_true",
        default=None,
        help="take masks without any object; by default where they belong to the data set",
    )
    options = Evaluation(**parser.parse_args().as_dict())
    with one_line_errors("evaluate.py"):
        from unfoldkit.rpcanet.inference.data_set import evaluate_data_set
        from unfoldkit.rpcanet.metrics.rows import write_csv

        require_outputs(options)
        evaluated = evaluate_data_set(options)
        used = evaluated.settings
        source = used.weights or used.method or used.predictions
        print("\n".join(evaluated.assumptions))
        show(evaluated.values, f"{source} on {used.dataset}/{used.split}, protocol {used.protocol}")
        if options.json is not None:
            evaluated.write_json(options.json)
        if options.csv is not None:
            write_csv(options.csv, evaluated.rows)
        if options.curve is not None:
            evaluated.write_curve(options.curve)


if __name__ == "__main__":
    main()
