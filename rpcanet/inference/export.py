"""Networks for other programs: ONNX and torch.export, of any batch, height and width."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from unfoldkit.common.files import write_whole

from ..modules.dcpm import FoldedWindow
from ..networks.low_rank_rpcanet import LowRankRPCANet
from ..networks.unfolding import UnfoldedNetwork
from ..networks.weights import load_weights, name_of, processing, save_weights
from .fast import optimize

OPSET = 20
Format = Literal["onnx", "torch-export", "safetensors"]
PLANES = ("background", "object", "restoration")
Run = Callable[[Tensor], tuple[Tensor, ...]]


def export(
    net: UnfoldedNetwork, path: str | Path, format: Format, training: dict[str, Any] | None = None
) -> None:
    """Write `net` in its inference form, batch norms folded, as a file that needs nothing of this package.

    format: "onnx" (opset 20), "torch-export" (a .pt2 program for `torch.export.load` and AOTInductor), or
        "safetensors" (this project's own weights file, as `save_weights` writes it).
    training: the configuration that the network was trained with, kept beside the weights.

    The program takes `image`, float32 (batch, 1, height, width) of any size, normalised, and returns
    `background`, `object` and `restoration` of that shape. Its metadata (`metadata_props` in ONNX, the extra file
    metadata.json of a .pt2) state network, architecture, preprocessing, postprocessing and training.

    Raises ValueError for another format, and for a LowRankRPCANet, whose singular value decompositions neither
    ONNX nor a graph without this package's operators can state, unless it goes to safetensors; ImportError where
    ONNX's packages are missing; OSError where the file cannot be written.

    >>> import tempfile
    >>> from unfoldkit.rpcanet import RPCANet
    >>> path, net = Path(tempfile.mkdtemp()) / "net.pt2", RPCANet(stages=1, channels=4).eval()
    >>> export(net, path, "torch-export")
    >>> largest_difference(net, exported(path, "torch-export"), torch.rand(1, 1, 21, 30)) < 1e-5
    True
    """
    if format not in get_args(Format):
        raise ValueError(f"format must be one of {', '.join(get_args(Format))}, got {format!r}")
    if format == "safetensors":
        save_weights(net, path, training)
        return
    if isinstance(net, LowRankRPCANet):
        raise ValueError(
            f"net is a LowRankRPCANet: its singular value decompositions cannot be exported to {format}; "
            "format safetensors can hold it"
        )
    training = training or {}
    about = {
        "network": name_of(net),
        "architecture": json.dumps(net.architecture),
        "training": json.dumps(training),
        **processing(net.mean, net.std, training),
    }
    write_whole(path, (_onnx if format == "onnx" else _program)(_traced(net), about))


def exported(path: str | Path, format: Format) -> Run:
    """The function that a file of `export` holds, from an image to its three planes, run on the CPU."""
    if format == "safetensors":
        net = load_weights(path)
        return lambda image: net(image)[:3]
    if format == "torch-export":
        module = torch.export.load(str(path)).module()
        return lambda image: module(image)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda image: tuple(map(torch.from_numpy, session.run(PLANES, {"image": image.numpy()})))


@torch.inference_mode()
def largest_difference(net: UnfoldedNetwork, run: Run, image: Tensor) -> float:
    """max |a - b| / max |b| over the planes a of `run` and b of `net`, NaN where any is; `net` as it stands."""
    pairs = zip(run(image), net(image)[:3], strict=True)
    return torch.stack([(a - b).abs().max() / b.abs().max() for a, b in pairs]).max().item()


class _Planes(nn.Module):
    """A network whose answer is a plain tuple."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        background, object_, restoration = self.net(image)[:3]
        return background, object_, restoration


def _traced(net: UnfoldedNetwork) -> torch.export.ExportedProgram:
    fast = optimize(net.cpu())
    for module in fast.modules():
        if isinstance(module, FoldedWindow):
            module.spectrum = None  # the graph convolves directly
    fast = fast.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # missing from torch's types
    sizes = {axis: torch.export.Dim(name) for axis, name in ((0, "batch"), (2, "height"), (3, "width"))}
    return torch.export.export(_Planes(fast), (torch.zeros(2, 1, 40, 48),), dynamic_shapes=(sizes,))


def _axis_by_axis(x: Tensor, dim: list[int], keepdim: bool = False) -> Tensor:
    """The mean over several axes, one by one: over a plane of 400x400 ONNX Runtime has it right to 2e-4 alone."""
    if len(dim) < 2:
        return NotImplemented
    for axis in sorted((axis % x.ndim for axis in dim), reverse=True):
        x = x.mean(axis, keepdim)
    return x


def _pooled(x: Tensor, size: list[int]) -> Tensor:
    """Likewise, of a pool of one pixel."""
    return _axis_by_axis(x, [-2, -1], keepdim=True) if size == [1, 1] else NotImplemented


def _program(program: torch.export.ExportedProgram, about: dict[str, str]) -> bytes:
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={"metadata.json": json.dumps(about)})
    return file.getvalue()


def _onnx(program: torch.export.ExportedProgram, about: dict[str, str]) -> bytes:
    made = torch.onnx.export(
        program.run_decompositions(
            {torch.ops.aten.mean.dim: _axis_by_axis, torch.ops.aten.adaptive_avg_pool2d.default: _pooled}
        ),
        dynamo=True,
        opset_version=OPSET,
        input_names=["image"],
        output_names=list(PLANES),
        verbose=False,
    )
    assert made is not None
    made.model.metadata_props.update({**about, "opset": str(OPSET)})
    return made.model_proto.SerializeToString()
