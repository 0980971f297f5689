"""
Look inside a network, stage by stage
=====================================

An unfolded network says what it does at every stage: it has a background :math:`B_k`, an object :math:`O_k`
and a restored picture :math:`D_k`. Here a small RPCANet is trained for some seconds, then opened.
"""

from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import torch

from unfoldkit import datasets, rpcanet
from unfoldkit.rpcanet.inside.interpretation import interior_measures, look_inside
from unfoldkit.rpcanet.training.configuration import Configuration, Data, Machine, Network, Recipe

configuration = Configuration(
    Network("rpcanet", stages=3, channels=8),
    Data("synthetic", size=48, train_count=96, validation_count=8, batch_size=8, workers=0),
    Recipe(epochs=6, learning_rate=4e-3, look_every=0, validate_every=6),
    Machine("cpu"),
)
with TemporaryDirectory() as room:
    net = rpcanet.train(configuration, f"{room}/run")

# %%
# The measures are averages over pictures: the effective rank of the backgrounds, the picture's first, and the
# share of pixels that a stage's object calls an object.

scenes = datasets.SegmentationDataset(datasets.SyntheticScenes("test", count=8, size=48), size=48)
images = torch.stack([scene.image for scene in scenes])
with torch.inference_mode():
    interior = look_inside(net, images)
    measures = {name: values.mean(0) for name, values in interior_measures(images, interior).items()}
print("effective rank of D, B_1, B_2, B_3:", [round(float(x), 1) for x in measures["effective_rank"]])

# %%
# ``unfoldkit interpret --weights W --images PICTURES/ --out DIR`` makes a report of them over a whole folder.

figure, axes = plt.subplots(
    2,
    4,
    figsize=(8, 4.2),
    layout="constrained",
    num="A scene, then in columns what stages 1, 2 and 3 make of it: the first row shows the backgrounds, the "
    "second the objects, in which the targets stand out as bright spots.",
)
axes[0, 0].imshow(images[3, 0], cmap="gray")
axes[0, 0].set_title("picture D")
for k, stage in enumerate(interior.stages, 1):
    axes[0, k].imshow(stage.background[3, 0], cmap="gray")
    axes[0, k].set_title(f"$B_{k}$")
    axes[1, k].imshow(stage.object[3, 0], cmap="gray")
    axes[1, k].set_title(f"$O_{k}$")
for axis in axes.flat:
    axis.axis("off")
