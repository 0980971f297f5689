"""Non-negative least squares by block principal pivoting, one small problem a program, all of it on chip.

The restricted normal equations are solved by Gauss-Jordan elimination without pivoting: they are definite.
Source: Portugal, Judice and Vicente, Mathematics of Computation 1994.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import launch_options

LARGEST = 32
EPS = torch.finfo(torch.float64).eps


@triton.jit(do_not_specialize=["n", "full_exchanges", "limit"])
def pivoting_kernel(
    matrix, right, guess, solution, positive, n, full_exchanges, limit, EPS: tl.constexpr, ROWS: tl.constexpr
):
    """H (batch, n, n), q (batch, n) and a guess (batch, n) of 0 and 1 to g and where it is positive."""
    program = tl.program_id(0).to(tl.int64)
    number = tl.arange(0, ROWS)
    valid = number < n
    row, column = number[:, None], number[None, :]
    inside = (row < n) & (column < n)
    here = (program * n + row) * n + column
    q = tl.load(right + program * n + number, valid, 0.0)
    kept = tl.load(guess + program * n + number, valid, 0).to(tl.int32)
    largest_q = tl.max(tl.abs(q), 0)
    x = tl.zeros_like(q)
    fewest = n + 1
    chances = full_exchanges
    searching = 1
    step = 0
    while (searching == 1) & (step < limit):
        H = tl.load(matrix + here, inside, 0.0)
        chosen = kept.to(q.dtype)
        diagonal = tl.sum(tl.where(row == column, H, 0.0), 1)
        system = H * chosen[:, None] * chosen[None, :]
        system += tl.where(row == column, (1 - chosen + EPS * diagonal)[:, None], 0.0)
        x = q * chosen
        for pivot in range(n):
            in_row = tl.sum(tl.where(row == pivot, system, 0.0), 0)
            in_column = tl.sum(tl.where(column == pivot, system, 0.0), 1)
            on_diagonal = tl.sum(tl.where(number == pivot, in_row, 0.0), 0)
            value = tl.sum(tl.where(number == pivot, x, 0.0), 0)
            factor = tl.where(number == pivot, 0.0, in_column / on_diagonal)
            system -= factor[:, None] * in_row[None, :]
            x -= factor * value
        x = tl.where(
            valid, x / tl.sum(tl.where(row == column, tl.where(valid[:, None], system, 1.0), 0.0), 1), 0.0
        )

        gradient = tl.sum(H * x[None, :], 1) - q
        negative = (kept == 1) & (x < -100 * EPS * tl.max(tl.abs(x), 0))
        growing = (kept == 0) & (gradient < -100 * EPS * largest_q)
        infeasible = ((negative | growing) & valid).to(tl.int32)
        count = tl.sum(infeasible, 0)
        searching = tl.where(count > 0, 1, 0)
        better = count < fewest
        fewest = tl.where(better, count, fewest)
        chances = tl.where(better, full_exchanges, chances - 1)
        last = tl.max(tl.where(infeasible == 1, number, -1), 0)
        exchanged = tl.where(chances >= 0, infeasible, (number == last).to(tl.int32) * infeasible)
        kept = kept ^ exchanged
        step += 1
    tl.store(solution + program * n + number, x, valid)
    tl.store(positive + program * n + number, kept, valid)


def serves(H: Tensor) -> bool:
    """Whether the problems fit on chip."""
    return H.is_cuda and 0 < H.shape[-1] <= LARGEST and H.numel() > 0


def blocks(n: int) -> tuple[int, dict[str, int]]:
    """ROWS, and launch options at which no thread spills a register."""
    rows = max(4, triton.next_power_of_2(n))
    return rows, launch_options(4 if rows == LARGEST else 1)


def pivoting(H: Tensor, q: Tensor, guess: Tensor, full_exchanges: int) -> tuple[Tensor, Tensor]:
    """Where the solution is positive, and the solution (batch, n), of H (batch, n, n) and q (batch, n), double."""
    n = q.shape[-1]
    H, q, start = H.contiguous(), q.contiguous(), guess.to(torch.int32).contiguous()
    solution, positive = torch.empty_like(q), torch.empty_like(start)
    rows, options = blocks(n)
    with torch.cuda.device_of(q):
        pivoting_kernel[(len(q),)](
            H, q, start, solution, positive, n, full_exchanges, 10 * n + 10, EPS=EPS, ROWS=rows, **options
        )
    return positive.bool(), solution
