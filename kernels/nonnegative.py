"""Batched non-negative least squares for small matrices."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .dispatch.checks import broadcast_batches, require_matrix
from .dispatch.operator import under_transform
from .leading_triplet import power_of_two

FULL_EXCHANGES = 3
REFINEMENTS = 3
INDEPENDENT = 1e-8  # of a column's square, what must lie outside the others for normal equations to serve


def nonnegative_least_squares(C: Tensor, b: Tensor, guess: Tensor | None = None) -> Tensor:
    """argmin ||C g - b|| over g >= 0 for (..., n, n) C and (..., n) b, real, of any scale.

    guess: (..., n) booleans, where the solution may be positive; a good one saves time and changes nothing else.
    Computed in double precision, whatever the dtype, each column of C and each b over a power of two.

    The set of positive entries comes from block principal pivoting (Portugal, Judice and Vicente, Mathematics of
    Computation 1994), on normal equations. Where these do not serve, because a column has less than 1e-8 of its
    square outside the others, or the pivoting has not ended, it comes from the active set method of Lawson and
    Hanson (Solving Least Squares Problems, 1974, chapter 23) with orthogonal transformations alone: ||C g - b|| is
    then that of the minimum up to rounding, for condition numbers up to 1e12 and also for a singular C, of
    whose minimisers it finds one. The gradient is that of the least squares on the positive entries.

    A problem that holds NaN or infinity gives NaN; others of its batch are as without it.
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
    batch, n = broadcast_batches("C and b", C.shape[:-2], b.shape[:-1]), b.shape[-1]
    guess = torch.ones(*batch, n, dtype=torch.bool, device=b.device) if guess is None else guess
    if guess.shape[-1:] != b.shape[-1:] or guess.dtype != torch.bool:
        raise ValueError(f"guess must be {(*batch, n)} booleans, got {guess.dtype} {tuple(guess.shape)}")
    shape = (*broadcast_batches("guess and the others", guess.shape[:-1], batch), n)
    A, right = C.double().expand(*shape, -1), b.double().expand(shape)
    columns, size = (
        power_of_two(A.detach().abs().amax(-2)),
        power_of_two(right.detach().abs().amax(-1))[..., None],
    )
    A, right = A / columns[..., None, :], right / size
    positive, solution = _Solution.apply(A.detach(), right.detach(), guess.expand(shape))
    if A.requires_grad or right.requires_grad or under_transform():
        solution = _least_squares(A, right, positive)
    return (solution * (size / columns)).to(b.dtype)


def _least_squares(A: Tensor, b: Tensor, positive: Tensor) -> Tensor:
    """argmin ||A x - b|| where entries that are not positive are 0, to be differentiated."""
    Q, R = torch.linalg.qr(_restricted(A, positive))
    x = torch.linalg.solve_triangular(R, Q[..., : b.shape[-1], :].mT @ b.unsqueeze(-1), upper=True)
    return x.squeeze(-1) * positive


def _restricted(A: Tensor, positive: Tensor) -> Tensor:
    """The positive columns of A, and a unit vector below A for each of the others: (..., 2 n, n)."""
    kept = positive.to(A.dtype)
    return torch.cat([A * kept.unsqueeze(-2), torch.diag_embed(1 - kept)], dim=-2)


class _Solution(torch.autograd.Function):
    """Where the solution is positive, a decision without a gradient, and the solution; vmap only batches it."""

    @staticmethod
    def forward(A: Tensor, b: Tensor, guess: Tensor) -> tuple[Tensor, Tensor]:
        shape, n = b.shape, b.shape[-1]
        found = _solve(A.reshape(-1, n, n), b.reshape(-1, n), guess.reshape(-1, n))
        return found[0].reshape(shape), found[1].reshape(shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        return None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Tensor) -> tuple[Any, tuple[int, int]]:
        moved = [
            t.expand(info.batch_size, *t.shape) if dim is None else t.movedim(dim, 0)
            for t, dim in zip(args, in_dims, strict=True)
        ]
        return _Solution.apply(*moved), (0, 0)


def _solve(A: Tensor, b: Tensor, guess: Tensor) -> tuple[Tensor, Tensor]:
    """Where the solution is positive, and the solution, of (batch, n, n) and (batch, n) in double precision."""
    H, q = A.mT @ A, (A.mT @ b.unsqueeze(-1)).squeeze(-1)
    positive, solution = _by_normal_equations(H, q, guess)
    solution = solution.clamp(min=0)
    hard = _hard(H, q, positive, solution)
    if bool(hard.any()):
        positive, solution = positive.clone(), solution.clone()
        positive[hard], solution[hard] = active_set(A[hard], b[hard])
    return positive, solution


def _hard(H: Tensor, q: Tensor, positive: Tensor, x: Tensor) -> Tensor:
    """Which problems the normal equations do not serve; those that are not finite are not among them."""
    factor, failed = torch.linalg.cholesky_ex(H)
    squares = H.diagonal(dim1=-2, dim2=-1)
    outside = factor.diagonal(dim1=-2, dim2=-1).square() > INDEPENDENT * squares
    served = (failed == 0) & outside.all(-1) & ~_infeasible(H, q, positive, x).any(-1)
    return ~served & (squares + q).isfinite().all(-1)


def _by_normal_equations(H: Tensor, q: Tensor, guess: Tensor) -> tuple[Tensor, Tensor]:
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


def _restricted_solve(H: Tensor, q: Tensor, positive: Tensor) -> Tensor:
    """The solution of H x = q on the positive entries alone, zero on the others."""
    kept = positive.to(H.dtype)
    ridge = torch.finfo(H.dtype).eps * H.diagonal(dim1=-2, dim2=-1)
    system = H * kept.unsqueeze(-1) * kept.unsqueeze(-2) + torch.diag_embed(1 - kept + ridge)
    factor = torch.linalg.cholesky_ex(system)[0]
    return torch.cholesky_solve((q * kept).unsqueeze(-1), factor).squeeze(-1)


def _infeasible(H: Tensor, q: Tensor, positive: Tensor, x: Tensor) -> Tensor:
    """Positive entries whose solution x is negative, and others whose gradient asks for growth."""
    negligible = -100 * torch.finfo(q.dtype).eps * x.abs().amax(-1, keepdim=True)
    gradient = torch.bmm(H, x.unsqueeze(-1)).squeeze(-1) - q
    rounding = 100 * torch.finfo(q.dtype).eps * q.abs().amax(-1, keepdim=True)
    return torch.where(positive, x < negligible, gradient < -rounding)


class _Fit(NamedTuple):
    """The least squares on the positive entries, and how the columns of A lie to what they leave of b.

    solution (batch, n); outside: lengths of the columns outside the positive ones; gradient: their products with
    the residual, both (batch, n) and to the digits of these lengths; residual (batch,): its length.
    """

    solution: Tensor
    outside: Tensor
    gradient: Tensor
    residual: Tensor


def _fit(A: Tensor, b: Tensor, positive: Tensor) -> _Fit:
    """By one triangular factor of the positive columns, all columns and b side by side.

    Its lower rows are all columns and b without their parts along the positive ones, whose products do not
    depend on how they were turned.
    """
    n = b.shape[-1]
    everything = torch.cat([A, b.unsqueeze(-1)], dim=-1)
    below = everything.new_zeros(()).expand_as(everything)
    R = torch.linalg.qr(
        torch.cat([_restricted(A, positive), torch.cat([everything, below], -2)], -1), mode="r"
    ).R
    x = torch.linalg.solve_triangular(R[..., :n, :n], R[..., :n, -1:], upper=True).squeeze(-1)
    columns, rest = R[..., n:, n:-1], R[..., n:, -1:]
    gradient = (columns.mT @ rest).squeeze(-1)
    return _Fit(
        x * positive,
        torch.linalg.vector_norm(columns, dim=-2),
        gradient,
        torch.linalg.vector_norm(rest, dim=(-2, -1)),
    )


def active_set(A: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Let in the entry that promises most while the residual shrinks; put out those that it makes negative."""
    n = b.shape[-1]
    positive = torch.zeros_like(b, dtype=torch.bool)
    refused = positive
    fit = _fit(A, b, positive)
    for _ in range(10 * n + 10):
        rounding = 4 * torch.finfo(b.dtype).eps * fit.outside * fit.residual.unsqueeze(-1)
        promising = ~positive & ~refused & (fit.gradient > rounding)
        if not bool(promising.any()):
            break
        gain = torch.where(promising, fit.gradient / torch.where(promising, fit.outside, 1), -1)
        entering = promising & (torch.arange(n, device=b.device) == gain.argmax(-1, keepdim=True))
        trial, tried = _feasible(A, b, fit.solution, positive | entering)
        better = ((tried.residual < fit.residual) & tried.solution.isfinite().all(-1)).unsqueeze(-1)
        positive = torch.where(better, trial, positive)
        refused = ~better & (refused | entering)
        fit = _Fit(
            *(
                torch.where(better if x.ndim > 1 else better[..., 0], x, y)
                for x, y in zip(tried, fit, strict=True)
            )
        )
    return positive, _refined(A, b, positive, fit.solution)


def _refined(A: Tensor, b: Tensor, positive: Tensor, x: Tensor) -> Tensor:
    """x corrected by the least squares of its residual, as long as that shrinks and x stays feasible."""
    residual = b - (A @ x.unsqueeze(-1)).squeeze(-1)
    for _ in range(REFINEMENTS):
        y = x + _least_squares(A, residual, positive)
        left = b - (A @ y.unsqueeze(-1)).squeeze(-1)
        shorter = torch.linalg.vector_norm(left, dim=-1) < torch.linalg.vector_norm(residual, dim=-1)
        better = (shorter & (y >= 0).all(-1)).unsqueeze(-1)
        x, residual = torch.where(better, y, x), torch.where(better, left, residual)
    return x


def _feasible(A: Tensor, b: Tensor, x: Tensor, positive: Tensor) -> tuple[Tensor, _Fit]:
    """From x >= 0 towards the least squares on the positive entries, less those that become 0 on the way."""
    fit = _fit(A, b, positive)
    for _ in range(b.shape[-1]):
        negative = positive & ~(fit.solution > 0)
        if not bool(negative.any()):
            break
        reach = torch.where(negative, x / torch.where(negative, x - fit.solution, 1), torch.inf)
        reach = torch.where(negative & (x == 0), 0, reach)
        step = reach.amin(-1, keepdim=True)
        positive = positive & ~(negative & (reach <= step))
        x = torch.where(positive, (x + step.clamp(max=1) * (fit.solution - x)).clamp(min=0), 0)
        fit = _fit(A, b, positive)
    return positive, fit
