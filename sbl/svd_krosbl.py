"""SVD-KroSBL: the M-step is a rank-one approximation by nested SVDs."""

from dataclasses import dataclass

from torch import Tensor

from kernels.leading_triplet import rank_one
from sbl import single_problem
from sbl.em import ExpectationMaximisation, untracked
from sbl.problem import Problem
from sbl.run import Run
from sbl.state import State, initial_state


@dataclass(frozen=True, kw_only=True)
class SVDKroSBL(ExpectationMaximisation):
    """Kronecker-structured SBL by nested leading singular triplets.

    With L = variance + |mean|^2 unfolded as N_1 x (N_2 ... N_I) ~ sigma u v^T: g_1 = |u|, and sigma |v| is
    unfolded and factored in its turn; the last factor carries the scale.
    Source: He and Joseph, IEEE Trans. Signal Processing 2024, algorithm SVD-KroSBL.

    Takes, returns and raises what `ExpectationMaximisation.__call__` says.

    >>> import torch
    >>> A = [torch.eye(2, dtype=torch.float64), torch.eye(3, dtype=torch.float64)]
    >>> y = torch.tensor([0.0, 0.0, 0.0, 0.0, 5.0, 0.0], dtype=torch.float64)
    >>> SVDKroSBL()(A, y, 1e-6).mean.round(decimals=3)
    tensor([[0., 0., 0.],
            [0., 5., 0.]], dtype=torch.float64)
    """

    pruning: float | tuple[float, ...] = 1e-3

    def m_step(self, second_moment: Tensor, state: State) -> tuple[Tensor, ...]:
        g, rest = [], second_moment
        for length in [v.shape[-1] for v in state.g[:-1]]:
            _, u, image = rank_one(rest.unflatten(-1, (length, rest.shape[-1] // length)))
            g.append(u.abs())
            rest = image.abs()
        return (*g, rest)

    def _run(self, problem: Problem, ratios: tuple[float, ...], history: bool) -> Run:
        plain = type(self) is SVDKroSBL and not history and untracked(problem)
        if self.tolerance is None or not (plain and single_problem.serves(problem)):
            return super()._run(problem, ratios, history)
        state = initial_state(problem, self.start(problem))
        unknown = problem.noise_variance is None
        return single_problem.solve(state, ratios, self.floor, unknown, self.max_iterations, self.tolerance)
