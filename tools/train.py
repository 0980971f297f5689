"""Train RPCANet, RPCANet++ or LowRankRPCANet on a data set.

    python tools/train.py --config tools/configs/sirst.yaml --network.stages 6 --data.root DIR
    python tools/train.py --config runs/train/config.yaml --resume
    torchrun --nproc-per-node 2 tools/train.py --config tools/configs/sirst.yaml --data.root DIR

A configuration file is a recipe, tools/configs/ has one for each data set; every option of it can also be
given on the command line, after the file, to override it; what neither gives is as the data set is published.
In the folder --out the run leaves

    config.yaml                         the whole configuration
    best.safetensors, last.safetensors  weights for evaluate.py and predict.py, best by the validation
                                        pictures' IoU at logit 0
    checkpoints/best.ckpt, last.ckpt    all that --resume needs; SIGTERM and Ctrl-C save last.ckpt, too
    run.json                            what the looks at the validation pictures found, seconds and device
    tensorboard/                        losses, metrics, curves, pictures and stages: tensorboard --logdir runs
"""

from jsonargparse import ArgumentParser, Namespace

from unfoldkit.common.configuration import configured, run_parser
from unfoldkit.common.console import one_line_errors
from unfoldkit.rpcanet.training.configuration import Configuration, settled


def parser() -> ArgumentParser:
    return run_parser("train.py", __doc__, Configuration, "tools/configs/*.yaml", "runs/train")


def configuration_from(options: Namespace) -> Configuration:
    """The configuration of these options, with what they leave open as the data set's record has it."""
    return settled(configured(Configuration, options))


def main() -> None:
    options = parser().parse_args()
    with one_line_errors("train.py"):
        from unfoldkit.rpcanet.training.run import train

        train(configuration_from(options), options.out, options.resume)


if __name__ == "__main__":
    main()
