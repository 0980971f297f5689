"""One-sided Jacobi on chip: the SVD and the Hermitian eigendecomposition of small matrices, one program each.

The columns of A are rotated in pairs until they are orthogonal: then A V = U diag(s), with V the product of
the rotations. At step j of a sweep column i meets column i xor j, so that a sweep of COLUMNS - 1 steps
meets every pair once and half of the pairs rotate at a time. Each pair also puts the longer column first,
which leaves s sorted. For columns x, y with g = x^H y and z = (|y|^2 - |x|^2) / (2 |g|):

    t = sign(z) / (|z| + sqrt(1 + z^2)),  c = 1 / sqrt(1 + t^2),  x' = c x - c t y~,  y' = c t x + c y~,  y~
    = y g* / |g|

A Hermitian A is shifted by 2 |A|_F to be definite, with a condition number of at most 3; then U = V, and V
is not accumulated.
Source: Hestenes, "Inversion of matrices by biorthogonalization", 1958; Demmel and Veselic, "Jacobi's method
is more accurate than QR", 1992; de Rijk, "A one-sided Jacobi algorithm", 1989 (the order).
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import launch_options, load, store

LARGEST = {torch.float32: 64, torch.float64: 64, torch.complex64: 64, torch.complex128: 32}
SWEEPS = 30


@triton.jit
def _partner(re, im, partner, COMPLEX: tl.constexpr):
    across = tl.broadcast_to(partner[None, :], re.shape)
    if COMPLEX:
        return tl.gather(re, across, 1), tl.gather(im, across, 1)
    other = tl.gather(re, across, 1)
    return other, other


@triton.jit
def _rotate(re, im, other_re, other_im, a_re, a_im, b_re, b_im, COMPLEX: tl.constexpr):
    """Columns a x + b y of columns x and their partners y."""
    if COMPLEX:
        new_re = a_re * re - a_im * im + b_re * other_re - b_im * other_im
        return new_re, a_re * im + a_im * re + b_re * other_im + b_im * other_re
    return a_re * re + b_re * other_re, im


@triton.jit
def jacobi_kernel(
    matrix,
    left,
    right,
    values,
    m,
    n,
    tolerance,
    max_sweeps,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    COMPLEX: tl.constexpr,
    RIGHT: tl.constexpr,
):
    """A (batch, m, n), m >= n, to U (batch, m, n), s (batch, n) and, if RIGHT, V (batch, n, n).

    Complex numbers are pairs of reals. `tolerance` bounds |g| / (|x| |y|); columns shorter than its square
    count as zero, and so are their columns of U.
    """
    program = tl.program_id(0).to(tl.int64)
    row = tl.arange(0, ROWS)[:, None]
    index = tl.arange(0, COLUMNS)
    column = index[None, :]
    inside = (row < m) & (column < n)
    here = (program * m + row) * n + column
    re, im = load(matrix, here, inside, COMPLEX)
    diagonal = tl.arange(0, COLUMNS)[:, None]
    v_re = tl.where(diagonal == column, 1.0, 0.0).to(re.dtype)
    v_im = tl.zeros_like(v_re)

    tolerance = tl.zeros((COLUMNS,), re.dtype) + tolerance
    negligible = tolerance * tolerance * tolerance * tolerance
    changes = 1
    sweep = 0
    while (changes > 0) & (sweep < max_sweeps):
        changes = 0
        for step in range(1, COLUMNS):
            partner = index ^ step
            first = tl.minimum(index, partner)
            leads = index == first
            other_re, other_im = _partner(re, im, partner, COMPLEX)
            # One value a pair, read by both of its columns: they must decide alike.
            if COMPLEX:
                square = tl.sum(re * re + im * im, 0)
                g_re = tl.gather(tl.sum(re * other_re + im * other_im, 0), first, 0)
                g_im = tl.gather(tl.sum(re * other_im - im * other_re, 0), first, 0)
            else:
                square = tl.sum(re * re, 0)
                g_re = tl.gather(tl.sum(re * other_re, 0), first, 0)
                g_im = tl.zeros_like(g_re)
            x_square = tl.gather(square, first, 0)
            y_square = tl.gather(square, tl.maximum(index, partner), 0)
            g = tl.maximum(tl.abs(g_re), tl.abs(g_im))
            if COMPLEX:
                unit = tl.where(g > 0, g, 1.0)
                g = g * tl.sqrt((g_re / unit) * (g_re / unit) + (g_im / unit) * (g_im / unit))

            counts = tl.minimum(x_square, y_square) > negligible
            rotates = counts & (g > tolerance * tl.sqrt(x_square) * tl.sqrt(y_square))
            g = tl.where(rotates, g, 1.0)
            z = tl.where(rotates, (y_square - x_square) / (2 * g), 0.0)
            t = tl.where(z < 0, -1.0, 1.0).to(z.dtype) / (tl.abs(z) + tl.sqrt(1 + z * z))
            t = tl.where(rotates, t, 0.0)
            c = 1 / tl.sqrt(1 + t * t)
            s = c * t
            swaps = x_square - t * g < y_square + t * g
            changes += tl.sum((rotates | swaps).to(tl.int32), 0)

            signed = tl.where(leads, -s, s)
            own = tl.where(swaps, -signed, c)
            others = tl.where(swaps, c, signed)
            phase_re = tl.where(rotates, g_re / g, 1.0)
            phase_im = tl.where(rotates, -g_im / g, 0.0)
            a_re = (own * tl.where(leads, 1.0, phase_re))[None, :]
            a_im = (own * tl.where(leads, 0.0, phase_im))[None, :]
            b_re = (others * tl.where(leads, phase_re, 1.0))[None, :]
            b_im = (others * tl.where(leads, phase_im, 0.0))[None, :]
            re, im = _rotate(re, im, other_re, other_im, a_re, a_im, b_re, b_im, COMPLEX)
            if RIGHT:
                other_re, other_im = _partner(v_re, v_im, partner, COMPLEX)
                v_re, v_im = _rotate(v_re, v_im, other_re, other_im, a_re, a_im, b_re, b_im, COMPLEX)
        sweep += 1

    square = tl.sum(re * re + im * im, 0)
    norm = tl.sqrt(square)
    inverse = tl.where(square > negligible, 1 / tl.where(square > negligible, norm, 1.0), 0.0)[None, :]
    store(left, here, inside, re * inverse, im * inverse, COMPLEX)
    tl.store(values + program * n + index, norm, index < n)
    if RIGHT:
        kept = (diagonal < n) & (column < n)
        store(right, (program * n + diagonal) * n + column, kept, v_re, v_im, COMPLEX)


def serves(matrix: Tensor) -> bool:
    """Whether the matrices, after a QR reduction of tall ones, fit on chip."""
    return matrix.numel() > 0 and min(matrix.shape[-2:]) <= LARGEST[matrix.dtype]


def blocks(dtype: torch.dtype, m: int, n: int) -> tuple[int, int, dict[str, int]]:
    """ROWS, COLUMNS and launch options at which no thread spills a register."""
    rows, columns = triton.next_power_of_2(m), max(2, triton.next_power_of_2(n))
    numbers = rows * columns * (2 if dtype.is_complex else 1)
    return rows, columns, launch_options(min(16, max(1, numbers // 512)))


def _reals(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _jacobi(matrix: Tensor, right: bool) -> tuple[Tensor, Tensor, Tensor]:
    """U (batch, m, n), s (batch, n) and V (batch, n, n), which is left unset unless `right`."""
    batch, m, n = matrix.shape
    matrix = matrix.resolve_conj().contiguous()
    U, V = torch.empty_like(matrix), matrix.new_empty(batch, n, n)
    values = matrix.new_empty(batch, n, dtype=matrix.dtype.to_real())
    rows, columns, options = blocks(matrix.dtype, m, n)
    with torch.cuda.device_of(matrix):
        jacobi_kernel[(batch,)](
            _reals(matrix),
            _reals(U),
            _reals(V),
            values,
            m,
            n,
            2 * torch.finfo(matrix.dtype).eps * math.sqrt(m),
            SWEEPS,
            ROWS=rows,
            COLUMNS=columns,
            COMPLEX=matrix.is_complex(),
            RIGHT=right,
            **options,
        )
    return U, values, V


def svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U, S and Vh of (..., m, n), thin."""
    batch, (m, n) = matrix.shape[:-2], matrix.shape[-2:]
    if m < n:
        V, S, Uh = svd(matrix.mH)
        return Uh.mH.contiguous(), S, V.mH.contiguous()
    flat = matrix.reshape(-1, m, n)
    if m > LARGEST[matrix.dtype]:
        Q, R = torch.linalg.qr(flat)
        U, S, Vh = svd(R)
        U = Q @ U
    else:
        U, S, Vh = _svd_on_chip(flat)
    return U.reshape(*batch, m, n), S.reshape(*batch, n), Vh.reshape(*batch, n, n)


def _svd_on_chip(flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    scale = _largest_entry(flat)
    U, S, V = _jacobi(flat / scale, right=True)
    vanishing = (torch.linalg.vector_norm(U, dim=-2) == 0)[:, None, :]
    if bool(vanishing.any()):
        U = torch.where(vanishing, torch.linalg.qr(U).Q, U)
    return U, S * scale[..., 0], V.mH.contiguous()


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and eigenvectors of (..., n, n), from the lower triangle."""
    n = matrix.shape[-1]
    lower = matrix.tril(-1)
    diagonal = matrix.diagonal(dim1=-2, dim2=-1).real
    flat = (lower + lower.mH + torch.diag_embed(diagonal).to(matrix.dtype)).reshape(-1, n, n)
    scale = _largest_entry(flat)
    unit = flat / scale
    shift = 2 * torch.linalg.matrix_norm(unit)[:, None]
    shift = torch.where(shift > 0, shift, 1)
    Q, shifted, _ = _jacobi(unit + torch.diag_embed(shift.expand(-1, n)).to(unit.dtype), right=False)
    values = (shifted - shift) * scale[..., 0]
    return values.flip(-1).reshape(matrix.shape[:-1]), Q.flip(-1).reshape(matrix.shape)


def _largest_entry(flat: Tensor) -> Tensor:
    """The largest modulus (batch, 1, 1), 1 for a zero matrix: scaled by it, nothing over- or underflows."""
    largest = flat.abs().amax((-2, -1), keepdim=True)
    return torch.where(largest > 0, largest, 1)
