"""EM whose M-step lowers a bound of the marginal cost, which AM-KroSBL, KSBL and PC-KroSBL share."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..algebra import reciprocal, root, squared_modulus
from .kronecker_posterior import KroneckerPosterior
from .loop import ExpectationMaximisation, Posterior
from .state import State
from .sweep import coupled, lower_bound


class Sweeps(NamedTuple):
    """How often an M-step passes over the factors: until kron g moves by less than `tolerance`, at most `most`."""

    most: int
    tolerance: float
    relative: bool


@dataclass(frozen=True, kw_only=True)
class BoundMinimisation(ExpectationMaximisation):
    """EM by `sbl.em.sweep.lower_bound`; where `as_published`, by the estimator's `m_step`.

    The marginal cost rises only where an entry is pruned. An unknown noise variance follows the same bound:
    s2 <- sqrt(||y - A mean||^2 / tr K^-1), at least the rounding of y.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inner().most < 1:
            raise ValueError(f"sweeps must be at least 1, got {self.inner().most}")

    @abstractmethod
    def inner(self) -> Sweeps:
        """The sweeps of an M-step."""

    def couplings(self, state: State) -> Sequence[Tensor | None]:
        """C_i (B, n_i, n_i) of g_i = C_i s_i, None for the identity."""
        return [None] * len(state.g)

    def moments(self, posterior: Posterior) -> tuple[Tensor, ...]:
        if self.as_published:
            return super().moments(posterior)
        assert isinstance(posterior, KroneckerPosterior)
        return squared_modulus(posterior.mean()), posterior.gain()

    def maximise(self, moments: tuple[Tensor, ...], state: State) -> State:
        if self.as_published:
            return super().maximise(moments, state)
        power, gain = moments
        couplings = self.couplings(state)
        sources = lower_bound(
            power, gain, state.sources or state.g, couplings, *self.inner(), self.tolerance is not None
        )
        g = tuple(map(coupled, couplings, sources))
        return state._replace(g=g, sources=sources if state.sources else ())

    def next_noise(self, posterior: Posterior, state: State) -> Tensor:
        if self.as_published:
            return super().next_noise(posterior, state)
        M, s2 = state.y.shape[-1], state.noise_variance
        free = (M - posterior.degrees_of_freedom()).clamp(min=torch.finfo(s2.dtype).eps * M)
        power = squared_modulus(state.y.detach()).mean(-1)
        return torch.maximum(
            root(posterior.residual() * s2 * reciprocal(free)), torch.finfo(s2.dtype).eps * power
        )
