"""The 16-bit form of RPCANet and RPCANet++ on a GPU: a few kernels a stage, between which planes are float32."""

from collections.abc import Iterable, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_conv_bn_weights

from ...kernels import ContrastWindow, ConvChain, LSTMStep
from ...kernels.gpu.features.packing import CHANNELS
from ..compression.thin import plain
from ..modules import BAM, DCPM, MAM, OEM, Memory, MemoryBAM
from ..networks.rpcanet import RPCANetStage
from ..networks.rpcanet_plus_plus import RPCANetPlusPlusStage
from ..networks.unfolding import StageOutput

Planes = tuple[tuple[float, Tensor], ...]
AT_ONCE = 2  # layers C -> C of a kernel


def on_chip(stage: nn.Module) -> nn.Module | None:
    """The stage's form in these kernels, None of a stage that has none or whose weights float16 cannot hold.

    The form is made of a copy: the stage stays as it is.
    """
    if not isinstance(stage, RPCANetStage | RPCANetPlusPlusStage):
        return None
    if folded(stage.oem.layers)[0].out_channels not in CHANNELS:
        return None
    form = StageOnChip(plain(deepcopy(stage).eval()))
    held = torch.stack([weight.isfinite().all() for weight in form.parameters()])
    return form if held.all() else None


class StageOnChip(nn.Module):
    """B, memory = bam(D' - O'; memory'),  O = oem(O' + D' - B),  D = irm(B + O)."""

    def __init__(self, stage: RPCANetStage | RPCANetPlusPlusStage) -> None:
        super().__init__()
        bam = stage.bam
        self.bam = BackgroundWithMemory(bam) if isinstance(bam, MemoryBAM) else Background(bam)
        self.oem = Objects(stage.oem)
        self.irm = Run(folded(stage.irm.layers))

    def forward(
        self, restoration: Tensor, object_: Tensor, memory: Memory | None
    ) -> tuple[StageOutput, Memory | None]:
        background, memory = self.bam(((1.0, restoration), (-1.0, object_)), memory)
        object_ = self.oem(((1.0, object_), (1.0, restoration), (-1.0, background)))
        return StageOutput(background, object_, self.irm(((1.0, background), (1.0, object_)))), memory


class Run(nn.Sequential):
    """A stack of convolutions from a plane to a plane, by kernels of at most two layers C -> C each."""

    def __init__(self, convs: Sequence[nn.Conv2d]) -> None:
        first, *between, last = convs
        cuts = [len(between) - k for k in range(0, len(between), AT_ONCE)][::-1]
        groups = [between[max(cut - AT_ONCE, 0) : cut] for cut in cuts] or [[], []]
        groups[0] = [first, *groups[0]]
        groups[-1] = [*groups[-1], last]
        super().__init__(*map(ConvChain, groups))

    def forward(self, planes: Planes, added: Planes = ()) -> Tensor:
        *chains, last = self
        x: Tensor | Planes = planes
        for chain in chains:
            x = chain(x)
        return last(x, added)


class Background(nn.Module):
    """x + f(x)."""

    def __init__(self, bam: BAM) -> None:
        super().__init__()
        self.run = Run(folded(bam.layers))

    def forward(self, planes: Planes, memory: None) -> tuple[Tensor, None]:
        return self.run(planes, planes), memory


class BackgroundWithMemory(nn.Module):
    """x + Conv(MAM(ReLU(Conv(x))))."""

    def __init__(self, bam: MemoryBAM) -> None:
        super().__init__()
        mam = bam.mam
        assert isinstance(mam, MAM)
        self.before = ConvChain([*folded(bam.embedding), mam.rb1.conv1, mam.rb1.conv2], residual=True)
        self.lstm = LSTMStep(*gates_of(mam.lstm))
        self.after = ConvChain([mam.rb2.conv1, mam.rb2.conv2, bam.projection], residual=True)

    def forward(self, planes: Planes, memory: Memory | None) -> tuple[Tensor, Memory]:
        memory = Memory(*self.lstm(self.before(planes), memory))
        return self.after(memory.hidden, planes), memory


class Objects(nn.Module):
    """x - epsilon g(x + w(x)); the step size is in the last convolution's weight."""

    def __init__(self, oem: OEM) -> None:
        super().__init__()
        *convs, last = folded(oem.layers)
        self.run = Run([*convs, scaled(last, -oem.epsilon.detach())])
        self.dcpm = None if oem.dcpm is None else Prior(oem.dcpm)

    def forward(self, planes: Planes) -> Tensor:
        guided = planes if self.dcpm is None else (*planes, (1.0, self.dcpm(planes)))
        return self.run(guided, planes)


class Prior(nn.Module):
    """w(x) = Conv(leaky(BN(contrast(ReLU(Conv(x))))))."""

    def __init__(self, prior: DCPM) -> None:
        super().__init__()
        norm, leaky, projection = prior.projection
        contrast = prior.contrast
        assert isinstance(norm, nn.BatchNorm2d)
        assert isinstance(leaky, nn.LeakyReLU)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        weight, shift = fuse_conv_bn_weights(
            contrast.weight, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        squeeze = [x.detach().flatten(1) if x.ndim > 1 else x.detach() for x in parameters_of(contrast.gate)]
        window = weight.detach()
        self.window = ContrastWindow(
            folded(prior.embedding)[0],
            -window,
            window.sum((2, 3)),
            shift.detach(),
            tuple(squeeze),
            leaky.negative_slope,
        )
        assert isinstance(projection, nn.Conv2d)
        self.projection = ConvChain([projection])

    def forward(self, planes: Planes) -> Tensor:
        return self.projection(self.window(planes))


def parameters_of(layers: Iterable[nn.Module]) -> list[Tensor]:
    """Weight and bias of each convolution."""
    pairs = [(conv.weight, conv.bias) for conv in folded(layers)]
    return [x for pair in pairs for x in pair if x is not None]


def gates_of(lstm: nn.Module) -> tuple[Tensor, Tensor]:
    """The weight over (z, h') and the bias."""
    convs = [conv for conv in lstm.children() if isinstance(conv, nn.Conv2d)]
    biases = [conv.bias for conv in convs if conv.bias is not None]
    return torch.cat([conv.weight for conv in convs], dim=1), torch.stack(biases).sum(0)


def folded(layers: Iterable[nn.Module]) -> list[nn.Conv2d]:
    """The convolutions, with the batch norms that follow them."""
    convs: list[nn.Conv2d] = []
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            convs.append(layer)
        if isinstance(layer, nn.BatchNorm2d):
            convs[-1] = fuse_conv_bn_eval(convs[-1], layer)
    return convs


def scaled(conv: nn.Conv2d, factor: Tensor) -> nn.Conv2d:
    """factor * conv(x), another convolution."""
    result = nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1)
    result.weight = nn.Parameter(factor * conv.weight.detach())
    assert conv.bias is not None
    result.bias = nn.Parameter(factor * conv.bias.detach())
    return result
