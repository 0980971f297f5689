"""AM-KroSBL: the M-step alternates over the factors until they settle."""

from dataclasses import dataclass

from torch import Tensor

from ..em.bound import BoundMinimisation, Sweeps
from ..em.compiled import Kind, Step
from ..em.state import State
from ..em.sweep import alternate


@dataclass(frozen=True, kw_only=True)
class AMKroSBL(BoundMinimisation):
    """Kronecker-structured SBL by alternating minimisation; its marginal cost rises only where it prunes.

    Each M-step sweeps over the factors, in the order 1..I with the newest others, and gives unit norm to all but
    the last, until kron g_i changes by less than `inner_tolerance` relative to its norm, at most `sweeps` times. A
    sweep lowers a bound of the marginal cost (`sbl.em.sweep.bound_sweep`). That of the paper, `as_published`, is

        g_i[n] = (1 / prod_{j != i} N_j) sum over the other modes of L / prod_{j != i} g_j

    whose EM needs thousands of iterations where entries are small; its `inner_tolerance` is relative only if
    `inner_relative`. With `tolerance=None` all `sweeps` are made, whatever their change.
    Source: He and Joseph, IEEE Trans. Signal Processing 2024, algorithm AM-KroSBL; the bound: Wipf and Nagarajan,
    IEEE J. Selected Topics in Signal Processing 2010.

    Takes, returns and raises what `ExpectationMaximisation.__call__` says.

    >>> import torch
    >>> A = [torch.eye(2, dtype=torch.float64), torch.eye(3, dtype=torch.float64)]
    >>> y = torch.tensor([0.0, 0.0, 0.0, 0.0, 5.0, 0.0], dtype=torch.float64)
    >>> AMKroSBL()(A, y, 1e-6).mean.round(decimals=3)
    tensor([[0., 0., 0.],
            [0., 5., 0.]], dtype=torch.float64)
    """

    pruning: float | tuple[float, ...] = 1e-2
    inner_tolerance: float = 1e-5
    inner_relative: bool = False
    sweeps: int = 100

    def m_step(self, second_moment: Tensor, state: State) -> tuple[Tensor, ...]:
        return alternate(second_moment, state.g, *self.inner(), self.tolerance is not None)

    def inner(self) -> Sweeps:
        return Sweeps(self.sweeps, self.inner_tolerance, self.inner_relative or not self.as_published)

    def compiled_step(self, factors: int) -> Step:
        return Step(Kind.ALTERNATING if self.as_published else Kind.BOUND, *self.inner())
