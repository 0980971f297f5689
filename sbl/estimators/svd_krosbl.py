"""SVD-KroSBL: the M-step is a rank-one approximation by nested SVDs."""

from dataclasses import dataclass

from torch import Tensor

from ...kernels.leading_triplet import rank_one
from ..algebra import root
from ..em.compiled import Kind, Step
from ..em.loop import ExpectationMaximisation
from ..em.state import State


@dataclass(frozen=True, kw_only=True)
class SVDKroSBL(ExpectationMaximisation):
    """Kronecker-structured SBL by nested leading singular triplets.

    With X = L^(1/2), L = variance + |mean|^2, unfolded as N_1 x (N_2 ... N_I) ~ sigma u v^T: g_1 = |u|^2, and
    sigma |v| is unfolded and factored in its turn; the square of the last carries the scale. As published X = L
    and nothing is squared: the few strongest entries then rule the fit and draw it to a wrong support.
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
        g, rest = [], second_moment if self.as_published else root(second_moment)
        for length in [v.shape[-1] for v in state.g[:-1]]:
            _, u, image = rank_one(rest.unflatten(-1, (length, rest.shape[-1] // length)))
            g.append(u.abs())
            rest = image.abs()
        g.append(rest)
        return tuple(g) if self.as_published else tuple(v.square() for v in g)

    def compiled_step(self, factors: int) -> Step:
        return Step(Kind.NESTED_SVD if self.as_published else Kind.ROOT_SVD)
