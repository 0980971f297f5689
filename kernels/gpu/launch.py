"""What the Triton kernels share: numbers that may be complex, stored as pairs of reals, and how to launch."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import torch
import triton
import triton.language as tl

REGISTERS = 65536  # of a multiprocessor, sm_80 and later


@triton.jit
def load(pointer, here, inside, COMPLEX: tl.constexpr):
    """Real and imaginary parts; the latter is zero for real numbers."""
    if COMPLEX:
        return tl.load(pointer + 2 * here, inside, 0.0), tl.load(pointer + 2 * here + 1, inside, 0.0)
    re = tl.load(pointer + here, inside, 0.0)
    return re, tl.zeros_like(re)


@triton.jit
def store(pointer, here, inside, re, im, COMPLEX: tl.constexpr):
    """The reverse of `load`."""
    if COMPLEX:
        tl.store(pointer + 2 * here, re, inside)
        tl.store(pointer + 2 * here + 1, im, inside)
    else:
        tl.store(pointer + here, re, inside)


def launch_options(warps: int) -> dict[str, int]:
    """Warps, and every register they may have: left to itself the assembler spills to run more blocks."""
    return {"num_warps": warps, "maxnreg": min(255, REGISTERS // (32 * warps))}


def programs_on(device: torch.device, tiles: int, waves: int) -> int:
    """Programs that share `tiles` among them: `waves` for each multiprocessor."""
    if device.type != "cuda":  # Triton's interpreter
        return min(tiles, 3)
    return min(tiles, waves * torch.cuda.get_device_properties(device).multi_processor_count)
