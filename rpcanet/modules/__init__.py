"""The modules that a stage is made of, one file each: BAM, MAM, OEM, DCPM, IRM."""

from rpcanet.modules.bam import BAM, MemoryBAM
from rpcanet.modules.dcpm import DCPM
from rpcanet.modules.irm import IRM
from rpcanet.modules.mam import MAM, Memory
from rpcanet.modules.oem import OEM

__all__ = ["BAM", "DCPM", "IRM", "MAM", "OEM", "Memory", "MemoryBAM"]
