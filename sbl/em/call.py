"""What the EM loops in C and in CUDA C are called with."""

import ctypes
from enum import IntEnum

MOST_FACTORS = 8

Integers = ctypes.c_int64 * MOST_FACTORS
Doubles = ctypes.c_double * MOST_FACTORS
Pointers = ctypes.c_void_p * MOST_FACTORS


class Kind(IntEnum):
    """The M-steps that the loops know."""

    NESTED_SVD = 0
    ONE_SWEEP = 1
    ALTERNATING = 2
    BOUND = 3
    ROOT_SVD = 4


class Call(ctypes.Structure):
    """The structure of this name in `call.h`."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("problems", "factors", "complex_numbers", "noise_unknown")),
        *((name, Integers) for name in ("rows", "columns", "shared", "coupled")),
        ("matrices", Pointers),
        ("y", ctypes.c_void_p),
        ("noise_variance", ctypes.c_void_p),
        ("g", Pointers),
        ("sources", Pointers),
        ("ratios", Doubles),
        *((name, ctypes.c_double) for name in ("negligible", "faint", "floor", "tolerance")),
        ("max_iterations", ctypes.c_int64),
        *((name, ctypes.c_int64) for name in ("step", "sweeps", "relative")),
        *((name, ctypes.c_double) for name in ("inner_tolerance", "divergence", "beta", "offset")),
        *((name, ctypes.c_void_p) for name in ("iterations", "outcome", "cost", "change", "noise_path")),
        ("g_path", Pointers),
    )
