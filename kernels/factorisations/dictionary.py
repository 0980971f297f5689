"""A matrix as a dictionary times column-sparse coefficients."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..dispatch.checks import require_matrix
from ..svd import svd
from .low_rank import shown, whitening

ROUNDS = 10


class SparseDictionary(NamedTuple):
    """A matrix `dictionary` @ `coefficients`, (..., m, atoms) and (..., atoms, n), the latter mostly zeros."""

    dictionary: Tensor
    coefficients: Tensor


@torch.no_grad()
def sparse_dictionary(
    matrix: Tensor, atoms: int, sparsity: int, gram: Tensor | None = None
) -> SparseDictionary:
    """A dictionary D and coefficients C, `sparsity` nonzeros a column, of small error |X (W - D C)|_F.

    W are weights, X inputs with Gram matrix G = X^H X.

    Alternates, from the leading left singular vectors of G^1/2 W as atoms:
        coding      C by batched orthogonal matching pursuit; a column keeps its code where that is closer;
        dictionary  an atom and its row of C after the other, by one step of the power method towards the leading
                    singular triplet of what the others leave of the columns that use it.
    No step increases the error. Where it ends above that of the best matrix of rank
    r = (m atoms + n sparsity) // (m + n), which has at most as many numbers, that one is returned, its r atoms
    before atoms that are zero: the error is never above that of a truncated singular value decomposition of equal
    size.

    Args:
        matrix: W (..., m, n), float32, float64, complex64 or complex128.
        atoms: of D; at least 1.
        sparsity: nonzeros in a column of C, from 1 to `atoms` and to m.
        gram: G (..., m, m), as in `truncated_svd`.

    Returns:
        dictionary (..., m, atoms) and coefficients (..., atoms, n), in the precision of W; computed in double.
        They are a choice, without gradient.

    Raises:
        ValueError: a number, a shape, a dtype or a device.
        torch.linalg.LinAlgError: an argument holds NaN or infinity.

    Source: Shopkhoev et al., "CoSpaDi: compressing LLMs via calibration-guided sparse dictionary learning", 2025;
    Rubinstein, Zibulevsky and Elad, "Efficient implementation of the K-SVD algorithm using batch orthogonal
    matching pursuit", 2008.

    Example:
        >>> matrix = torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 2.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0]])
        >>> dictionary, coefficients = sparse_dictionary(matrix, atoms=2, sparsity=1)
        >>> torch.allclose(dictionary @ coefficients, matrix), int((coefficients != 0).sum())
        (True, 4)
    """
    require_matrix("matrix", matrix)
    m, n = matrix.shape[-2:]
    if atoms < 1:
        raise ValueError(f"atoms must be at least 1, got {atoms}")
    if n == 0:
        raise ValueError(f"matrix must have at least one column, got shape {tuple(matrix.shape)}")
    if not 1 <= sparsity <= min(atoms, m):
        raise ValueError(
            f"sparsity must be from 1 to {min(atoms, m)} for {atoms} atoms of {shown(matrix)}, got {sparsity}"
        )
    X, unwhiten = whitening(matrix, gram)
    U, S, Vh = svd(X)
    D = _first_atoms(X, U, atoms)
    C = torch.zeros_like(X[..., :1, :]).expand(*X.shape[:-2], atoms, n).contiguous()
    for _ in range(ROUNDS):
        C = _closer(X, D, pursuit(D, X, sparsity), C)
        D, C = _improved(X, D, C)
    rank = min((m * atoms + n * sparsity) // (m + n), atoms, m, n)
    plain_D, plain_C = torch.zeros_like(D), torch.zeros_like(C)
    plain_D[..., :rank], plain_C[..., :rank, :] = U[..., :rank], S[..., :rank, None] * Vh[..., :rank, :]
    kept = (_error(X, D, C) <= _error(X, plain_D, plain_C))[..., None, None]
    D, C = torch.where(kept, D, plain_D), torch.where(kept, C, plain_C)
    return SparseDictionary((unwhiten @ D).to(matrix.dtype), C.to(matrix.dtype))


def pursuit(D: Tensor, X: Tensor, sparsity: int) -> Tensor:
    """Coefficients (..., atoms, n), `sparsity` nonzeros a column, of X (..., m, n) on the unit atoms of D (..., m,
    atoms): the atom most correlated with the residual joins, and at last least squares on all that have.

    Of each joining atom q is the part outside those before, of norm one: w = D^H q, a row for each column of X,
    brings the correlations p = D^H r up to date without the residual r.
    """
    gram, moments = D.mH @ D, (D.mH @ X).mT
    eps = D.shape[-1] * torch.finfo(gram.dtype).eps
    p, columns = moments, gram.mT.unsqueeze(-3).expand(*moments.shape, -1)
    W = moments.new_zeros(*moments.shape[:-1], sparsity, D.shape[-1])
    chosen = torch.empty(*moments.shape[:-1], 0, dtype=torch.long, device=X.device)
    for count in range(sparsity):
        best = p.abs().scatter(-1, chosen, -1.0).argmax(-1, keepdim=True)
        chosen = torch.cat([chosen, best], -1)
        before = W[..., :count, :]
        along = before.gather(-1, best[..., None].expand(*before.shape[:-1], 1))
        w = _rows(columns, best)[..., 0, :] - (before * along.conj()).sum(-2)
        square = w.gather(-1, best).real
        inverse = torch.where(square > eps, square.clamp_min(eps).rsqrt(), 0)
        w = w * inverse
        p = p - w * (p.gather(-1, best) * inverse)
        W[..., count, :] = w
    among = _rows(columns, chosen).gather(-1, chosen[..., None, :].expand(*chosen.shape, sparsity)).mT
    factor = torch.linalg.cholesky_ex(among + eps * torch.eye(sparsity, device=X.device))[0]
    values = torch.cholesky_solve(moments.gather(-1, chosen)[..., None], factor)[..., 0]
    return torch.zeros_like(moments).scatter(-1, chosen, values).mT


def _rows(matrices: Tensor, index: Tensor) -> Tensor:
    """Rows (..., k) of matrices (..., m, n): (..., k, n)."""
    return matrices.gather(-2, index[..., None].expand(*index.shape, matrices.shape[-1]))


def _first_atoms(X: Tensor, U: Tensor, atoms: int) -> Tensor:
    """Leading left singular vectors; where there are not as many, columns of X of norm one, in turn."""
    missing = max(atoms - U.shape[-1], 0)
    columns = X[..., torch.arange(missing, device=X.device) % X.shape[-1]]
    norms = torch.linalg.vector_norm(columns, dim=-2, keepdim=True)
    return torch.cat([U[..., :atoms], columns / norms.where(norms > 0, 1)], -1)


def _closer(X: Tensor, D: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """The better code of each column."""
    errors = [torch.linalg.vector_norm(X - D @ C, dim=-2, keepdim=True) for C in (new, old)]
    return torch.where(errors[0] <= errors[1], new, old)


def _improved(X: Tensor, D: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """Every atom and its row, where they are not zero, after the other."""
    D, C, residual = D.clone(), C.clone(), X - D @ C
    for j in range(D.shape[-1]):
        row, used = C[..., j, None, :], C[..., j, None, :] != 0
        left = residual + D[..., j, None] * row
        atom = left @ row.mH
        norm = torch.linalg.vector_norm(atom, dim=-2, keepdim=True)
        atom = torch.where(norm > 0, atom / norm.where(norm > 0, 1), D[..., j, None])
        row = (atom.mH @ left) * used
        residual = left - atom * row
        D[..., j], C[..., j, :] = atom[..., 0], row[..., 0, :]
    return D, C


def _error(X: Tensor, D: Tensor, C: Tensor) -> Tensor:
    return torch.linalg.vector_norm(X - D @ C, dim=(-2, -1))
