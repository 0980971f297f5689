"""LowRankRPCANet: RPCANet whose background step is a low-rank proximal operator in place of convolutions."""

import torch
from torch import Tensor, nn

from ..modules import IRM, OEM, PatchSVT
from .unfolding import StageOutput, UnfoldedNetwork


class LowRankRPCANetStage(nn.Module):
    """One alternation of robust PCA:  B = PatchSVT(mix(D', O')),  O = OEM(O' + D' - B),  D = IRM(B + O).

    mix is a 3x3 convolution of the two planes that is D' - O' at first.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(2, 1, kernel_size=3, padding=1)
        assert self.mix.bias is not None
        with torch.no_grad():
            self.mix.weight.zero_()[0, :, 1, 1] = torch.tensor([1.0, -1.0])
            self.mix.bias.zero_()
        self.svt = PatchSVT()
        self.oem = OEM(channels, contrast_prior=True)
        self.irm = IRM(channels)

    def forward(self, restoration: Tensor, object_: Tensor, memory: None) -> tuple[StageOutput, None]:
        background = self.svt(self.mix(torch.cat((restoration, object_), 1)))
        object_ = self.oem(object_ + restoration - background)
        return StageOutput(background, object_, self.irm(background + object_)), None


class LowRankRPCANet(UnfoldedNetwork):
    """RPCANet with a background that is low-rank by construction.

    The unfolded alternations of `RPCANet`; the background step thresholds the singular values of overlapping
    patches at a learned level (`PatchSVT`), the object step is guided by the contrast prior of `RPCANetPlusPlus`.
    What the background step sees is a learned convolution of D' and O', since O' are logits, whose scale is not
    the picture's.

    stages: K.  channels: C of the object and restoration steps; at least 4.
    mean, std: the normalisation of its input, in grey levels of 0 to 255.

    Source: the stages of Wu et al., "RPCANet", WACV 2024; a learned singular value threshold of convolved planes
    as in Solomon et al., "Deep unfolded robust PCA with application to clutter suppression in ultrasound", 2019.

    >>> import torch
    >>> decomposition = LowRankRPCANet(stages=2, channels=4).eval()(torch.rand(1, 1, 30, 41), return_stages=True)
    >>> decomposition.object.sigmoid().shape, len(decomposition.stages)
    (torch.Size([1, 1, 30, 41]), 2)
    """

    def __init__(self, stages: int = 6, channels: int = 32, mean: float = 0.0, std: float = 255.0) -> None:
        if channels < 4:
            raise ValueError(f"channels must be at least 4, for the contrast prior's gate, got {channels}")
        super().__init__([LowRankRPCANetStage(channels) for _ in range(stages)], channels, mean, std)
