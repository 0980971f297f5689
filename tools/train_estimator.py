"""Train an unfolded KroSBL on simulated channels of the IRS-aided uplink.

    python tools/train_estimator.py --config tools/configs/unfolded_irs.yaml --out runs/unfolded
    python tools/train_estimator.py --config runs/unfolded/config.yaml --out runs/unfolded --resume
    python tools/simulate.py irs --estimators PC0.8,Unfolded:runs/unfolded/best.safetensors --fresh_training true

Every step draws fresh channels, pilots, patterns, noise and SNRs. In the folder --out the run leaves

    config.yaml                         the whole configuration
    best.safetensors, last.safetensors  weights for simulate.py, best by the NMSE of the validation channels
    checkpoints/best.ckpt, last.ckpt    all that --resume needs
    tensorboard/                        loss and NMSE at every validation SNR: tensorboard --logdir runs
"""

from jsonargparse import ArgumentParser, Namespace

from unfoldkit.common.configuration import configured, run_parser
from unfoldkit.common.console import one_line_errors
from unfoldkit.sbl.training.configuration import EstimatorConfiguration
from unfoldkit.sbl.training.train_estimator import train_estimator


def parser() -> ArgumentParser:
    example = "tools/configs/unfolded_irs.yaml"
    return run_parser("train_estimator.py", __doc__, EstimatorConfiguration, example, "runs/unfolded")


def configuration_from(options: Namespace) -> EstimatorConfiguration:
    return configured(EstimatorConfiguration, options)


def main(arguments: list[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    with one_line_errors("train_estimator.py"):
        train_estimator(configuration_from(options), options.out, options.resume)


if __name__ == "__main__":
    main()
