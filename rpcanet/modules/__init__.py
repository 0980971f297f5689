"""The modules that a stage is made of, one file each: the steps BAM, OEM, NoiseStep, IRM and what they hold."""

from .bam import BAM, LightBAM, MemoryBAM
from .channel_attention import AttentiveStack, ChannelAttention, SqueezeExcitation
from .dcpm import DCPM
from .dynamic_gate import DynamicGate
from .irm import IRM, LightIRM, ResidualIRM
from .mam import MAM, Memory
from .noise_step import NoiseStep
from .oem import OEM, GatedOEM, LightOEM
from .patch_svt import PatchSVT
from .residual_group import ResidualGroup
from .spatial_attention import DynamicSpatialAttention

__all__ = [
    "BAM",
    "DCPM",
    "IRM",
    "MAM",
    "OEM",
    "AttentiveStack",
    "ChannelAttention",
    "DynamicGate",
    "DynamicSpatialAttention",
    "GatedOEM",
    "LightBAM",
    "LightIRM",
    "LightOEM",
    "Memory",
    "MemoryBAM",
    "NoiseStep",
    "PatchSVT",
    "ResidualGroup",
    "ResidualIRM",
    "SqueezeExcitation",
]
