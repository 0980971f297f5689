"""LASSO, by the coordinate descent of celer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...kernels import kron_matvec
from ..em.units import equalise
from ..estimate import Ended, Estimate
from ..least_squares import point_estimate
from ..problem import Problem, pose

# Of an unknown noise level: most alternations, and the relative change at which it has settled.
ALTERNATIONS, SETTLED = 20, 1e-3


@dataclass(frozen=True, kw_only=True)
class LASSO:
    """argmin ||y - A x||^2 / 2 + t sum_n ||a_n|| |x_n|, |x_n| the modulus where x is complex.

    A complex problem is the group LASSO of real and imaginary parts, the pair of an entry being a group, of
    [[Re A, -Im A], [Im A, Re A]]. Both go through celer (extra `unfoldkit[baselines]`), one problem at a time,
    with the Kronecker product A formed: M N numbers.
    t = scale sqrt(2 s2 log N), or scale sqrt(s2 log N) where complex: the level under which noise alone stays in
    all N columns. An unknown s2 is ||y - A x||^2 / M, which alternates with x: the scaled LASSO.
    tolerance: of celer, the duality gap as a share of ||y||^2.
    Source: Chen, Donoho and Saunders, SIAM J. Scientific Computing 1998; Massias, Gramfort and Salmon, "Celer: a
    fast solver for the Lasso with dual extrapolation", ICML 2018; Sun and Zhang, "Scaled sparse linear
    regression", 2012.
    """

    scale: float = 1.0
    tolerance: float = 1e-8

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"scale must be positive, got {self.scale}")

    def __call__(
        self, factors: Sequence[Tensor], y: Tensor, noise_variance: Tensor | float | None = None
    ) -> Estimate:
        """Estimate x (..., N_1, ..., N_I) from y (..., M); the variance is zero.

        Raises:
            ValueError: an argument has a wrong shape, a NaN, or a negative variance, or celer is not installed;
                the message names it.
        """
        require_celer()
        problem, units = equalise(pose(factors, y, noise_variance), in_double=True)
        x, noise, passes = zip(*map(self._solve, _each(problem)), strict=True)
        found = torch.from_numpy(np.stack(x)).to(y.device)
        if problem.noise_variance is None:
            problem = problem._replace(
                noise_variance=torch.tensor(noise, dtype=found.real.dtype, device=y.device)
            )
        iterations = torch.tensor(passes, device=y.device)
        ended = torch.full_like(iterations, Ended.SETTLED)
        return point_estimate(problem, found, iterations, ended, iterations, units)

    def _solve(self, problem: Problem) -> tuple[np.ndarray, float, int]:
        """x (N,), the noise variance, and how often it was solved."""
        N = math.prod(problem.lengths)
        A = kron_matvec([F.cpu() for F in problem.factors], torch.eye(N, dtype=problem.y.dtype)).mT.numpy()
        y = problem.y[0].cpu().numpy()
        if problem.noise_variance is not None:
            s2 = float(problem.noise_variance[0])
            return self._lasso(A, y, s2), s2, 1
        s2, count, change = float(np.mean(np.abs(y) ** 2)), 0, math.inf
        while count < ALTERNATIONS and change > SETTLED:
            x = self._lasso(A, y, s2)
            s2, before = float(np.mean(np.abs(y - A @ x) ** 2)), s2
            count, change = count + 1, abs(s2 - before) / max(before, np.finfo(float).tiny)
        return x, s2, count

    def _lasso(self, A: np.ndarray, y: np.ndarray, s2: float) -> np.ndarray:
        from celer import GroupLasso, Lasso

        N = A.shape[1]
        if not np.any(y):
            return np.zeros(N, A.dtype)
        options: dict[str, Any] = {"fit_intercept": False, "tol": self.tolerance}
        if not np.iscomplexobj(A):
            t = self.scale * math.sqrt(2 * s2 * math.log(max(2, N)))
            return np.asarray(Lasso(alpha=t / len(y), **options).fit(np.asfortranarray(A), y).coef_)
        t = self.scale * math.sqrt(s2 * math.log(max(2, N)))
        pairs = GroupLasso(groups=2, alpha=t / (2 * len(y)), **options).fit(
            _real_pairs(A), np.concatenate((y.real, y.imag))
        )
        return np.asarray(pairs.coef_[0::2] + 1j * pairs.coef_[1::2])


def require_celer() -> None:
    """ValueError, which names the extra, where celer is not installed."""
    try:
        import celer  # noqa: F401
    except ImportError:
        raise ValueError("LASSO needs celer: pip install 'unfoldkit[baselines]'") from None


def _each(problem: Problem) -> list[Problem]:
    return [problem.pick(slice(k, k + 1)) for k in range(len(problem.y))]


def _real_pairs(A: np.ndarray) -> np.ndarray:
    """(2 M, 2 N), the columns of an entry's real and imaginary part side by side."""
    M, N = A.shape
    pairs = np.empty((2 * M, 2 * N), order="F")
    pairs[:M, 0::2], pairs[:M, 1::2] = A.real, -A.imag
    pairs[M:, 0::2], pairs[M:, 1::2] = A.imag, A.real
    return pairs
