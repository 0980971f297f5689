"""SVD-KroSBL: the M-step is a rank-one approximation by nested SVDs."""

import math
from dataclasses import dataclass

from torch import Tensor

from ...kernels.leading_triplet import rank_one
from ..algebra import root
from ..em.compiled import Kind, Step
from ..em.loop import ExpectationMaximisation
from ..em.state import State
from ..em.units import SMALL
from ..problem import Problem

SHARP = 2  # M-steps of a large problem that fit L itself


@dataclass(frozen=True, kw_only=True)
class SVDKroSBL(ExpectationMaximisation):
    """Kronecker-structured SBL by nested leading singular triplets.

    With X = L^(1/2), L = variance + |mean|^2, unfolded as N_1 x (N_2 ... N_I) ~ sigma u v^T: g_1 = |u|^2, and
    sigma |v| is unfolded and factored in its turn; the square of the last carries the scale. As published X = L
    and nothing is squared: the few strongest entries then rule the fit and draw it to a wrong support. But among
    very many entries they stand out at once, where roots take tens of iterations to leave the flat start: more
    than 65,536 unknowns begin, if not at a `prior`, with two fits of L. `pruning` is 1e-2, as published 1e-3.
    Source: He and Joseph, IEEE Trans. Signal Processing 2024, algorithm SVD-KroSBL.

    Takes, returns and raises what `ExpectationMaximisation.__call__` says.

    >>> import torch
    >>> A = [torch.eye(2, dtype=torch.float64), torch.eye(3, dtype=torch.float64)]
    >>> y = torch.tensor([0.0, 0.0, 0.0, 0.0, 5.0, 0.0], dtype=torch.float64)
    >>> SVDKroSBL()(A, y, 1e-6).mean.round(decimals=3)
    tensor([[0., 0., 0.],
            [0., 5., 0.]], dtype=torch.float64)
    """

    pruning: float | tuple[float, ...] | None = None

    def usual_pruning(self) -> float:
        return 1e-3 if self.as_published else 1e-2

    def begin(self, problem: Problem) -> State:
        large = math.prod(problem.lengths) > SMALL and problem.prior is None
        return super().begin(problem)._replace(sharp=SHARP if large else 0)

    def maximise(self, moments: tuple[Tensor, ...], state: State) -> State:
        return super().maximise(moments, state)._replace(sharp=max(0, state.sharp - 1))

    def m_step(self, second_moment: Tensor, state: State) -> tuple[Tensor, ...]:
        if self.as_published or state.sharp:
            return _nested(second_moment, state)
        return tuple(v.square() for v in _nested(root(second_moment), state))

    def compiled_step(self, factors: int) -> Step:
        return Step(Kind.NESTED_SVD if self.as_published else Kind.ROOT_SVD)


def _nested(X: Tensor, state: State) -> tuple[Tensor, ...]:
    """The factors of X (B, n_1 ... n_I) by nested rank-one approximations."""
    g, rest = [], X
    for length in [v.shape[-1] for v in state.g[:-1]]:
        _, u, image = rank_one(rest.unflatten(-1, (length, rest.shape[-1] // length)))
        g.append(u.abs())
        rest = image.abs()
    return (*g, rest)
