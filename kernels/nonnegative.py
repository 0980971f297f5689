"""Batched non-negative least squares for small matrices."""

from typing import Any

import torch
from torch import Tensor

from .dispatch.checks import require_matrix

FULL_EXCHANGES = 3


def nonnegative_least_squares(C: Tensor, b: Tensor, guess: Tensor | None = None) -> Tensor:
    """argmin ||C g - b|| over g >= 0 for (..., n, n) non-singular C and (..., n) b, real.

    guess: (..., n) booleans, where the solution may be positive; a good one saves time and changes nothing else.
    The normal equations are formed in double precision, whatever the dtype.

    The set of positive entries comes from block principal pivoting (Portugal, Judice and Vicente, Mathematics
    of Computation 1994); on it g solves the normal equations, and there the gradient is taken.

    Raises ValueError where shapes or dtypes do not fit.

    >>> C = torch.tensor([[1.0, 0.8], [0.8, 1.0]])
    >>> nonnegative_least_squares(C, torch.tensor([1.0, 0.0]))
    tensor([0.6098, 0.0000])
    """
    require_matrix("C", C, square=True)
    if C.is_complex() or b.is_complex() or not b.is_floating_point():
        raise ValueError(f"C and b must be real floating point, got {C.dtype} and {b.dtype}")
    if b.ndim < 1 or b.shape[-1] != C.shape[-1] or b.shape[-1] == 0:
        raise ValueError(f"b {tuple(b.shape)} must have one entry for each column of C {tuple(C.shape)}")
    if not _broadcast(C.shape[:-2], b.shape[:-1]):
        raise ValueError(f"the batches of C {tuple(C.shape)} and b {tuple(b.shape)} do not broadcast")
    exact = C.double()
    H = exact.mT @ exact
    q = (exact.mT @ b.double().unsqueeze(-1)).squeeze(-1)
    guess = torch.ones_like(q, dtype=torch.bool) if guess is None else guess
    fits = guess.shape[-1:] == q.shape[-1:] and _broadcast(guess.shape[:-1], q.shape[:-1])
    if not fits or guess.dtype != torch.bool:
        raise ValueError(f"guess must be {tuple(q.shape)} booleans, got {guess.dtype} {tuple(guess.shape)}")
    positive, solution = _Solution.apply(H.detach(), q.detach(), guess)
    if H.requires_grad or q.requires_grad or torch._C._are_functorch_transforms_active():
        solution = _restricted_solve(H, q, positive)
    return solution.clamp(min=0).to(b.dtype)


def _broadcast(one: torch.Size, other: torch.Size) -> bool:
    return all(m == n or 1 in (m, n) for m, n in zip(reversed(one), reversed(other), strict=False))


def _restricted_solve(H: Tensor, q: Tensor, positive: Tensor) -> Tensor:
    """The solution of H x = q on the positive entries alone, zero on the others."""
    kept = positive.to(H.dtype)
    ridge = torch.finfo(H.dtype).eps * H.diagonal(dim1=-2, dim2=-1)
    system = H * kept.unsqueeze(-1) * kept.unsqueeze(-2) + torch.diag_embed(1 - kept + ridge)
    factor = torch.linalg.cholesky_ex(system)[0]
    return torch.cholesky_solve((q * kept).unsqueeze(-1), factor).squeeze(-1)


class _Solution(torch.autograd.Function):
    """Where the solution is positive, a decision without a gradient, and the solution; vmap only batches it."""

    @staticmethod
    def forward(H: Tensor, q: Tensor, guess: Tensor) -> tuple[Tensor, Tensor]:
        _, q, guess = torch.broadcast_tensors(H[..., 0], q, guess)
        shape, n = q.shape, q.shape[-1]
        found = _solve(H.expand(*shape, n).reshape(-1, n, n), q.reshape(-1, n), guess.reshape(-1, n))
        return found[0].reshape(shape), found[1].reshape(shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        return None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Tensor) -> tuple[Any, tuple[int, int]]:
        moved = [t if dim is None else t.movedim(dim, 0) for t, dim in zip(args, in_dims, strict=True)]
        return _Solution.apply(*moved), (0, 0)


def _solve(H: Tensor, q: Tensor, guess: Tensor) -> tuple[Tensor, Tensor]:
    if H.is_cuda:
        from .gpu import nonnegative

        if nonnegative.serves(H):
            return nonnegative.pivoting(H, q, guess, FULL_EXCHANGES)
    return pivoting(H, q, guess)


def pivoting(H: Tensor, q: Tensor, guess: Tensor) -> tuple[Tensor, Tensor]:
    """Exchange infeasible entries in a block; after three exchanges that do not help, one at a time."""
    B, n = q.shape
    positive, solution = guess.clone(), torch.empty_like(q)
    members = torch.arange(B, device=q.device)
    fewest = torch.full((B,), n + 1, device=q.device)
    chances = torch.full((B,), FULL_EXCHANGES, device=q.device)
    order = torch.arange(1, n + 1, device=q.device)
    for _ in range(10 * n + 10):
        h, r, kept = (H, q, positive) if len(members) == B else (H[members], q[members], positive[members])
        x = _restricted_solve(h, r, kept)
        infeasible = _infeasible(h, r, kept, x)
        solution = x if len(members) == B else solution.index_copy(0, members, x)
        count = infeasible.sum(-1)
        rest = count > 0
        if not bool(rest.any()):
            break
        members, infeasible, count, kept = members[rest], infeasible[rest], count[rest], kept[rest]
        better = count < fewest[members]
        fewest[members] = torch.where(better, count, fewest[members])
        left = torch.where(better, FULL_EXCHANGES, chances[members] - 1)
        chances[members] = left
        last = infeasible & (order == (infeasible * order).amax(-1, keepdim=True))
        exchanged = torch.where((left >= 0).unsqueeze(-1), infeasible, last)
        positive[members] = kept ^ exchanged
    return positive, solution


def _infeasible(H: Tensor, q: Tensor, positive: Tensor, x: Tensor) -> Tensor:
    """Positive entries whose solution x is negative, and others whose gradient asks for growth."""
    negligible = -100 * torch.finfo(q.dtype).eps * x.abs().amax(-1, keepdim=True)
    gradient = torch.bmm(H, x.unsqueeze(-1)).squeeze(-1) - q
    rounding = 100 * torch.finfo(q.dtype).eps * q.abs().amax(-1, keepdim=True)
    return torch.where(positive, x < negligible, gradient < -rounding)
