"""The modules that a stage is made of, one file each: BAM, MAM, PatchSVT, OEM, DCPM, IRM."""

from rpcanet.modules.bam import BAM, MemoryBAM
from rpcanet.modules.dcpm import DCPM
from rpcanet.modules.irm import IRM
from rpcanet.modules.mam import MAM, Memory
from rpcanet.modules.oem import OEM
from rpcanet.modules.patch_svt import PatchSVT

__all__ = ["BAM", "DCPM", "IRM", "MAM", "OEM", "Memory", "MemoryBAM", "PatchSVT"]
