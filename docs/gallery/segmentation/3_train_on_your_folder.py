"""
Train on your own folder
========================

Pictures of your own lie in ``{train,val,test}/{images,masks}``. Here such a folder is filled with generated
scenes, a small network is trained on it, and a picture is run through the weights that it leaves.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import matplotlib.pyplot as plt
import torch

from unfoldkit import datasets, rpcanet
from unfoldkit.rpcanet.training.configuration import Configuration, Data, Machine, Network, Recipe

room = TemporaryDirectory()
root = Path(room.name) / "mine"
for split, count in {"train": 96, "val": 16}.items():
    for picture in datasets.SyntheticScenes(split, count=count, size=48):
        if picture.mask.any():
            for kind, levels in {"images": picture.image, "masks": 255 * picture.mask}.items():
                (root / split / kind).mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(root / split / kind / f"{picture.name}.png"), levels)

# %%
# The same on the command line: ``unfoldkit train --data.name folder --data.root mine --data.size 48 ...``. A
# recipe of the papers has hundreds of epochs; these six show that the loss falls.

configuration = Configuration(
    Network("rpcanet", stages=2, channels=8),
    Data("folder", str(root), size=48, batch_size=8, workers=0),
    Recipe(epochs=6, learning_rate=4e-3, look_every=0, validate_every=3),
    Machine("cpu"),
)
out = Path(room.name) / "run"
rpcanet.train(configuration, out)
print(sorted(path.name for path in out.iterdir()))

# %%
# ``best.safetensors`` holds the network, its normalisation and its configuration.

net = rpcanet.load_weights(out / "best.safetensors").eval()
picture = datasets.SyntheticScenes("test", count=4, size=48)[3]
answer = rpcanet.decompose(net, torch.from_numpy(picture.image))

figure, axes = plt.subplots(
    1,
    3,
    figsize=(8, 3),
    layout="constrained",
    num="Three panels: a scene that the network has not seen, the true mask, and the probability of an object "
    "that the small network gives, bright at the largest target.",
)
panels = {"picture": picture.image, "true mask": picture.mask, "probability": answer.object.sigmoid()[0, 0]}
for axis, (title, panel) in zip(axes, panels.items(), strict=True):
    axis.imshow(panel, cmap="gray")
    axis.set(title=title, xticks=[], yticks=[])
