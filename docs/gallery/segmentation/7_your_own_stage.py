"""
Write your own stage
====================

A network is its stage, a module from :math:`(D', O', \\text{memory})` to a `StageOutput` and the memory of
the next. This one keeps RPCANet's background step and takes soft thresholding with a learned level as its
object step.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

from unfoldkit import datasets
from unfoldkit.kernels import soft_threshold
from unfoldkit.rpcanet import StageOutput, decomposition_loss
from unfoldkit.rpcanet.modules import BAM, IRM
from unfoldkit.rpcanet.networks.unfolding import UnfoldedNetwork


class SoftStage(nn.Module):
    """B = BAM(D' - O'),  O = gain soft(D' - B, t) - bias,  D = IRM(B + O)."""

    def __init__(self, channels):
        super().__init__()
        self.bam, self.irm = BAM(channels), IRM(channels)
        self.level = nn.Parameter(torch.tensor(0.02))
        self.gain, self.bias = nn.Parameter(torch.tensor(10.0)), nn.Parameter(torch.tensor(1.0))

    def forward(self, restoration, object_, memory):
        background = self.bam(restoration - object_)
        object_ = self.gain * soft_threshold(restoration - background, self.level.clamp_min(0)) - self.bias
        return StageOutput(background, object_, self.irm(background + object_)), None


class SoftRPCANet(UnfoldedNetwork):
    def __init__(self, stages=2, channels=8, mean=0.0, std=255.0):
        super().__init__([SoftStage(channels) for _ in range(stages)], channels, mean, std)


# %%
# It trains like any other. `decomposition_loss` is the papers': a soft IoU and the error of the restored
# picture.

torch.manual_seed(0)
net = SoftRPCANet()
scenes = datasets.SegmentationDataset(datasets.SyntheticScenes("train", count=64, size=48), size=48)
losses = []
optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
for step in range(45):
    batch = [scenes[(8 * step + i) % len(scenes)] for i in range(8)]
    image, mask = (torch.stack([getattr(sample, part) for sample in batch]) for part in ("image", "mask"))
    loss = decomposition_loss(net(image), image, mask).total
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(f"loss {losses[0]:.3f} at first, {sum(losses[-8:]) / 8:.3f} at last")

# %%
figure, axis = plt.subplots(
    figsize=(5.5, 3.2), layout="constrained", num="The training loss falls over 45 steps, with some noise."
)
axis.plot(losses, color="k")
axis.set(xlabel="step", ylabel="loss", title="Training of the new stage")
