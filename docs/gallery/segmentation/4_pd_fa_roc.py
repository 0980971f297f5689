"""
Read Pd, Fa and ROC
===================

Pd is the share of targets that are found, Fa the share of background pixels that are raised. What counts as
found and as raised is the protocol's, so numbers of two protocols are never compared. Three methods without
training are scored here on generated scenes.
"""

import matplotlib.pyplot as plt
import torch

from unfoldkit import datasets
from unfoldkit.rpcanet.classical import ipi, pcp, pstnn
from unfoldkit.rpcanet.metrics import protocol

scenes = list(datasets.SyntheticScenes("test", count=12, size=80))
methods = {"ipi": ipi, "pstnn": pstnn, "pcp": pcp}


def probability(method, levels):
    """The object's size over the largest of the picture, (1, 1, height, width)."""
    object_ = method(torch.from_numpy(levels).double()).object.abs()
    return (object_ / object_.max().clamp(min=1e-9))[None, None]


# %%
# `overlap`, the protocol of the RPCANet papers: one pixel that touches a target finds it, and every predicted
# pixel of the background is raised. `centroid`, that of DNANet: the centre must lie within three pixels, and
# only what belongs to no target is raised.

found = {}
for name, method in methods.items():
    answers = [
        (probability(method, scene.image), torch.from_numpy(scene.mask)[None, None]) for scene in scenes
    ]
    for rule in ("overlap", "centroid"):
        metrics = protocol(rule)
        for answer, mask in answers:
            metrics.update(answer, mask)
        found[name, rule] = metrics.compute()
        values = found[name, rule]
        print(f"{name:6} {rule:9} Pd {100 * values['pd']:5.1f} %   Fa {1e5 * values['fa']:6.1f}e-5")

# %%
# The ROC moves the threshold: the further up and left, the better. ``auc`` is the area under it.

figure, axis = plt.subplots(
    figsize=(5.5, 4),
    layout="constrained",
    num="Share of targets found over the share of background pixels raised, on a logarithmic axis, "
    "of three methods.",
)
for name, line in zip(methods, ("-", "--", ":"), strict=True):
    values = found[name, "overlap"]
    axis.semilogx(
        values["roc_fa"].clamp(min=1e-6),
        values["roc_pd"],
        line,
        color="k",
        label=f"{name}, auc {values['auc']:.3f}",
    )
axis.set(xlabel="Fa", ylabel="Pd", title="ROC, protocol overlap", ylim=(0, 1.05))
axis.legend()
