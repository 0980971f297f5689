"""
A small target from a picture
=============================

An infrared picture D is split into a background B of low rank and sparse objects O, and the mask is where O
stands out. This needs no training: `ipi` is robust PCA of all patches of the picture.
"""

import matplotlib.pyplot as plt
import torch

from unfoldkit import datasets
from unfoldkit.rpcanet.classical import ipi

picture = datasets.SyntheticScenes("test", count=16)[
    15
]  # or datasets.read_image("picture.png") for the levels
parts = ipi(torch.from_numpy(picture.image).double())

# %%
# What a method calls object is bright and sparse. A pixel belongs to the mask where it exceeds half of the
# largest.

mask = parts.object > 0.5 * parts.object.max()
truth = torch.from_numpy(picture.mask) > 0
found, false = int((mask & truth).sum()), int((mask & ~truth).sum())
print(f"pixels of targets: {int(truth.sum())}, found {found}, besides {false}")

# %%
# A trained network answers the same question better and faster: `rpcanet.decompose(net, levels)` returns
# background and object, too.

figure, axes = plt.subplots(
    2,
    2,
    figsize=(6, 6.2),
    layout="constrained",
    num="Four panels: a cloudy scene with small bright targets, its smooth background, the object "
    "part with the"
    "targets alone, and the mask, a few pixels at the targets' places.",
)
panels = {
    "picture D": picture.image,
    "background B": parts.background,
    "object O": parts.object,
    "mask": mask,
}
for axis, (title, panel) in zip(axes.flat, panels.items(), strict=True):
    axis.imshow(panel, cmap="gray")
    axis.set(title=title, xticks=[], yticks=[])
