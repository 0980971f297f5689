"""PatchSVT, a background step that is a proximal operator: singular value thresholding of overlapping patches."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels import singular_value_threshold


class PatchSVT(nn.Module):
    """Background step of LowRankRPCANet.

        B = mean over the patches P of SVT(x_P, tau |x_P|_F),   x = D - O,   0 < tau < 1

    SVT(A, t) = argmin_B t |B|_* + |B - A|_F^2 / 2 lowers every singular value of a patch by t; what remains is
    averaged where patches overlap. tau is learned, `tau` at first: the share of a patch's norm that a pattern
    must exceed to count as background. Scaling x scales B.

    patch, step: size and distance of the square patches, in pixels; the picture's edge is repeated to fill the
        last.
    Shapes: x and B are (batch, 1, height, width).

    Source: Cai, Candes and Shen, "A singular value thresholding algorithm for matrix completion", 2010; learned in
    an unfolding as in Solomon et al., "Deep unfolded robust PCA with application to clutter suppression in
    ultrasound", 2019 (CORONA); by patches as in Gao et al., "Infrared patch-image model", 2013.

    >>> x = torch.rand(2, 1, 40, 33)
    >>> PatchSVT(tau=1e-4)(x).sub(x).abs().max() < 1e-2
    tensor(True)
    """

    def __init__(self, patch: int = 16, step: int = 12, tau: float = 0.02) -> None:
        super().__init__()
        if not 0 < step <= patch:
            raise ValueError(f"step {step} and patch {patch} must be positive, step at most patch")
        if not 0 < tau < 1:
            raise ValueError(f"tau must lie between 0 and 1, got {tau}")
        self.patch, self.step = patch, step
        self.logit = nn.Parameter(torch.tensor(math.log(tau / (1 - tau))))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        padded = F.pad(x, (0, self._surplus(width), 0, self._surplus(height)), mode="replicate")
        columns = F.unfold(padded, self.patch, stride=self.step)
        patches = columns.mT.unflatten(-1, (self.patch, self.patch))
        norms = torch.linalg.vector_norm(patches, dim=(-2, -1))
        low_rank = singular_value_threshold(patches, self.logit.sigmoid() * norms).flatten(-2).mT
        total = self._fold(low_rank, padded.shape[-2:])
        count = self._fold(torch.ones_like(columns[:1]), padded.shape[-2:])
        return (total / count)[..., :height, :width]

    def _surplus(self, length: int) -> int:
        """Pixels missing for whole patches."""
        return self.patch - length if length < self.patch else (self.patch - length) % self.step

    def _fold(self, columns: Tensor, size: torch.Size) -> Tensor:
        return F.fold(columns, tuple(size), self.patch, stride=self.step)
