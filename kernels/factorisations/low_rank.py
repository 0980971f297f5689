"""The best matrix of a given rank, where errors count as a Gram matrix weighs them."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..dispatch.checks import require_broadcast, require_matrix, require_one_device
from ..eigh import eigh
from ..svd import svd

DAMPING = 1e-8  # of the Gram matrix's mean eigenvalue, for directions that it knows nothing of


class LowRank(NamedTuple):
    """A matrix `left` @ `right`, (..., m, r) and (..., r, n)."""

    left: Tensor
    right: Tensor


def truncated_svd(
    matrix: Tensor, rank: int, gram: Tensor | None = None, output_gram: Tensor | None = None
) -> LowRank:
    """argmin |X (W - L R) Y|_F over L (m, rank) and R (rank, n), of weights W that act on inputs X with Gram
    matrix G = X^H X and whose outputs count by Y with H = Y Y^H.

        G^1/2 W H^1/2 = U diag(S) V^H,   L = G^-1/2 U_r,   R = diag(S_r) V_r^H H^-1/2
        error^2 = sum of S_i^2, i > rank

    Args:
        matrix: W (..., m, n), float32, float64, complex64 or complex128.
        rank: at least 1, at most min(m, n).
        gram: G (..., m, m), Hermitian, semidefinite; the identity by default, which gives the truncated singular
            value decomposition. Its eigenvalues are raised by 1e-8 of their mean: of inputs that never occurred,
            W's own size counts.
        output_gram: H (..., n, n), likewise; such as the curvature of a loss along the outputs.

    Returns:
        left (..., m, rank), right (..., rank, n), in the precision of W; computed in double.

    Raises:
        ValueError: the rank, a shape, a dtype or a device.
        torch.linalg.LinAlgError: an argument holds NaN or infinity.

    Source: Eckart and Young, 1936; with a Gram matrix Hsu et al., "Language model compression with weighted
    low-rank factorization", ICLR 2022, and its full form in Wang et al., "SVD-LLM", ICLR 2025; two of them as in
    Martens and Grosse, "Optimizing neural networks with Kronecker-factored approximate curvature", ICML 2015.

    Example:
        >>> left, right = truncated_svd(torch.diag(torch.tensor([3.0, 2.0, 1.0])), 2)
        >>> (left @ right).diagonal().round(decimals=4)
        tensor([3., 2., 0.])
    """
    require_matrix("matrix", matrix)
    if not 1 <= rank <= min(matrix.shape[-2:]):
        raise ValueError(f"rank must be from 1 to {min(matrix.shape[-2:])} for {shown(matrix)}, got {rank}")
    whitened, rows = whitening(matrix, gram)
    turned, columns = whitening(whitened.mH, output_gram, "output_gram")
    U, S, Vh = svd(turned.mH)
    left, right = rows @ U[..., :rank], S[..., :rank, None] * Vh[..., :rank, :] @ columns
    return LowRank(left.to(matrix.dtype), right.to(matrix.dtype))


def whitening(matrix: Tensor, gram: Tensor | None, name: str = "gram") -> tuple[Tensor, Tensor]:
    """G^1/2 W and G^-1/2 (the identity where G is None), in double precision; G is called `name` in errors."""
    wide = matrix.to(torch.complex128 if matrix.is_complex() else torch.float64)
    m = matrix.shape[-2]
    if gram is None:
        return wide, torch.eye(m, dtype=wide.dtype, device=wide.device)
    require_matrix(name, gram, square=True)
    require_one_device(matrix=matrix, **{name: gram})
    if gram.shape[-1] != m or (gram.is_complex() and not matrix.is_complex()):
        found = f"{name} {tuple(gram.shape)} {gram.dtype}"
        side, given = ("row", matrix) if name == "gram" else ("column", matrix.mT)
        raise ValueError(f"{found} must have one row for each {side} of {shown(given)} {matrix.dtype}")
    square = torch.Size((*matrix.shape[:-1], m))
    require_broadcast(name, gram.shape, "the Gram matrices of matrix", square)
    eigenvalues, Q = eigh(gram.to(wide.dtype))
    mean = eigenvalues.clamp_min(0).mean(-1, keepdim=True)
    root = (eigenvalues.clamp_min(0) + torch.where(mean > 0, DAMPING * mean, 1)).sqrt()[..., None, :]
    return (Q * root) @ (Q.mH @ wide), (Q / root) @ Q.mH


def shown(matrix: Tensor) -> str:
    return f"matrix {tuple(matrix.shape)}"
