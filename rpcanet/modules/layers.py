"""The layers that every module is made of."""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from ...kernels import batch_norm, fused, same_conv2d

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution with bias that keeps height and width (zero padding 1)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, padding=1)

    def forward(self, input: Tensor) -> Tensor:
        thin = 1 in self.weight.shape[:2]
        if thin and self.bias is not None and fused.serves(input, max(self.weight.shape[:2])):
            return fused.conv_run(input, [self.weight], [self.bias])
        return same_conv2d(input, self.weight, self.bias)


class BatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d`, in training by `kernels.batch_norm`.

    Raises ValueError in training where a channel has one value alone.
    """

    @property
    def group(self) -> "ProcessGroup | None":
        """The processes that share a batch in training; None where it is of one."""
        return None

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and self.track_running_stats):
            return super().forward(input)
        momentum = self._counted(input)
        statistics = (self.running_mean, self.running_var)
        return batch_norm(input, *statistics, self.weight, self.bias, momentum, self.eps)

    def activated(self, input: Tensor, slope: float, added: Tensor | None) -> Tensor:
        """With the rectifier after it, in training on a GPU; see `kernels.fused.norm_activation`."""
        momentum = self._counted(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        statistics = (self.running_mean, self.running_var)
        return fused.norm_activation(
            input, *statistics, self.weight, self.bias, momentum, self.eps, slope, added, self.group
        )

    def _counted(self, input: Tensor) -> float:
        """The momentum of one more batch."""
        self._check_input_dim(input)
        require_several(input)
        momentum = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            momentum = 1 / float(self.num_batches_tracked) if momentum is None else momentum
        return momentum or 0.0


class Stack(nn.Sequential):
    """`nn.Sequential` of 3x3 convolutions, batch norms and rectifiers; in training on a GPU several run in one."""

    def forward(self, input: Tensor) -> Tensor:
        layers = list(self)
        channels = max(conv.out_channels for conv in layers if isinstance(conv, nn.Conv2d))
        channels = max(channels, *(conv.in_channels for conv in layers if isinstance(conv, nn.Conv2d)))
        if not (self.training and fused.serves(input, channels)):
            return super().forward(input)
        x = input
        while layers:
            x, layers = _first_of(x, layers)
        return x


def _first_of(x: Tensor, layers: list[nn.Module]) -> tuple[Tensor, list[nn.Module]]:
    """What the first layers make of x, and the rest of them."""
    first = layers[0]
    if isinstance(first, BatchNorm):
        slope = _slope(layers[1:])
        return first.activated(x, slope, None), layers[2 if slope < 1 else 1 :]
    if not isinstance(first, Conv3x3):
        return first(x), layers[1:]
    if len(layers) > 1 and isinstance(norm := layers[1], BatchNorm):
        slope = _slope(layers[2:])
        x = norm.activated(fused.conv_run(x, [first.weight], None), slope, first.bias)
        return x, layers[3 if slope < 1 else 2 :]
    weights, biases = [], []
    while layers and isinstance(conv := layers[0], Conv3x3) and not _normalised(layers):
        assert conv.bias is not None
        weights.append(conv.weight)
        biases.append(conv.bias)
        rectified = len(layers) > 1 and isinstance(layers[1], nn.ReLU)
        layers = layers[2 if rectified else 1 :]
        if not rectified:
            break
    return fused.conv_run(x, weights, biases, last_relu=rectified), layers


def _normalised(layers: list[nn.Module]) -> bool:
    return len(layers) > 1 and isinstance(layers[1], BatchNorm)


def _slope(layers: list[nn.Module]) -> float:
    """Of the rectifier that comes first; 1 where none does."""
    first = layers[0] if layers else None
    if isinstance(first, nn.LeakyReLU):
        return float(first.negative_slope)
    return 0.0 if isinstance(first, nn.ReLU) else 1.0


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


def conv_stack(channels: int, hidden: int, batch_norm: bool) -> Stack:
    """One channel in, one channel out: Conv(1->C), `hidden` times Conv(C->C), Conv(C->1).

    Every convolution but the last is followed by a ReLU, with batch norm before it if asked for.
    """
    layers = rectified_convs(conv3x3(1, channels), hidden, batch_norm)
    return Stack(*layers, conv3x3(channels, 1))


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
