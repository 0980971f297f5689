"""The layers that every module is made of."""

from torch import Tensor, nn

from ...kernels import batch_norm, same_conv2d


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution with bias that keeps height and width (zero padding 1)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, padding=1)

    def forward(self, input: Tensor) -> Tensor:
        return same_conv2d(input, self.weight, self.bias)


class BatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d`, in training by `kernels.batch_norm`.

    Raises ValueError in training where a channel has one value alone.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and self.track_running_stats):
            return super().forward(input)
        self._check_input_dim(input)
        require_several(input)
        momentum = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            momentum = 1 / float(self.num_batches_tracked) if momentum is None else momentum
        statistics = (self.running_mean, self.running_var)
        return batch_norm(input, *statistics, self.weight, self.bias, momentum or 0.0, self.eps)


def require_several(input: Tensor) -> None:
    """ValueError where batch norm in training has one value a channel alone, which it cannot normalise by."""
    if input.numel() == input.shape[1]:
        raise ValueError(
            "training needs batches of at least 2 pictures, since batch norm normalises over them; got a batch "
            f"size of 1, with {input.shape[-2]}x{input.shape[-1]} features to normalise"
        )


def conv3x3(in_channels: int, out_channels: int) -> Conv3x3:
    """One with Xavier-normal weights."""
    conv = Conv3x3(in_channels, out_channels)
    nn.init.xavier_normal_(conv.weight)
    return conv


def conv1x1(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 1x1 convolution with bias; Xavier-normal weights."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size=1)
    nn.init.xavier_normal_(conv.weight)
    return conv


def conv_stack(channels: int, hidden: int, batch_norm: bool) -> nn.Sequential:
    """One channel in, one channel out: Conv(1->C), `hidden` times Conv(C->C), Conv(C->1).

    Every convolution but the last is followed by a ReLU, with batch norm before it if asked for.
    """
    layers = rectified_convs(conv3x3(1, channels), hidden, batch_norm)
    return nn.Sequential(*layers, conv3x3(channels, 1))


def rectified_convs(first: nn.Conv2d, hidden: int, batch_norm: bool) -> list[nn.Module]:
    """`first` and `hidden` 3x3 convolutions of its output channels, each with a ReLU after it.

    batch_norm: whether one stands before each ReLU.
    """
    channels = first.out_channels
    layers: list[nn.Module] = []
    for index in range(1 + hidden):
        layers.append(conv3x3(channels, channels) if index else first)
        if batch_norm:
            layers.append(BatchNorm(channels))
        layers.append(nn.ReLU(inplace=True))
    return layers
