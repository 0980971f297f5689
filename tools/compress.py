"""Make trained weights smaller, and faster where their form allows it.

    python tools/compress.py --weights runs/s3/best.safetensors --method separable --size 0.5 --pictures DIR
    python tools/train.py --config tools/configs/nudt_sirst.yaml --data.root DIR --recipe.epochs 80
        --network.init best-separable-0.5.safetensors --out runs/half
    python tools/evaluate.py --weights runs/half/last.safetensors --dataset nudt_sirst --root DIR

Windows, 3x3 layers and gates become products: of a vertical and a horizontal convolution (separable), of two in
groups (monarch), of a dictionary and sparse coefficients (dictionary), or low rank plus sparse. --pictures, some
that the network was trained on, say which errors matter to separable and dictionary: give them. The result is a
weights file as any other: train it on for about a tenth of its training, as above, then evaluate, predict, export.

Prints for each layer its parameters, its multiplications a pixel and the relative error of its output.
"""

from typing import TYPE_CHECKING

from unfoldkit.common.console import described_parser, one_line_errors
from unfoldkit.rpcanet.compression.options import Compression

if TYPE_CHECKING:
    from unfoldkit.rpcanet import Compressed


def main() -> None:
    parser = described_parser("compress.py", __doc__)
    parser.add_class_arguments(Compression)
    options = Compression(**parser.parse_args().as_dict())
    with one_line_errors("compress.py"):
        from unfoldkit.rpcanet.compression.command import compress_weights

        out, made = compress_weights(options)
        show(made)
        share = made.parameters / made.parameters_before
        print(f"{out}: {made.parameters} of {made.parameters_before} parameters ({100 * share:.1f} %)")


def show(made: "Compressed") -> None:
    """The layers as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table("layer", "parameters", "multiplications", "error")
    table.columns[0].no_wrap = True
    for layer in made.layers:
        table.add_row(
            layer.name,
            f"{layer.parameters} -> {layer.parameters_after}",
            f"{layer.operations} -> {layer.operations_after}",
            f"{100 * layer.error:.1f} %",
        )
    Console().print(table, highlight=False)


if __name__ == "__main__":
    main()
