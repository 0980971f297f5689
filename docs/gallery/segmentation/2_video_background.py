"""
What stays and what moves in a video
====================================

The frames of a fixed camera are the columns of a matrix D. Principal component pursuit splits it into B of
low rank, what stays, and sparse O, what moves.
"""

import matplotlib.pyplot as plt
import torch

from unfoldkit.rpcanet.classical import background_foreground

torch.manual_seed(0)
rows, columns = torch.meshgrid(torch.linspace(0, 3, 48), torch.linspace(0, 4, 64), indexing="ij")
still = 0.5 + 0.2 * torch.sin(2 * rows) * torch.cos(columns)
frames = torch.stack([still * (1 + 0.1 * torch.tensor(k / 5).sin()) for k in range(30)])  # the light flickers
frames += 0.01 * torch.randn(frames.shape)
for k in range(30):
    frames[k, 20:26, 2 * k : 2 * k + 6] += 0.4  # a box moves to the right

parts = background_foreground(frames)

# %%
# The flicker is of low rank too, so it stays with the background.

moving = parts.object.abs() > 0.2
true = frames - still > 0.25
print(
    f"{parts.iterations} iterations; of {int(true.sum())} moving pixels {int((moving & true).sum())} are found"
)

# %%
figure, axes = plt.subplots(
    3,
    3,
    figsize=(7.5, 6),
    layout="constrained",
    num="Frames 5, 15 and 25 in columns. First row: a wavy pattern with a bright box that moves to "
    "the right. Second"
    "row: the pattern without the box. Third row: the box alone.",
)
for column, k in enumerate((5, 15, 25)):
    for axis, (title, part) in zip(
        axes[:, column],
        {"frame": frames, "what stays": parts.background, "what moves": parts.object}.items(),
        strict=True,
    ):
        axis.imshow(part[k], cmap="gray", vmin=0, vmax=1.2)
        axis.set(title=f"{title} {k}", xticks=[], yticks=[])
