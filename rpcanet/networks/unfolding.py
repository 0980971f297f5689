"""The stage loop that every network of this package shares: a network is its stage."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from huggingface_hub import PyTorchModelHubMixin
from huggingface_hub.constants import SAFETENSORS_SINGLE_FILE
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unfoldkit.common.files import whole_file, write_whole

from ..compression.forms import take_form


class StageOutput(NamedTuple):
    """What one stage makes of a picture; each (batch, 1, height, width).

    background: B_k.  object: O_k, read as logits.  restoration: D_k = IRM(B_k + O_k).
    """

    background: Tensor
    object: Tensor
    restoration: Tensor


class Decomposition(NamedTuple):
    """A picture split into background and objects; each tensor is (batch, 1, height, width).

    background: B_K.  object: O_K as logits, so that `object.sigmoid()` is the probability of an object.
    restoration: D_K.  stages: every stage's output in order, empty unless it was asked for.
    noises: likewise every stage's noise N_k, of networks that have such a part.
    """

    background: Tensor
    object: Tensor
    restoration: Tensor
    stages: tuple[StageOutput, ...] = ()
    noises: tuple[Tensor, ...] = ()


class Unfolding(nn.Module):
    """K stages in a row, from D_0 = image and O_0 = 0. A stage is a module

        stage(D_{k-1}, O_{k-1}, memory_{k-1}) -> (StageOutput(B_k, O_k, D_k), memory_k)

    where memory is whatever else the stages hand on; a single tensor is the noise N_k.
    The grey levels v of a picture, from 0 to 255, enter as (v - mean) / std.

    checkpointing: where true, training keeps what passes between stages alone and runs a stage again for its
    gradients, so that memory grows with one stage instead of all of them; the numbers stay the same.
    """

    checkpointing = False

    def __init__(self, stages: Sequence[nn.Module], mean: float, std: float) -> None:
        super().__init__()
        if not stages:
            raise ValueError("stages must be at least 1")
        if not std > 0:
            raise ValueError(f"std must be positive, got {std}")
        self.stages = nn.ModuleList(stages)
        self.mean = float(mean)
        self.std = float(std)

    def forward(self, image: Tensor, return_stages: bool = False) -> Decomposition:
        """Split `image`, (batch, 1, height, width) of any height and width, into a `Decomposition`.

        Raises ValueError where `image` has another shape, is empty or not floating point, and where its dtype is
        not `input_dtype` nor, under autocast, float32 or autocast's own.
        """
        require_image(image)
        if image.dtype != self.input_dtype and image.dtype not in _autocast_dtypes(image.device.type):
            raise ValueError(f"image must be {self.input_dtype}, as the network, got {image.dtype}")
        restoration, object_, memory = image, torch.zeros_like(image), None
        outputs: list[StageOutput] = []
        noises: list[Tensor] = []
        for stage in self.stages:
            output, memory = self._run(stage, restoration, object_, memory)
            _, object_, restoration = output
            if return_stages:
                outputs.append(output)
                noises += [memory] if isinstance(memory, Tensor) else []
        return Decomposition(*output, tuple(outputs), tuple(noises))

    @property
    def input_dtype(self) -> torch.dtype:
        """The dtype of its pictures: that of its weights."""
        return next(self.parameters()).dtype

    def compile_stages(self) -> None:
        """Run every stage through `torch.compile`; stages of equal structure share one compilation."""
        for stage in self.stages:
            stage.compile()

    def _run(self, stage: nn.Module, *state: Any) -> tuple[StageOutput, Any]:
        """The stage's outputs. The last stage's gradients come first, so that it need not run twice."""
        if not self.checkpointing or not torch.is_grad_enabled() or stage is self.stages[-1]:
            return stage(*state)
        contexts = partial(_first_and_second_run, stage)
        return checkpoint(stage, *state, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)


class UnfoldedNetwork(Unfolding, PyTorchModelHubMixin):
    """An unfolding that is trained, stored and loaded; mean and std travel with its weights.

    record: the configuration that it was trained with, as `read_training` reads it, which says how its pictures
    were prepared; empty where that is not known. It travels with the weights, too.
    """

    def __init__(self, stages: Sequence[nn.Module], channels: int, mean: float, std: float) -> None:
        super().__init__(stages, mean, std)
        self.channels = channels
        self.record: dict[str, Any] = {}

    @property
    def architecture(self) -> dict[str, int | float]:
        """The arguments that build this network again."""
        return {"stages": len(self.stages), "channels": self.channels, "mean": self.mean, "std": self.std}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """PyTorch's method; where the state is that of a compressed network, this one is compressed likewise."""
        take_form(self, state_dict)
        return super().load_state_dict(state_dict, strict, assign)

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Hugging Face's method; its files take their names when all are written, and a README.md stays as it is.

        Raises OSError where they cannot be written; those that were there before then stay.
        """
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory() as made, ExitStack() as drafts:
            config = {**self.architecture, **({"training": self.record} if self.record else {})}
            answer = super().save_pretrained(made, **{"repo_id": folder.name, "config": config, **options})
            for file in sorted(Path(made).iterdir(), reverse=True):  # the weights last
                if file.name != "README.md" or not (folder / file.name).exists():
                    drafts.enter_context(whole_file(folder / file.name)).write_bytes(file.read_bytes())
        return answer

    def _save_pretrained(self, save_directory: Path) -> None:
        tensors = {key: tensor.contiguous() for key, tensor in self.state_dict().items()}
        write_whole(save_directory / SAFETENSORS_SINGLE_FILE, save(tensors, {"format": "pt"}))

    @classmethod
    def _from_pretrained(cls, *, config: dict[str, Any] | None = None, **options: Any) -> "UnfoldedNetwork":
        net = super()._from_pretrained(**options)
        net.record = (config or {}).get("training", {})
        return net


def require_image(image: Tensor) -> None:
    """ValueError unless `image` is floating point, (batch, 1, height, width) and not empty."""
    if image.ndim != 4 or image.shape[1] != 1 or image.numel() == 0 or not image.is_floating_point():
        raise ValueError(
            "image must be a floating-point tensor of shape (batch, 1, height, width), not empty, "
            f"got {image.dtype} of shape {tuple(image.shape)}"
        )


def _autocast_dtypes(device: str) -> tuple[torch.dtype, ...]:
    """What autocast brings to one dtype where it is on; it leaves float64 as it is."""
    return (torch.float32, torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else ()


def _first_and_second_run(
    stage: nn.Module,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _statistics_at_rest(stage)


@contextmanager
def _statistics_at_rest(stage: nn.Module) -> Iterator[None]:
    """Batch norms normalise as they do in training, and leave their running statistics alone."""
    norms = [module for module in stage.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
