"""The CUDA C of the EM loop and what it is compiled with; without PyTorch, which may be imported meanwhile."""

from pathlib import Path

SOURCES = {
    f"em_{name}": Path(__file__).with_name(f"{file}.cu")
    for name, file in (("solve", "em"), ("posterior", "posterior"), ("unfolded", "unfolded"))
}
FULL_MOMENT = 0  # a step whose E-step forms variances
# Threads of a block, and how many blocks share a multiprocessor: a problem goes on in the next as soon as it fits.
STAGES = ((256, 2), (128, 4), (32, 16))
THREADS, BLOCKS = STAGES[0]


def definitions(factors: int, complex_numbers: bool, step: int) -> dict[str, str | int]:
    """Of the preprocessor, for each of SOURCES."""
    sizes = {"FACTORS": factors, "THREADS": THREADS, "BLOCKS": BLOCKS}
    return {"STEP": int(step), "COMPLEX": int(complex_numbers), **sizes}
