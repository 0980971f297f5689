"""Principal component pursuit against the decompositions that it takes; see `benchmark.py classical`."""

import json
from functools import partial

import torch
from torch import Tensor

from unfoldkit.common.files import write_whole
from unfoldkit.rpcanet.classical import Separation, pcp
from unfoldkit.tools.benchmarks.timing import compare, setting


def mixture(size: int = 500, rank: int = 5, share: float = 0.05) -> tuple[Tensor, Tensor]:
    """A random low-rank matrix and a sparse one with entries from -10 to 10, in double precision."""
    random = torch.Generator().manual_seed(0)
    draw = partial(torch.rand, size, size, generator=random, dtype=torch.float64)
    left, right = (torch.randn(size, rank, generator=random, dtype=torch.float64) for _ in range(2))
    return left @ right.mT, torch.where(draw() < share, 20 * draw() - 10, 0)


def decompositions(matrix: Tensor, count: int) -> None:
    for _ in range(count):
        torch.linalg.svd(matrix, full_matrices=False)


def run(device: str, rounds: int, path: str | None) -> int:
    low_rank, sparse = (part.to(device) for part in mixture())
    matrix = low_rank + sparse
    found: Separation = pcp(matrix)
    errors = [
        ((part - truth).norm() / truth.norm()).item()
        for part, truth in ((found.background, low_rank), (found.object, sparse))
    ]
    count = int(found.iterations)
    timing = compare(partial(pcp, matrix), partial(decompositions, matrix, count), device, rounds)
    result = {
        "case": "PCP of 500x500, rank 5 + 5 % sparse, float64",
        "iterations": count,
        "low_rank_error": errors[0],
        "sparse_error": errors[1],
        "seconds": timing.seconds,
        "seconds_of_as_many_svds": timing.obvious_seconds,
        "times_its_svds": 1 / timing.ratio,
    }
    print("\n".join(f"{name:24} {value}" for name, value in result.items()))
    if path is not None:
        write_whole(path, json.dumps({"setting": setting(device), "result": result}, indent=2) + "\n")
    return 0
