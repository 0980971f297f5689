"""RPCANet (WACV 2024): robust PCA unfolded into a network, six stages and 0.680 M parameters."""

from torch import Tensor, nn

from ..modules import BAM, IRM, OEM
from .unfolding import StageOutput, UnfoldedNetwork


class RPCANetStage(nn.Module):
    """One alternation of robust PCA:  B = BAM(D' - O'),  O = OEM(O' + D' - B),  D = IRM(B + O)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bam = BAM(channels)
        self.oem = OEM(channels)
        self.irm = IRM(channels)

    def forward(self, restoration: Tensor, object_: Tensor, memory: None) -> tuple[StageOutput, None]:
        background = self.bam(restoration - object_)
        object_ = self.oem(object_ + restoration - background)
        return StageOutput(background, object_, self.irm(background + object_)), None


class RPCANet(UnfoldedNetwork):
    """RPCANet: splits a picture into a low-rank background and sparse objects.

    Solves  min_{B, O} R(B) + lambda S(O) + mu/2 ||D - B - O||^2  by K unfolded alternations, each with its
    own learned BAM, OEM and IRM.

    stages: K, 6 as published.  channels: C, 32 as published.
    mean, std: the normalisation of its input, in grey levels of 0 to 255.

    Source: Wu et al., "RPCANet: Deep Unfolding RPCA Based Infrared Small Target Detection", WACV 2024.

    >>> import torch
    >>> net = RPCANet().eval()
    >>> sum(p.numel() for p in net.parameters())
    679896
    >>> decomposition = net(torch.rand(1, 1, 30, 41), return_stages=True)
    >>> decomposition.object.sigmoid().shape, len(decomposition.stages)
    (torch.Size([1, 1, 30, 41]), 6)
    """

    def __init__(self, stages: int = 6, channels: int = 32, mean: float = 0.0, std: float = 255.0) -> None:
        if channels < 1:
            raise ValueError(f"channels must be at least 1, got {channels}")
        super().__init__([RPCANetStage(channels) for _ in range(stages)], channels, mean, std)
