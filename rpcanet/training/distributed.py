"""Training over several processes as if it were one: batch norms that see the whole batch."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


class WholeBatchNorm(nn.BatchNorm2d):
    """Batch norm over the batches of all processes, which must be of equal size, on CPU (gloo) and GPU (NCCL).

        y = (x - m) / sqrt(v + eps) * weight + bias,   m = mean_p m_p,   v = mean_p (v_p + (m_p - m)^2)

    with m_p and v_p the mean and variance of each channel in process p. In evaluation, and in one process, it is
    `nn.BatchNorm2d`, whose tensors it has.

    >>> x = torch.rand(2, 3, 4, 4)
    >>> bool((WholeBatchNorm(3)(x) == nn.BatchNorm2d(3)(x)).all())
    True
    """

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(x)
        world = dist.get_world_size()
        variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
        whole_mean = all_reduce(mean) / world
        whole_variance = all_reduce(variance + (mean - whole_mean).square()) / world
        count = world * x.numel() // x.shape[1]
        self._track(whole_mean.detach(), whole_variance.detach() * count / max(1, count - 1))
        scale = self.weight * (whole_variance + self.eps).rsqrt()
        shift = self.bias - whole_mean * scale
        return x * scale[:, None, None] + shift[:, None, None]

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        if self.num_batches_tracked is not None:
            self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


def over_processes(net: nn.Module) -> None:
    """Make every batch norm of `net` see the batches of all processes."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = WholeBatchNorm
