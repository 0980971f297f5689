"""
A smaller network
=================

The weights of a trained network are nearly low-rank themselves. `rpcanet.compress` writes its windows, 3x3 layers
and gates as products, with as many numbers as you allow.
"""

import time

import matplotlib.pyplot as plt
import torch

from unfoldkit import datasets, kernels, rpcanet

torch.manual_seed(0)
net = rpcanet.pretrained("rpcanet++-s6", "neu_seg")

# %%
# A 17x17 window of 32 to 32 channels is a matrix with a row for each input channel and line of the window, and a
# column for each output channel and column of the window. Three forms of it, each of b (m + n) numbers: low rank,
# which makes it a vertical and a horizontal convolution; four blocks of a Monarch matrix; a dictionary whose
# coefficients are sparse.

window = net.stages[2].oem.dcpm.contrast.weight.detach()
matrix = window.permute(1, 2, 0, 3).reshape(32 * 17, 32 * 17)
ranks = [8, 16, 32, 64]
errors = {"separable": [], "monarch": [], "dictionary": []}
for rank in ranks:
    low_rank = kernels.truncated_svd(matrix, rank)
    monarch = kernels.monarch_project(matrix, blocks=4, rank=rank // 4)
    dictionary = kernels.sparse_dictionary(matrix, int(rank * 4 / 3), int(rank * 2 / 3))
    found = (low_rank.left @ low_rank.right, monarch.dense(), dictionary.dictionary @ dictionary.coefficients)
    for name, approximation in zip(errors, found, strict=True):
        errors[name].append(((matrix - approximation).norm() / matrix.norm()).item())

figure, axis = plt.subplots(
    figsize=(5.5, 3.4),
    layout="constrained",
    num="The relative error of a window falls with the share of its numbers that are kept, in three forms.",
)
for (name, values), marker in zip(errors.items(), "osv", strict=True):
    axis.plot([100 * rank * 2 / len(matrix) for rank in ranks], values, marker=marker, label=name)
axis.set(xlabel="numbers kept, %", ylabel="relative error of the window", xscale="log")
axis.legend()

# %%
# The whole network, a quarter as large. Not all errors matter: pictures like those that it was trained on say what
# inputs each layer meets and how much the answer depends on each of its outputs; here generated scenes stand for
# them. On another scene the answer stays closer so than by the weights alone. To train it on:
# `unfoldkit train --network.init quarter.safetensors`.

scenes = datasets.SyntheticScenes("train", count=4, size=96)
known = [datasets.normalise(scene.image, net.mean, net.std) for scene in scenes]
picture = datasets.SyntheticScenes("test", count=1, size=96)[0]
image = datasets.normalise(picture.image, net.mean, net.std)
made = rpcanet.compress(net, "separable", 0.25, known)
print(f"{made.parameters} of {made.parameters_before} parameters")
for layer in sorted(made.layers, key=lambda layer: layer.error)[:: len(made.layers) // 6]:
    print(f"{layer.name}: {layer.parameters} to {layer.parameters_after}, error {100 * layer.error:.1f} %")

blind = rpcanet.compress(net, "separable", 0.25)
with torch.inference_mode():
    answer, by_pictures, alone = (
        network(image[None]).object.sigmoid() for network in (net, made.net, blind.net)
    )
for title, found in {"pictures": by_pictures, "weights alone": alone}.items():
    print(f"by {title}: the probabilities are off by {100 * (found - answer).norm() / answer.norm():.1f} %")

for name, network in {"as trained": net, "a quarter": made.net}.items():
    fast = rpcanet.optimize(network)
    with torch.inference_mode():
        fast(image[None])
        start = time.perf_counter()
        fast(image[None])
    print(f"{name}: {1000 * (time.perf_counter() - start):.0f} ms")
