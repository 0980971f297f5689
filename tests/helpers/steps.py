"""A step of training, as tests of CUDA graphs replay it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unfoldkit.rpcanet import decomposition_loss


def stepper(
    net: nn.Module, mixed: bool = False
) -> tuple[Callable[[Tensor, Tensor], Tensor], torch.optim.Optimizer]:
    """A step of `net` by Adam, which a graph can hold on a GPU, and its optimizer."""
    on_gpu = next(net.parameters()).is_cuda
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True, capturable=on_gpu)

    def step(image: Tensor, mask: Tensor) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16, enabled=mixed):
            loss = decomposition_loss(net(image), image, mask)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        return torch.stack(loss).detach()

    return step, optimizer
