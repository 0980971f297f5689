"""DRPCA-Net (TGRS 2025): RPCANet whose object step and restoration adapt to each picture."""

from torch import Tensor, nn

from ..modules import BAM, GatedOEM, ResidualIRM
from .unfolding import StageOutput, UnfoldedNetwork


class DRPCANetStage(nn.Module):
    """One alternation of robust PCA:  B = BAM(D' - O'),  O = GatedOEM(O', D' - B),  D = ResidualIRM(B + O)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bam = BAM(channels)
        self.oem = GatedOEM(channels)
        self.irm = ResidualIRM(channels)

    def forward(self, restoration: Tensor, object_: Tensor, memory: None) -> tuple[StageOutput, None]:
        background = self.bam(restoration - object_)
        object_ = self.oem(object_, restoration - background)
        return StageOutput(background, object_, self.irm(background + object_)), None


class DRPCANet(UnfoldedNetwork):
    """DRPCA-Net: splits a picture into a low-rank background and sparse objects.

    The unfolded alternations of `RPCANet`, whose object step mixes O' with D' - B and steps towards its answer by
    numbers that each picture gates itself (`GatedOEM`), and whose restoration is a group of residual blocks with
    attention over channels and over the picture (`ResidualIRM`).

    stages: K, 6 as published.  channels: C, 32 as published.
    mean, std: the normalisation of its input, in grey levels of 0 to 255.

    As published it is trained on infrared pictures with the loss of `rpcanet.soft_iou_loss`, for 400 epochs at a
    rate of 1e-4 that decays with the power 0.9:

        python tools/train.py --config tools/configs/nudt_sirst.yaml --network.name drpca_net
            --network.stages 6 --recipe.epochs 400 --data.root DIR

    Source: Xiong et al., "DRPCA-Net: Make Robust PCA Great Again for Infrared Small Target Detection", TGRS 2025.

    >>> import torch
    >>> net = DRPCANet().eval()
    >>> sum(p.numel() for p in net.parameters())
    1168980
    >>> decomposition = net(torch.rand(1, 1, 30, 41), return_stages=True)
    >>> decomposition.object.sigmoid().shape, len(decomposition.stages)
    (torch.Size([1, 1, 30, 41]), 6)
    """

    def __init__(self, stages: int = 6, channels: int = 32, mean: float = 0.0, std: float = 255.0) -> None:
        if channels < 1:
            raise ValueError(f"channels must be at least 1, got {channels}")
        super().__init__([DRPCANetStage(channels) for _ in range(stages)], channels, mean, std)
