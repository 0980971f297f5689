"""Singular value thresholding of tall matrices by the Gram matrix of their columns, on a GPU by products alone."""

import math

import torch
from torch import Tensor

from ...kernels import eigh

NEAR = 3e-4  # residual, from which on the rounding of a Gram matrix in float32 matters
LOW = 3e-3  # the share of a matrix's norm from which on it matters for a singular value
ACCURACY = 1e-8  # of the matrix's norm
# Columns up to which a GPU decomposes Gram matrices in less time than products take. H100, ms of 86 of order n by
# products / by eigh: n = 96 2.8 / 2.2, 128 2.9 / 3.5, 256 8.2 / 36, 484 45 / 256.
DECOMPOSED = 128
FAST_DOUBLES = ((8, 0), (9, 0), (10, 0))  # capabilities of GPUs with matrix units for double precision

# a x + b x^3 + c x^5: one that multiplies what is small, and keeps [0.68, 1.2] there, and one that settles at 1.
EXPANDING, SETTLING = (3.4445, -4.7750, 2.0315), (15 / 8, -10 / 8, 3 / 8)
SETTLED_AFTER = 4  # steps, from there to rounding
ROUNDING = 1e-15

Step = tuple[float, float, float]


def shrink(A: Tensor, level: Tensor, exactly: Tensor) -> Tensor:
    """Singular value thresholding of (batch, m, n) by `level` (batch,), within 1e-8 of their norm where `exactly`.

    So it always is in double precision, and on a GPU. Of other matrices, a Gram matrix in single precision does
    unless the level is so low that its rounding matters.
    """
    if _products_pay(A):
        wide = A.double()
        return A - A @ clip(wide.mT @ wide, level.double()).to(A.dtype)
    if A.dtype == torch.float64 or A.is_cuda:
        return _by_eigenvalues(A, level, torch.float64)
    low_rank = torch.empty_like(A)
    exactly = exactly | (level < LOW * torch.linalg.vector_norm(A, dim=(1, 2)))
    for members, dtype in ((exactly, torch.float64), (~exactly, A.dtype)):
        if members.any():
            low_rank[members] = _by_eigenvalues(A[members], level[members], dtype)
    return low_rank


def _products_pay(A: Tensor) -> bool:
    large = A.is_cuda and A.shape[2] > DECOMPOSED
    return large and torch.cuda.get_device_capability(A.device) in FAST_DOUBLES


def _by_eigenvalues(A: Tensor, level: Tensor, dtype: torch.dtype) -> Tensor:
    """Twice as fast as by `svd`; the Gram matrices are decomposed in `dtype`."""
    wide = A.to(dtype)
    values, V = eigh(wide.mT @ wide)
    t = level.to(dtype)[:, None]
    kept = 1 - t / torch.maximum(values.clamp_min(0).sqrt(), t)
    return A @ ((V * kept[:, None, :]) @ V.mT).to(A.dtype)


def clip(gram: Tensor, level: Tensor) -> Tensor:
    """min(1, t G^-1/2) of Gram matrices G = A^T A in double precision, by products of matrices alone.

    A times it is A with its singular values clipped at t, and A less that is A with them thresholded.

    With G scaled below one, max(G, t^2) = (G + t^2 + |G - t^2|) / 2 with |X| = X sign(X); t max(G, t^2)^-1/2 is
    sought. The sign function is iterated as X <- a X + b X^3 + c X^5; the inverse root as Y <- Y q, Z <- q Z from
    Y = max(G, t^2), Z = 1, with q = a + b ZY + c (ZY)^2. A polynomial that multiplies what is small by 3.4 goes
    first, then one that settles. A sign that has not settled is one of numbers that are small themselves.

    gram: (batch, n, n).  level: t (batch,), positive.  Within 1e-8 |A| / t.

    Source: Higham, Functions of Matrices, 2008, sections 5.3, 6.3 and 8.6; the first polynomial: Jordan et al.,
    "Muon: an optimizer for hidden layers in neural networks", 2024.

    >>> clip(torch.diag(torch.tensor([9.0, 0.25])).double()[None], torch.tensor([2.0]).double())[0].diagonal()
    tensor([0.6667, 1.0000], dtype=torch.float64)
    """
    bound = torch.linalg.matrix_norm(gram, torch.inf)
    bound = torch.maximum(bound, level**2)[:, None, None]
    square = level[:, None, None] ** 2 / bound
    root = math.sqrt(float(square.min()))
    unit = gram / bound
    rest = unit.clone()
    _diagonal(rest).sub_(square[:, 0])
    sign = rest
    for step in _steps(max(2 * ACCURACY * root, ROUNDING)):
        sign = sign @ _factor(sign @ sign, step)
    Y = (unit + rest @ sign) / 2
    _diagonal(Y).add_(square[:, 0] / 2)
    Z = torch.zeros_like(Y)
    _diagonal(Z).fill_(1)
    for step in _steps(root):
        q = _factor(Z @ Y, step)
        Y, Z = Y @ q, q @ Z
    return Z * square.sqrt()


def _steps(least: float) -> list[Step]:
    """Polynomials that bring all of [least, 1] to 1."""
    expanding = math.ceil(math.log(1 / least) / math.log(EXPANDING[0]))
    return [EXPANDING] * expanding + [SETTLING] * SETTLED_AFTER


def _factor(X: Tensor, step: Step) -> Tensor:
    """a + b X + c X^2."""
    a, b, c = step
    factor = torch.baddbmm(X, X, X, beta=b, alpha=c)
    _diagonal(factor).add_(a)
    return factor


def _diagonal(X: Tensor) -> Tensor:
    return X.diagonal(dim1=1, dim2=2)
