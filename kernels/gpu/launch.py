"""How the Triton kernels are launched."""

import torch

REGISTERS = 65536  # of a multiprocessor, sm_80 and later


def launch_options(warps: int) -> dict[str, int]:
    """Warps, and every register they may have: left to itself the assembler spills to run more blocks."""
    return {"num_warps": warps, "maxnreg": min(255, REGISTERS // (32 * warps))}


def programs_on(device: torch.device, tiles: int, waves: int) -> int:
    """Programs that share `tiles` among them: `waves` for each multiprocessor."""
    if device.type != "cuda":  # Triton's interpreter
        return min(tiles, 3)
    return min(tiles, waves * torch.cuda.get_device_properties(device).multi_processor_count)
