"""The modules that a stage is made of, one file each: BAM, MAM, PatchSVT, OEM, DCPM, IRM."""

from .bam import BAM, MemoryBAM
from .dcpm import DCPM
from .irm import IRM
from .mam import MAM, Memory
from .oem import OEM
from .patch_svt import PatchSVT

__all__ = ["BAM", "DCPM", "IRM", "MAM", "OEM", "Memory", "MemoryBAM", "PatchSVT"]
