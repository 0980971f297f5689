"""The options of each subject of `tools/benchmark.py`, and the call that they make; nothing heavy is imported."""

import argparse
from collections.abc import Callable
from typing import Any, TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def subject(
    commands: Commands, name: str, help: str, description: str, run: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    """The parser of a subject, which can write its results to a file."""
    parser = commands.add_parser(name, help=help, description=description)
    parser.add_argument("--json", metavar="FILE", help="also write the results to FILE")
    parser.set_defaults(run=run)
    return parser


def particular(options: argparse.Namespace) -> dict[str, Any]:
    """The options that a subject alone has."""
    return {name: value for name, value in vars(options).items() if name not in ("command", "run", "json")}


def positive(text: str) -> int:
    """A whole number, 1 or more."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def rounds(parser: argparse.ArgumentParser, default: int, of: str = "") -> None:
    parser.add_argument(
        "--rounds", type=positive, default=default, help=f"timed rounds{of} (default: %(default)s)"
    )


def only(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--only", nargs="+", metavar="WORD", help=text)


def device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")


def each_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cpu, and cuda where there is one")


def kernels(commands: Commands) -> None:
    parser = subject(
        commands,
        "kernels",
        "every numerical operation against the obvious call",
        "Time each operation of kernels/ against the call it replaces (torch.linalg, numpy, F.conv2d, "
        "unfused proximal steps), alternating the two, and check both against float64 in the same run. "
        "A ratio above 1 means that this toolkit is faster; it is the median over rounds of the ratio "
        "within a round. Errors are relative to the norm of the float64 result.",
        run_kernels,
    )
    each_device(parser)
    rounds(parser, 7, " a case")
    only(parser, "only cases whose name holds one of these words")


def run_kernels(options: argparse.Namespace) -> int:
    from .kernels import run

    return run(options.device, options.rounds, options.only, options.json)


def estimators(commands: Commands) -> None:
    parser = subject(
        commands,
        "estimators",
        "both channel-estimation experiments, a single solve, and large problems",
        "Time the estimators of sbl/. On a CPU: the paper's two experiments as `simulate.py` runs them, one "
        "unbatched solve, the cost per trial of growing batches, and four large factors in float32. On a "
        "GPU: 5,000 trials of the IRS experiment, and 10,000 in one call against one.",
        run_estimators,
    )
    rounds(parser, 5, " of short cases")
    only(parser, "of irs, synthetic, single, batch, large, huge (default: all)")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="cpu or cuda (default: %(default)s)"
    )


def run_estimators(options: argparse.Namespace) -> int:
    from .estimators import run

    return run(options.only, options.rounds, options.json, options.device)


def ofdm(commands: Commands) -> None:
    parser = subject(
        commands,
        "ofdm",
        "KroSBLChannelEstimator against Sionna's LS and LMMSE on 3GPP's urban microcells",
        "NMSE, honesty of the error variance, uncoded QPSK bit error rate and core seconds a user of the "
        "channel estimators, on drops of TR 38.901 UMi: 4 users of one antenna, 16 antennas, 14 symbols x 624 "
        "subcarriers of 30 kHz, pilots on symbols 2 and 11, SNR = 1 / N0. LMMSE takes its covariances from "
        "other drops. Needs the extra unfoldkit[sionna].",
        run_ofdm,
    )
    parser.add_argument("--drops", type=positive, default=200, help="of four users (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=20_000, help="of the first drop (default: %(default)s)")
    parser.add_argument("--covariance_drops", type=positive, default=600, help="(default: %(default)s)")
    parser.add_argument(
        "--detected", type=int, default=20, help="drops with bit errors (default: %(default)s)"
    )
    parser.add_argument("--snr", type=float, nargs="+", default=[-10.0, 0.0, 10.0], metavar="DB")
    parser.add_argument("--speed", type=float, default=0.83, help="metres a second (default: %(default)s)")
    parser.add_argument(
        "--dual", action="store_true", help="2 x 4 positions of two polarisations, not 4 x 4 of one"
    )
    parser.add_argument(
        "--orders",
        nargs="+",
        default=["f-t-s", "t-f-s"],
        help="of LMMSE's passes over frequency, time and space (default: f-t-s t-f-s); t-s-f and s-t-f keep "
        "2.8 GB of filters an SNR",
    )
    parser.add_argument("--processes", type=positive, default=1, help="of one thread (default: %(default)s)")
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="cuda: only KroSBL's NMSE and time a user, all drops at once (default: %(default)s)",
    )


def run_ofdm(options: argparse.Namespace) -> int:
    from .ofdm import run

    return run(json_path=options.json, **particular(options))


def surface(commands: Commands) -> None:
    parser = subject(
        commands,
        "surface",
        "spectral efficiency against pilots spent, phases of a surface set by the estimate",
        "On the paper's uplink through an intelligent surface: the rate in bits a second and hertz, with the "
        "surface's phases optimised for what each estimator makes of so many pilots, less the share of the "
        "coherence interval that they take.",
        run_surface,
    )
    parser.add_argument("--patterns", type=positive, nargs="+", default=[1, 2, 4, 6, 10, 18, 34, 66])
    parser.add_argument("--snr", type=float, default=5.0, help="in dB (default: %(default)s)")
    parser.add_argument("--bits", type=positive, default=2, help="of a phase (default: %(default)s)")
    parser.add_argument("--coherence", type=positive, default=300, help="symbols (default: %(default)s)")
    parser.add_argument("--trials", type=positive, default=100, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=2026, help="(default: %(default)s)")


def run_surface(options: argparse.Namespace) -> int:
    from .surface import run

    return run(json_path=options.json, **particular(options))


def networks(commands: Commands) -> None:
    parser = subject(
        commands,
        "networks",
        "the networks in inference and training against a layer-by-layer form",
        "Time RPCANet, RPCANet++ (S3, S6, S9), DRPCA-Net and L-RPCANet against the same networks built one "
        "layer at a time from nn.Conv2d and nn.BatchNorm2d, in float32 as PyTorch lays it out by default, "
        "with equal weights, alternating the two. For each form it prints how many times faster it is "
        "(median over rounds of the ratio within a round), the times (on a GPU the device's, and in inference "
        "also from pictures in the host's memory to probabilities there), peak memory, the plain network's "
        "operations a second against a measured matrix product, and the largest relative difference: of B, "
        "O and D in inference, of all gradients together in a training step. Everything, on a CPU, takes "
        "hours: choose with the options below.",
        run_networks,
    )
    device(parser)
    rounds(parser, 5, " a form")
    for name, values, kind in (
        ("networks", ("RPCANet", "S3", "S6", "S9", "DRPCA-Net", "L-RPCANet"), str),
        ("sizes", (256, 512, 1024), int),
        ("batches", (1, 8, 32), int),
        ("what", ("inference", "training"), str),
    ):
        text = ", ".join(map(str, values))
        parser.add_argument(
            f"--{name}",
            nargs="+",
            type=kind,
            default=values,
            choices=values if kind is str else None,
            metavar=name.upper().rstrip("S"),
            help=f"default: {text}",
        )
    parser.add_argument(
        "--forms",
        nargs="+",
        metavar="FORM",
        choices=("float32", "bfloat16", "float32-checkpointed", "float32-compiled", "bfloat16-compiled"),
        help="of %(choices)s (default: all)",
    )


def run_networks(options: argparse.Namespace) -> int:
    from .networks import run

    cases = (list(options.networks), list(options.sizes), list(options.batches), list(options.what))
    return run(options.device, options.rounds, *cases, options.forms, options.json)


def epoch(commands: Commands) -> None:
    parser = subject(
        commands,
        "epoch",
        "whole epochs of training, and the share of them in which the GPU idles",
        "Train networks as tools/train.py does, on SIRST or on as many generated pictures, and time epochs "
        "from start to start, validation, metrics, logs and checkpoints included: the first, and the median "
        "of those after the second. In the second the seconds of all GPU kernels are added up; the rest is "
        "idle.",
        run_epoch,
    )
    device(parser)
    parser.add_argument("--networks", nargs="+", default=["S3"], metavar="NETWORK", help="default: S3")
    parser.add_argument("--data", metavar="DIR", help="the folder of SIRST (default: generated pictures)")
    parser.add_argument("--size", type=positive, default=256, help="of pictures (default: %(default)s)")
    parser.add_argument("--batch", type=positive, default=8, help="pictures a step (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=7, help="at least 4 (default: %(default)s)")
    parser.add_argument(
        "--precision", default="bf16-mixed", help="of --machine.precision (default: %(default)s)"
    )


def run_epoch(options: argparse.Namespace) -> int:
    from .epochs import run

    if options.epochs < 4:
        raise SystemExit(f"benchmark.py epoch: --epochs must be at least 4, got {options.epochs}")
    pictures = (options.networks, options.size, options.batch, options.data)
    return run(options.device, *pictures, options.precision, options.epochs, options.json)


def family(commands: Commands) -> None:
    parser = subject(
        commands,
        "family",
        "all networks in one table: parameters, operations, time a picture, published IoU",
        "For each network its parameters, the floating-point operations of its convolutions and products on a "
        "256x256 picture, the time that its inference form takes for one in float32 on the CPU and, where "
        "there is one, on the GPU (median over rounds in which the networks take turns), and the IoU that "
        "its paper states for four infrared sets (tools/results/published.json).",
        run_family,
    )
    rounds(parser, 7)


def run_family(options: argparse.Namespace) -> int:
    from .family import run

    return run(options.rounds, options.json)


def classical(commands: Commands) -> None:
    parser = subject(
        commands,
        "classical",
        "principal component pursuit against the decompositions that it takes",
        "Recover a random 500x500 matrix of rank 5 from 5 % of gross errors, and compare the time with that "
        "of as many calls of torch.linalg.svd as it took iterations, alternating the two.",
        run_classical,
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="cpu or cuda (default: %(default)s)"
    )
    rounds(parser, 5)


def run_classical(options: argparse.Namespace) -> int:
    from .classical import run

    return run(options.device, options.rounds, options.json)


def compression(commands: Commands) -> None:
    parser = subject(
        commands,
        "compression",
        "compressed networks: parameters, IoU, time a picture, and a figure of them",
        "Of each weights file the parameters, the time that its inference form takes for a picture of 256x256 in "
        "float32, without TF32, on the CPU and, where there is one, on the GPU (median over rounds in which the "
        "networks take turns), and with --dataset the IoU of the test pictures. --figure draws IoU against all "
        "three, data set by data set, from files that --json wrote, such as one of each machine; networks called "
        "METHOD SIZE are a curve of their method.",
        run_compression,
    )
    parser.add_argument(
        "weights", nargs="*", metavar="NAME=FILE", help="such as 'separable 0.5=half.safetensors'"
    )
    each_device(parser)
    parser.add_argument("--dataset", help="whose test pictures to evaluate on")
    parser.add_argument("--root", help="the data set's folder")
    parser.add_argument("--times-alone", action="store_true", help="do not evaluate")
    parser.add_argument("--figure", metavar="PNG", help="draw the files of --results instead")
    parser.add_argument("--results", nargs="+", default=[], metavar="JSON", help="what --json wrote")
    rounds(parser, 7)


def run_compression(options: argparse.Namespace) -> int:
    from .compression import draw, measure

    if options.figure:
        return draw(options.results, options.figure)
    return measure(
        options.weights,
        options.device,
        options.dataset,
        options.root,
        options.times_alone,
        options.rounds,
        options.json,
    )


SUBJECTS = (kernels, estimators, ofdm, surface, networks, epoch, family, classical, compression)
