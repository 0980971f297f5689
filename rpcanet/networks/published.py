"""The layout of officially published state dicts: whose they are, their sizes, and our keys for theirs."""

import re
from typing import Any

import torch
from torch import Tensor

# A key below `decos.0.` that a network's file has and those of the networks after it have not.
SIGNATURES = {
    "drpca_net": "sparse.gamma_generator.generator.1.weight",
    "l_rpcanet": "residual.convs.0.weight",
    "rpcanet++": "lowrank.conv1_C.0.weight",
    "rpcanet": "lowrank.convs.0.weight",
}

# Key below `decos.0.` of a weight of shape (size, ...).
CHANNELS = {
    "drpca_net": "lowrank.convs.0.weight",
    "l_rpcanet": "merge.mapping.0.weight",
    "rpcanet++": "lowrank.conv1_C.0.weight",
    "rpcanet": "lowrank.convs.0.weight",
}
NARROW = "lowrank.convs.0.weight"

# Published key below `decos.{stage}.` -> key below `stages.{stage}.`, by the first prefix that fits.
PREFIXES = {
    "lowrank.convs.": "bam.layers.",
    "lowrank.conv1_C.": "bam.embedding.",
    "lowrank.RB_1.": "bam.mam.rb1.",
    "lowrank.RB_2.": "bam.mam.rb2.",
    "lowrank.ConvLSTM.": "bam.mam.lstm.",
    "lowrank.convC_1.": "bam.projection.",
    "sparse.gamma_generator.generator.": "oem.gamma.",
    "sparse.epsilon_generator.generator.": "oem.epsilon.",
    "sparse.epsilon": "oem.epsilon",
    "sparse.convs.": "oem.layers.",
    "sparse.contrast.0.": "oem.dcpm.embedding.0.",
    "sparse.contrast.2.conv.": "oem.dcpm.contrast.",
    "sparse.contrast.2.attn.avg_channel.": "oem.dcpm.contrast.gate.",
    "sparse.contrast.3.": "oem.dcpm.projection.0.",
    "sparse.contrast.5.": "oem.dcpm.projection.2.",
    "merge.mapping.": "irm.layers.",
}
LIGHT_PREFIXES = {
    "lowrank.convs.": "bam.layers.features.",
    "lowrank.channel_attention.": "bam.layers.attention.",
    "lowrank.final_conv.": "bam.layers.projection.",
    "sparse.epsilon": "oem.epsilon",
    "sparse.convs.": "oem.layers.features.",
    "sparse.channel_attention.": "oem.layers.attention.",
    "sparse.final_conv.": "oem.layers.projection.",
    "residual.sigma": "noise.sigma",
    "residual.convs.": "noise.layers.features.",
    "residual.channel_attention.": "noise.layers.attention.",
    "residual.final_conv.": "noise.layers.projection.",
    "merge.mapping.": "irm.layers.features.",
    "merge.channel_attention.": "irm.layers.attention.",
    "merge.final_conv.": "irm.layers.projection.",
}


def recognised(published: dict[str, Tensor]) -> tuple[str, dict[str, Any]] | None:
    """What `build` calls the network, and the arguments that its keys and shapes tell; None if unknown."""
    stages = {int(match[1]) for key in published if (match := re.match(r"decos\.(\d+)\.", key))}
    name = next((name for name, key in SIGNATURES.items() if f"decos.0.{key}" in published), None)
    if name is None or stages != set(range(len(stages))):
        return None
    architecture = {"stages": len(stages), "channels": _rows(published, f"decos.0.{CHANNELS[name]}")}
    if name == "l_rpcanet":
        architecture["narrow"] = _rows(published, f"decos.0.{NARROW}")
        layers = [key for key in published if re.fullmatch(r"decos\.0\.residual\.convs\.\d+\.weight", key)]
        architecture["noise_layers"] = len(layers) - 2
    return name, architecture


def sizes_of(state: dict[str, Tensor]) -> dict[str, Any]:
    """The arguments of `build` that the keys and shapes of this package's own state dict tell."""
    stages = {key.split(".")[1] for key in state if key.startswith("stages.")}
    if "stages.0.noise.sigma" not in state:
        return {"stages": len(stages), "channels": _rows(state, "stages.0.oem.layers.0.weight")}
    layers = [key for key in state if re.fullmatch(r"stages\.0\.noise\.layers\.features\.\d+\.weight", key)]
    return {
        "stages": len(stages),
        "channels": _rows(state, "stages.0.irm.layers.features.0.weight"),
        "narrow": _rows(state, "stages.0.bam.layers.features.0.weight"),
        "noise_layers": len(layers) - 2,
    }


def translated(name: str, published: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under this package's keys; what is not known keeps its key.

    Raises ValueError or RuntimeError where the gates of an LSTM do not fit each other.
    """
    prefixes = LIGHT_PREFIXES if name == "l_rpcanet" else PREFIXES

    def renamed(key: str) -> str:
        _, stage, rest = key.split(".", 2)
        prefix = next((prefix for prefix in prefixes if rest.startswith(prefix)), None)
        return key if prefix is None else f"stages.{stage}.{prefixes[prefix]}{rest[len(prefix) :]}"

    state = {renamed(key) if key.count(".") >= 2 else key: tensor for key, tensor in published.items()}
    return _merge_gates(state)


def _rows(state: dict[str, Tensor], key: str) -> int:
    """The length of a tensor; 0 where there is none."""
    weight = state.get(key)
    return weight.shape[0] if weight is not None and weight.ndim else 0


def _merge_gates(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`lstm.conv_{x,h}{f,i,o,j}.*` become `lstm.gates_{x,h}.*`, ordered f, i, o, j (i, o, j at first)."""
    gate = re.compile(r"(stages\.(\d+)\.bam\.mam\.lstm\.)conv_([xh])[fioj]\.(weight|bias)")
    merged = {key: tensor for key, tensor in state.items() if not gate.fullmatch(key)}
    for prefix, stage, source, kind in sorted({m.groups() for key in state if (m := gate.fullmatch(key))}):
        if stage == "0" and source == "h":
            continue
        order = "ioj" if stage == "0" else "fioj"
        parts = [state[key] for g in order if (key := f"{prefix}conv_{source}{g}.{kind}") in state]
        merged[f"{prefix}gates_{source}.{kind}"] = torch.cat(parts)
    return merged
