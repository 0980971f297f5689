"""The leading left singular vector u and A^H u of a small wide matrix, one program each.

G = A A^H is gathered on chip and squared again and again, G <- G^2 / tr(G^2), which leaves u u^H: after k
squarings the second eigenvalue counts (l_2 / l_1)^(2^k), and every squaring widens the gap, so that
rounding enters mostly at the first. The column of u u^H at its largest diagonal entry is u with that entry
positive. A is read twice.
Source: Golub and Van Loan, Matrix Computations, section 7.3.1 (power iteration, with its exponents doubled).
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import launch_options, load, store

LARGEST_REAL, LARGEST_COMPLEX = 64, 32
CHUNK = 32
SQUARINGS = {4: 26, 8: 54}


@triton.jit
def _product(a, b):
    return tl.dot(a, b, input_precision="ieee", out_dtype=a.dtype)


@triton.jit(do_not_specialize=["m", "n", "squarings"])  # else sizes that 16 divides, and 1, are compiled anew
def leading_vector_kernel(
    matrix, u, image, m, n, squarings, ROWS: tl.constexpr, CHUNK: tl.constexpr, COMPLEX: tl.constexpr
):
    """A (batch, m, n) to u (batch, m) and A^H u (batch, n); complex numbers are pairs of reals."""
    program = tl.program_id(0).to(tl.int64)
    row = tl.arange(0, ROWS)
    column = tl.arange(0, CHUNK)
    dtype: tl.constexpr = matrix.dtype.element_ty
    g_re = tl.zeros((ROWS, ROWS), dtype)
    g_im = tl.zeros((ROWS, ROWS), dtype)
    for start in range(0, n, CHUNK):
        inside = (row[:, None] < m) & (start + column[None, :] < n)
        here = (program * m + row[:, None]) * n + start + column[None, :]
        re, im = load(matrix, here, inside, COMPLEX)
        g_re += _product(re, tl.trans(re))
        if COMPLEX:
            g_re += _product(im, tl.trans(im))
            g_im += _product(im, tl.trans(re)) - _product(re, tl.trans(im))

    on_diagonal = row[:, None] == row[None, :]
    diagonal = tl.sum(tl.where(on_diagonal, g_re, 0.0), 1)
    for _ in range(squarings):
        trace = tl.sum(diagonal, 0)
        scale = 1 / tl.where(trace > 0, trace, 1.0)
        g_re *= scale
        if COMPLEX:
            g_im *= scale
            square_im = _product(g_re, g_im) + _product(g_im, g_re)
            g_re = _product(g_re, g_re) - _product(g_im, g_im)
            g_im = square_im
        else:
            g_re = _product(g_re, g_re)
        diagonal = tl.sum(tl.where(on_diagonal, g_re, 0.0), 1)

    pivot = tl.argmax(diagonal, 0)
    chosen = row[None, :] == pivot
    u_re = tl.sum(tl.where(chosen, g_re, 0.0), 1)
    u_im = tl.sum(tl.where(chosen, g_im, 0.0), 1)
    square = tl.sum(u_re * u_re + u_im * u_im, 0)
    inverse = tl.where(square > 0, 1 / tl.sqrt(tl.where(square > 0, square, 1.0)), 0.0)
    u_re *= inverse
    u_im *= inverse
    store(u, program * m + row, row < m, u_re, u_im, COMPLEX)
    for start in range(0, n, CHUNK):
        inside = (row[:, None] < m) & (start + column[None, :] < n)
        here = (program * m + row[:, None]) * n + start + column[None, :]
        re, im = load(matrix, here, inside, COMPLEX)
        image_re = tl.sum(re * u_re[:, None], 0)
        image_im = image_re
        if COMPLEX:
            image_re += tl.sum(im * u_im[:, None], 0)
            image_im = tl.sum(re * u_im[:, None] - im * u_re[:, None], 0)
        store(image, program * n + start + column, start + column < n, image_re, image_im, COMPLEX)


def serves(matrix: Tensor) -> bool:
    """Whether the Gram matrix fits on chip."""
    largest = LARGEST_COMPLEX if matrix.is_complex() else LARGEST_REAL
    return matrix.numel() > 0 and matrix.shape[-2] <= largest


def blocks(dtype: torch.dtype, m: int) -> tuple[int, dict[str, int]]:
    """ROWS (a product on chip takes at least 16) and launch options at which no thread spills a register."""
    rows = max(16, triton.next_power_of_2(m))
    many = 8 if dtype == torch.complex128 else 16
    return rows, launch_options(4 if rows * (2 if dtype.is_complex else 1) < 64 else many)


def leading_vector(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """u (..., m) and A^H u (..., n) of matrices (..., m, n) with m <= n, scaled near one."""
    *batch, m, n = matrix.shape
    flat = matrix.resolve_conj().reshape(-1, m, n).contiguous()
    u, image = flat.new_empty(len(flat), m), flat.new_empty(len(flat), n)
    rows, options = blocks(matrix.dtype, m)
    reals = torch.view_as_real if matrix.is_complex() else torch.Tensor.detach
    with torch.cuda.device_of(flat):
        leading_vector_kernel[(len(flat),)](
            reals(flat),
            reals(u),
            reals(image),
            m,
            n,
            SQUARINGS[matrix.dtype.to_real().itemsize],
            ROWS=rows,
            CHUNK=CHUNK,
            COMPLEX=matrix.is_complex(),
            **options,
        )
    return u.reshape(*batch, m), image.reshape(*batch, n)
