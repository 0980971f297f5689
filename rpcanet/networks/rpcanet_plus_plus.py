"""RPCANet++ (2025): RPCANet with a memory across stages and a contrast prior for the objects."""

from torch import Tensor, nn

from ..modules import IRM, OEM, Memory, MemoryBAM
from .unfolding import StageOutput, UnfoldedNetwork


class RPCANetPlusPlusStage(nn.Module):
    """One alternation:  B, memory = BAM(D' - O'; memory'),  O = OEM(O' + D' - B),  D = IRM(B + O)."""

    def __init__(self, channels: int, first: bool) -> None:
        super().__init__()
        self.bam = MemoryBAM(channels, first=first)
        self.oem = OEM(channels, contrast_prior=True)
        self.irm = IRM(channels)

    def forward(
        self, restoration: Tensor, object_: Tensor, memory: Memory | None
    ) -> tuple[StageOutput, Memory]:
        background, memory = self.bam(restoration - object_, memory)
        object_ = self.oem(object_ + restoration - background)
        return StageOutput(background, object_, self.irm(background + object_)), memory


class RPCANetPlusPlus(UnfoldedNetwork):
    """RPCANet++: splits a picture into a low-rank background and sparse objects.

    The unfolded alternations of `RPCANet`, whose background step carries a convolutional LSTM from stage to
    stage (MAM) and whose object step is guided by a centre-surround contrast prior (DCPM).

    stages: K; 3, 6 and 9 are published as S3, S6 and S9 (1.435, 2.915, 4.396 M parameters).
    channels: C, 32 as published; at least 4.
    mean, std: the normalisation of its input, in grey levels of 0 to 255.

    Source: Wu et al., "RPCANet++: Deep Interpretable Robust PCA for Sparse Object Segmentation",
    arXiv 2508.04190, 2025.

    >>> import torch
    >>> net = RPCANetPlusPlus(stages=3).eval()
    >>> sum(p.numel() for p in net.parameters())
    1434551
    >>> decomposition = net(torch.rand(1, 1, 30, 41), return_stages=True)
    >>> decomposition.object.sigmoid().shape, len(decomposition.stages)
    (torch.Size([1, 1, 30, 41]), 3)
    """

    def __init__(self, stages: int = 6, channels: int = 32, mean: float = 0.0, std: float = 255.0) -> None:
        if channels < 4:
            raise ValueError(f"channels must be at least 4, for the contrast prior's gate, got {channels}")
        stack = [RPCANetPlusPlusStage(channels, first=k == 0) for k in range(stages)]
        super().__init__(stack, channels, mean, std)
