"""Training over several processes as if it were one: batch norms and gradients of the whole batch."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..modules.layers import BatchNorm


class Mean(torch.autograd.Function):
    """m = mean_p x_p over all processes; its gradient is the mean of those of all processes, too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x / dist.get_world_size()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return Mean.forward(ctx, *grads)


class WholeBatchNorm(BatchNorm):
    """Batch norm over the batches of all processes, which must be of equal size, on CPU (gloo) and GPU (NCCL).

        y = (x - m) / sqrt(v + eps) * weight + bias,   m = mean_p m_p,   v = mean_p (v_p + (m_p - m)^2)

    with m_p and v_p the mean and variance of each channel in process p, in float32 or the input's type, if that is
    wider; y has the input's. In evaluation, and in one process, it is `nn.BatchNorm2d`, whose tensors it has.

    >>> x = torch.rand(2, 3, 4, 4)
    >>> bool((WholeBatchNorm(3)(x) == nn.BatchNorm2d(3)(x)).all())
    True
    """

    @property
    def group(self) -> dist.ProcessGroup | None:
        return dist.group.WORLD if self._several else None

    @property
    def _several(self) -> bool:
        return self.training and dist.is_initialized() and dist.get_world_size() > 1

    def forward(self, input: Tensor) -> Tensor:
        if not self._several:
            return super().forward(input)
        world, momentum = dist.get_world_size(), self._counted(input)
        wide = input.to(torch.promote_types(input.dtype, torch.float32))
        variance, mean = torch.var_mean(wide, dim=(0, 2, 3), correction=0)
        whole_mean = Mean.apply(mean)
        whole_variance = Mean.apply(variance + (mean - whole_mean).square())
        count = world * input.numel() // input.shape[1]
        self._track(whole_mean.detach(), whole_variance.detach() * count / (count - 1), momentum)
        scale = self.weight * (whole_variance + self.eps).rsqrt()
        shift = self.bias - whole_mean * scale
        return (wide * scale[:, None, None] + shift[:, None, None]).to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, momentum: float) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), momentum)


def over_processes(net: nn.Module) -> None:
    """Make every batch norm of `net` see the batches of all processes."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = WholeBatchNorm


@torch.no_grad()
def average(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its mean over all processes, in one collective.

    They are of one dtype and, in every process, of the same shapes and orders in memory, without gaps.

    >>> x = torch.ones(3)
    >>> average([x])  # alone
    >>> x
    tensor([1., 1., 1.])
    """
    if not dist.is_initialized():
        return
    lines = [x.as_strided((x.numel(),), (1,)) for x in tensors]
    together = torch.cat(lines)
    dist.all_reduce(together)
    together /= dist.get_world_size()
    torch._foreach_copy_(lines, together.split([len(line) for line in lines]))
