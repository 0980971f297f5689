"""Export trained weights for other programs, and check the export against the network.

    python tools/export.py --weights runs/s6/best.safetensors --format onnx --out s6.onnx
    python tools/export.py --weights official.pkl --format safetensors --pictures DIR

Any batch, height and width go through the exported network. It is run on random pictures, on a generated scene and
on --pictures, and every plane must agree with the source network within 1e-4 of the plane's largest value: else
the export fails, and the file is removed. What a picture's grey levels must go through, and what the outputs
mean, stands in the file's metadata (metadata_props in ONNX, metadata.json in a .pt2 file).

ONNX needs `pip install 'unfoldkit[export]'`.
"""

from unfoldkit.common.console import described_parser, one_line_errors
from unfoldkit.rpcanet.inference.options import Export


def main() -> None:
    parser = described_parser("export.py", __doc__)
    parser.add_class_arguments(Export, skip={"pictures"})
    parser.add_argument(
        "--pictures",
        "--pictures+",
        nargs="+",
        action="extend",
        type=str,
        default=[],
        help="pictures, or folders of them, on which the export is checked, too, at their own size",
    )
    options = Export(**parser.parse_args().as_dict())
    with one_line_errors("export.py"):
        from unfoldkit.rpcanet.inference.checked_export import export_weights

        out, largest = export_weights(options)
        print(f"{out}: agrees with {options.weights} within {largest:.1e} of each plane's largest value")


if __name__ == "__main__":
    main()
