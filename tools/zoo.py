"""List the weights that come with the package, or let new ones join them.

    python tools/zoo.py
    python tools/zoo.py --add runs/nudt/best.safetensors --name rpcanet++-s3-nudt_sirst --dataset nudt_sirst
        --root DIR --licence TEXT --training COMMAND --limits TEXT

Every command takes them as --weights zoo:NAME, Python as rpcanet.pretrained(NETWORK, DATA_SET). --add evaluates
weights on the data set's test pictures by its protocol, as they are and in float16, keeps them in float16 where
that changes IoU by less than 0.05 points, and writes them with their card, which results_table.py puts into
docs/segmentation/weights.md.
"""

from unfoldkit.common.console import described_parser, one_line_errors

OPTIONS = {
    "name": "NETWORK-DATA_SET, such as rpcanet++-s3-nudt_sirst",
    "dataset": "what the weights were trained on, and are evaluated on",
    "root": "the data set's folder",
    "licence": "of the pictures that they learnt from",
    "training": "the command that trained them",
    "limits": "what they should not be used for",
}


def main() -> None:
    parser = described_parser("zoo.py", __doc__)
    parser.add_argument("--add", type=str, help="weights file that joins")
    parser.add_argument("--device", type=str, default="cpu", help="to evaluate on: cpu, cuda, ...")
    for option, text in OPTIONS.items():
        parser.add_argument(f"--{option}", type=str, default="", help=text)
    options = parser.parse_args()
    with one_line_errors("zoo.py"):
        from unfoldkit.rpcanet.inference.options import Evaluation
        from unfoldkit.rpcanet.zoo import cards

        if options.add:
            evaluation = Evaluation(options.dataset, root=options.root or None, device=options.device)
            texts = (options.licence, options.training, options.limits)
            print(cards.add(options.add, options.name, evaluation, *texts))
        else:
            print(cards.listed())


if __name__ == "__main__":
    main()
