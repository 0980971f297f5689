"""One-sided Jacobi on chip: the SVD and the Hermitian eigendecomposition of small matrices, one program each.

The columns of W = [A; I] are rotated in pairs until those of A are orthogonal: then A V = U diag(s), with V in the rows
that began as I. At step j of a sweep column i meets column i xor j, so that a sweep of COLUMNS - 1 steps meets every pair
once and half of the pairs rotate at a time. Each pair also puts the longer column first, which leaves s sorted.
For columns x, y with g = x^H y and z = (|y|^2 - |x|^2) / (2 |g|):

    t = sign(z) / (|z| + sqrt(1 + z^2)),  c = 1 / sqrt(1 + t^2),  x' = c x - c t y~,  y' = c t x + c y~,  y~ = y g* / |g|

A Hermitian A is shifted by 2 |A|_F to be definite, with a condition number of at most 3; then U = V, and I is not needed.
Source: Hestenes, "Inversion of matrices by biorthogonalization", 1958; Demmel and Veselic, "Jacobi's method is more
accurate than QR", 1992; de Rijk, "A one-sided Jacobi algorithm", 1989 (the order).
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

LARGEST = {torch.float32: 64, torch.float64: 64, torch.complex64: 64, torch.complex128: 32}
SWEEPS = 30


@triton.jit
def jacobi_kernel(
    matrix,
    vectors,
    values,
    m,
    n,
    total_rows,
    tolerance,
    negligible,
    max_sweeps,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    COMPLEX: tl.constexpr,
):
    """W = [A; I] in `matrix` (batch, total_rows, n) to rotated W, its first m rows normalised, and their norms.

    Complex numbers are pairs of reals. `tolerance` bounds |g| / (|x| |y|), columns with |x|^2 below `negligible` are zero.
    """
    PARTS: tl.constexpr = 2 if COMPLEX else 1
    row = tl.arange(0, ROWS)[:, None]
    index = tl.arange(0, COLUMNS)
    column = index[None, :]
    inside = (row < total_rows) & (column < n)
    top = row < m
    here = (tl.program_id(0).to(tl.int64) * total_rows + row) * n + column
    re = tl.load(matrix + here * PARTS, mask=inside, other=0.0)
    im = tl.zeros_like(re)
    if COMPLEX:
        im = tl.load(matrix + here * PARTS + 1, mask=inside, other=0.0)

    changes = 1
    sweep = 0
    while (changes > 0) & (sweep < max_sweeps):
        changes = 0
        for step in range(1, COLUMNS):
            partner = index ^ step
            first = tl.minimum(index, partner)
            leads = index == first
            across = tl.broadcast_to(partner[None, :], (ROWS, COLUMNS))
            other_re = tl.gather(re, across, 1)
            square = re * re
            product = re * other_re
            other_im = im
            if COMPLEX:
                other_im = tl.gather(im, across, 1)
                square += im * im
                product += im * other_im
            square = tl.sum(tl.where(top, square, 0.0), 0)
            x_square = tl.gather(square, first, 0)
            y_square = tl.gather(square, tl.maximum(index, partner), 0)
            # One value a pair, read by both of its columns: they must decide alike.
            g_re = tl.gather(tl.sum(tl.where(top, product, 0.0), 0), first, 0)
            g_im = tl.zeros_like(g_re)
            g = tl.abs(g_re)
            if COMPLEX:
                g_im = tl.sum(tl.where(top, re * other_im - im * other_re, 0.0), 0)
                g_im = tl.gather(g_im, first, 0)
                largest = tl.maximum(g, tl.abs(g_im))
                divisor = tl.where(largest > 0, largest, 1.0)
                g = largest * tl.sqrt((g_re / divisor) * (g_re / divisor) + (g_im / divisor) * (g_im / divisor))

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
            own = tl.where(swaps, -signed, c)[None, :]
            others = tl.where(swaps, c, signed)[None, :]
            phase_re = tl.where(rotates, g_re / g, 1.0)
            if COMPLEX:
                phase_im = tl.where(rotates, -g_im / g, 0.0)
                own_re = own * tl.where(leads, 1.0, phase_re)[None, :]
                own_im = own * tl.where(leads, 0.0, phase_im)[None, :]
                others_re = others * tl.where(leads, phase_re, 1.0)[None, :]
                others_im = others * tl.where(leads, phase_im, 0.0)[None, :]
                new_re = own_re * re - own_im * im + others_re * other_re - others_im * other_im
                im = own_re * im + own_im * re + others_re * other_im + others_im * other_re
                re = new_re
            else:
                own = own * tl.where(leads, 1.0, phase_re)[None, :]
                others = others * tl.where(leads, phase_re, 1.0)[None, :]
                re = own * re + others * other_re
        sweep += 1

    square = tl.sum(tl.where(top, re * re + im * im, 0.0), 0)
    norm = tl.sqrt(square)
    inverse = tl.where(square > negligible, 1 / tl.where(square > negligible, norm, 1.0), 0.0)
    factor = tl.where(top, inverse[None, :], 1.0)
    tl.store(vectors + here * PARTS, re * factor, mask=inside)
    if COMPLEX:
        tl.store(vectors + here * PARTS + 1, im * factor, mask=inside)
    tl.store(values + tl.program_id(0).to(tl.int64) * n + index, norm, mask=index < n)


def serves(matrix: Tensor) -> bool:
    """Whether the matrices, after a QR reduction of tall ones, fit on chip."""
    return matrix.numel() > 0 and min(matrix.shape[-2:]) <= LARGEST[matrix.dtype]


def blocks(dtype: torch.dtype, total_rows: int, columns: int) -> tuple[int, int, int]:
    """ROWS, COLUMNS and the warps that leave each thread 32 registers of W."""
    rows, columns = triton.next_power_of_2(total_rows), max(2, triton.next_power_of_2(columns))
    words = rows * columns * dtype.itemsize // 4
    return rows, columns, min(16, max(1, words // 1024))


def _rotate(stacked: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """Rotated W (batch, rows, n) with its first m rows normalised, and the norms (batch, n)."""
    batch, total_rows, n = stacked.shape
    stacked = stacked.contiguous()
    vectors = torch.empty_like(stacked)
    values = stacked.new_empty(batch, n, dtype=stacked.dtype.to_real())
    rows, columns, warps = blocks(stacked.dtype, total_rows, n)
    eps = torch.finfo(stacked.dtype).eps
    as_reals = torch.view_as_real if stacked.is_complex() else torch.clone
    with torch.cuda.device_of(stacked):
        jacobi_kernel[(batch,)](
            as_reals(stacked),
            torch.view_as_real(vectors) if stacked.is_complex() else vectors,
            values,
            m,
            n,
            total_rows,
            2 * eps * math.sqrt(m),
            eps**4,
            SWEEPS,
            ROWS=rows,
            COLUMNS=columns,
            COMPLEX=stacked.is_complex(),
            num_warps=warps,
        )
    return vectors, values


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
    m, n = flat.shape[-2:]
    scale = _largest_entry(flat)
    identity = torch.eye(n, dtype=flat.dtype, device=flat.device).expand(len(flat), n, n)
    W, S = _rotate(torch.cat((flat / scale, identity), -2), m)
    U, V = W[:, :m], W[:, m:]
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
    Q, shifted = _rotate(unit + torch.diag_embed(shift.expand(-1, n)).to(unit.dtype), n)
    values = (shifted - shift) * scale[..., 0]
    return values.flip(-1).reshape(matrix.shape[:-1]), Q.flip(-1).reshape(matrix.shape)


def _largest_entry(flat: Tensor) -> Tensor:
    """The largest modulus (batch, 1, 1), 1 for a zero matrix: scaled by it, nothing over- or underflows."""
    largest = flat.abs().amax((-2, -1), keepdim=True)
    return torch.where(largest > 0, largest, 1)
