"""LASSO, by the coordinate descent of celer."""

import math
import warnings
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
ALTERNATIONS, SETTLED = 500, 1e-3


@dataclass(frozen=True, kw_only=True)
class LASSO:
    """argmin ||y - A x||^2 / 2 + t sum_n ||a_n|| |x_n|, |x_n| the modulus where x is complex.

    A complex problem is the group LASSO of real and imaginary parts, the pair of an entry being a group, of
    [[Re A, -Im A], [Im A, Re A]]. Both go through celer (extra `unfoldkit[baselines]`), one problem at a time,
    with the Kronecker product A formed: M N numbers.
    t = scale sqrt(2 s2 log N), or scale sqrt(s2 log N) where complex: the level under which noise alone stays in
    all N columns. An unknown s2 is ||y - A x||^2 / M, which alternates with x: the scaled LASSO.
    tolerance: of celer, the duality gap as a share of ||y||^2. A problem has settled where celer and the
        alternation have, within 500 of these.
    Source: Chen, Donoho and Saunders, SIAM J. Scientific Computing 1998; Massias, Gramfort and Salmon, "Celer: a
    fast solver for the Lasso with dual extrapolation", ICML 2018; Sun and Zhang, "Scaled sparse linear
    regression", 2012.
    """

    scale: float = 1.0
    tolerance: float = 1e-8

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"scale must be positive, got {self.scale}")
        if not self.tolerance > 0:
            raise ValueError(f"tolerance must be positive, got {self.tolerance}")

    @torch.no_grad()
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
        solved = [self._solve(each) for each in _each(problem)]
        x, noise, passes, settled = zip(*solved, strict=True) if solved else ((), (), (), ())
        found = torch.from_numpy(np.reshape(x, (len(solved), math.prod(problem.lengths)))).to(problem.y)
        if problem.noise_variance is None:
            problem = problem._replace(
                noise_variance=torch.tensor(noise, dtype=found.real.dtype, device=y.device)
            )
        iterations = torch.tensor(passes, dtype=torch.long, device=y.device)
        ended = torch.where(
            torch.tensor(settled, dtype=torch.bool, device=y.device), Ended.SETTLED, Ended.ITERATIONS
        )
        return point_estimate(problem, found, iterations, ended, iterations, units)

    def _solve(self, problem: Problem) -> tuple[np.ndarray, float, int, bool]:
        """x (N,), the noise variance, how often it was solved, and whether all of it has settled."""
        N = math.prod(problem.lengths)
        A = kron_matvec([F.cpu() for F in problem.factors], torch.eye(N, dtype=problem.y.dtype)).mT.numpy()
        y = problem.y[0].cpu().numpy()
        if problem.noise_variance is not None:
            s2 = float(problem.noise_variance[0])
            x, settled = self._lasso(A, y, s2)
            return x, s2, 1, settled
        s2, count, change = float(np.mean(np.abs(y) ** 2)), 0, math.inf
        while count < ALTERNATIONS and change > SETTLED:
            x, settled = self._lasso(A, y, s2)
            s2, before = float(np.mean(np.abs(y - A @ x) ** 2)), s2
            count, change = count + 1, abs(s2 - before) / max(before, np.finfo(float).tiny)
        return x, s2, count, settled and change <= SETTLED

    def _lasso(self, A: np.ndarray, y: np.ndarray, s2: float) -> tuple[np.ndarray, bool]:
        """x (N,), and whether celer came to its tolerance."""
        from celer import GroupLasso, Lasso

        N = A.shape[1]
        if not np.any(y):
            return np.zeros(N, A.dtype), True
        options: dict[str, Any] = {"fit_intercept": False, "tol": self.tolerance}
        if not np.iscomplexobj(A):
            t = self.scale * math.sqrt(2 * s2 * math.log(max(2, N)))
            return _fit(Lasso(alpha=t / len(y), **options), np.asfortranarray(A), y)
        t = self.scale * math.sqrt(s2 * math.log(max(2, N)))
        solver = GroupLasso(groups=2, alpha=t / (2 * len(y)), **options)
        pairs, settled = _fit(solver, _real_pairs(A), np.concatenate((y.real, y.imag)))
        return pairs[0::2] + 1j * pairs[1::2], settled


def _fit(solver: Any, A: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, bool]:
    """The coefficients, and whether the solver settled: it warns where it did not."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = np.asarray(solver.fit(A, y).coef_)
    unsettled = [warning for warning in told if issubclass(warning.category, ConvergenceWarning)]
    for warning in told:
        if warning not in unsettled:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return found, not unsettled


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
