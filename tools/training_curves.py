"""Draw the curves of training runs from what they logged for TensorBoard.

    python tools/training_curves.py runs/neu_seg_s6 --metric iou --out curves.png

The left axes show the training loss, a running mean over an epoch; the right axes the validation metric after each
epoch, with what papers state as dashed lines if --published gives it: --published "RPCANet++ S6=0.8032".
"""

from pathlib import Path

from unfoldkit.common.console import described_parser, one_line_errors


def stated(values: list[str]) -> dict[str, float]:
    try:
        return {name: float(value) for name, value in (text.rsplit("=", 1) for text in values)}
    except ValueError:
        raise ValueError(f"--published must be NAME=NUMBER, got {' '.join(values)}") from None


def main() -> None:
    parser = described_parser("training_curves.py", __doc__)
    parser.add_argument("runs", nargs="+", help="folders that tools/train.py left")
    parser.add_argument(
        "--metric", type=str, default="iou", help="a validation metric, such as iou, f1 or pd"
    )
    parser.add_argument("--published", nargs="*", type=str, default=[], help="NAME=VALUE of dashed lines")
    parser.add_argument("--out", type=str, default="curves.png", help="the picture")
    options = parser.parse_args()
    with one_line_errors("training_curves.py"):
        from unfoldkit.rpcanet.training.curves import draw_curves, read_curves

        runs = {Path(run).name: read_curves(Path(run), options.metric) for run in options.runs}
        draw_curves(runs, options.metric, stated(options.published), Path(options.out))
        print(options.out)


if __name__ == "__main__":
    main()
