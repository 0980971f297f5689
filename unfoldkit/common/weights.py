"""What the weights of both halves of the project have to be."""

from pathlib import Path

from torch import nn


def require_finite(net: nn.Module, source: str | Path) -> None:
    """Raise ValueError, which names `source` and the tensor, where one of the network's holds NaN or infinity."""
    for name, tensor in net.state_dict().items():
        if not tensor.isfinite().all():
            raise ValueError(f"{source}: {name} holds NaN or infinity")
