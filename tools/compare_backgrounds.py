"""How low-rank the backgrounds of trained networks are, and what they cost.

    python tools/compare_backgrounds.py runs/a/best.safetensors runs/b/best.safetensors --dataset sirst --root DIR

Prints for each network its parameters, the IoU, the effective rank of max(B_k, 0) at every stage (mean over
pictures, the pictures' own before it) and the milliseconds a picture in the trained form. The effective rank is
exp(-sum p_i log p_i) of the shares p_i of the singular values (Roy and Vetterli, 2007): 1 for a rank-one picture.
Beside them stand the rank of the background that `rpcanet.exact_parts` makes of the same objects, and how far
background and object are from adding up to the picture, the network's own and these.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from unfoldkit.common.console import described_parser, one_line_errors
from unfoldkit.datasets.names import DataSetName

if TYPE_CHECKING:
    from unfoldkit.rpcanet.inside.backgrounds import Backgrounds


def shown(row: "Backgrounds") -> str:
    picture, *stages, exact = (f"{rank:.1f}" for rank in row.ranks)
    own, added_up = (f"{residual:.3g}" for residual in row.residuals)
    return (
        f"{row.name}: {row.parameters} parameters, IoU {100 * row.iou:.2f}, effective rank {picture} of the "
        f"picture, {' '.join(stages)} of B_1 ... B_K, {exact} of the exact background, "
        f"|D - B - O| / |D| {own} and {added_up}, {row.milliseconds:.1f} ms a picture"
    )


def main() -> None:
    parser = described_parser("compare_backgrounds.py", __doc__)
    parser.add_argument("weights", nargs="+", type=Path, help="files of train.py")
    parser.add_argument(
        "--dataset", type=DataSetName, default="synthetic", help="whose test split to measure on"
    )
    parser.add_argument("--root", type=str, help="the data set's folder")
    parser.add_argument("--count", type=int, help="generated scenes (synthetic only; 80 by default)")
    parser.add_argument("--panel", type=Path, help="picture to write: input, B_K, exact background")
    options = parser.parse_args()
    with one_line_errors("compare_backgrounds.py"):
        from unfoldkit.rpcanet.inference.prediction import write_picture
        from unfoldkit.rpcanet.inside.backgrounds import measure_backgrounds

        if options.count is not None and options.dataset != "synthetic":
            raise ValueError(
                f"--count is not read beside --dataset {options.dataset}: leave it out, got {options.count}"
            )
        for weights in options.weights:
            row = measure_backgrounds(weights, options.dataset, options.root, options.count)
            print(shown(row), flush=True)
        if options.panel is not None:
            write_picture(options.panel, (255 * row.panel).byte().permute(1, 2, 0).numpy())


if __name__ == "__main__":
    main()
