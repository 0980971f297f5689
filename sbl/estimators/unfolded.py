"""UnfoldedKroSBL: a fixed number of KroSBL iterations whose steps are tuned by training."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from ...kernels import kron_matvec
from ..algebra import kron_vectors, reciprocal, squared_modulus
from ..em import compiled
from ..em.block import solve as block
from ..em.functional import Functionals
from ..em.kronecker_posterior import KroneckerPosterior, kronecker_posterior
from ..em.loop import ExpectationMaximisation, untracked
from ..em.run import Moments
from ..em.state import State, initial_state
from ..em.units import Units, unit_columns, unit_power
from ..estimate import Ended, Estimate
from ..problem import Problem, pose
from .am_krosbl import AMKroSBL
from .svd_krosbl import SVDKroSBL

# Shares of the largest entry to which smaller prior variances, and second moments, are lifted.
LEAST_VARIANCE = 1e-6
LEAST_MOMENT = 1e-30
# The smallest value of 1 - variance / g.
LEAST_FREEDOM = 1e-6
FIRST_THRESHOLD = 1e-2
M_STEPS = ("svd", "am")


class UnfoldedKroSBL(nn.Module):
    """K iterations of KroSBL as a network of some hundred parameters, for one kind of problem.

    Iteration k, with learned numbers in Greek (each has an index k) and every g_i scaled to a largest entry of 1:

        s2_k   = s2 exp(nu) (||y||^2 / (M s2))^alpha               noise variance of the E-step: anneals
        L      = omega variance + |mean|^2 (1 - variance / g)^-eta  second moment, omega >= 0
        L~     = ((C_1 kron ... kron C_I) L)^sigma                 C_i circular: 1, and kappa_i >= 0 beside
        p      = M-step of SVD- or AM-KroSBL at L~
        l_i    = epsilon_i log p_i + mu_i log g_i                  damps, or exceeds
        log g_i <- l_i + gamma_i log sigmoid(l_i - theta_i)        smooth pruning below theta_i, gamma_i >= 0

    and the product of the g_i's scales is that of p times exp(rho). A last E-step gives the mean. omega = 1,
    eta = 0 is expectation-maximisation, omega = 0, eta = 1 MacKay's fixed point; kappa couples neighbours as
    PC-KroSBL's beta does. Untrained it is the base estimator: omega, sigma, epsilon = 1, all others but theta 0.

    iterations: K. factors: I. m_step: "svd" or "am", of which the latter makes `sweeps` sweeps.
    neighbours: entries of kappa_i, on each side. as_published: on columns as they are, with the M-step of the
        papers; else on columns of norm one, with SVD-KroSBL's default M-step, AM-KroSBL's published one.
    Source: the iterations are those of He and Joseph, IEEE Trans. Signal Processing 2024; the fixed point is that
    of MacKay, "Bayesian interpolation", 1992; unfolding follows Gregor and LeCun, "Learning fast approximations
    of sparse coding", 2010.

    >>> A = [torch.eye(2, dtype=torch.float64), torch.eye(3, dtype=torch.float64)]
    >>> y = torch.tensor([0.0, 0.0, 0.0, 0.0, 5.0, 0.0], dtype=torch.float64)
    >>> UnfoldedKroSBL(iterations=10, factors=2)(A, y, 1e-6).mean.detach().round(decimals=3)
    tensor([[0., 0., 0.],
            [0., 5., 0.]], dtype=torch.float64)
    """

    def __init__(
        self,
        iterations: int = 10,
        factors: int = 3,
        m_step: str = "svd",
        sweeps: int = 3,
        neighbours: int = 2,
        as_published: bool = False,
    ) -> None:
        super().__init__()
        for name, value in {"iterations": iterations, "factors": factors, "sweeps": sweeps}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if m_step not in M_STEPS:
            raise ValueError(f"m_step must be one of {', '.join(M_STEPS)}, got {m_step!r}")
        if neighbours < 0:
            raise ValueError(f"neighbours must not be negative, got {neighbours}")
        self.architecture = {
            "iterations": iterations,
            "factors": factors,
            "m_step": m_step,
            "sweeps": sweeps,
            "neighbours": neighbours,
            "as_published": as_published,
        }
        self.base = base_estimator(m_step, iterations, sweeps, as_published)
        self.start = nn.Parameter(torch.zeros(()))
        self.noise_gain = nn.Parameter(torch.zeros(iterations + 1))
        self.noise_exponent = nn.Parameter(torch.zeros(iterations + 1))
        self.variance_weight = nn.Parameter(torch.ones(iterations))
        self.fixed_point = nn.Parameter(torch.zeros(iterations))
        self.sharpness = nn.Parameter(torch.ones(iterations))
        self.scale_gain = nn.Parameter(torch.zeros(iterations))
        self.exponent = nn.Parameter(torch.ones(iterations, factors))
        self.memory = nn.Parameter(torch.zeros(iterations, factors))
        self.gate = nn.Parameter(torch.zeros(iterations, factors))
        self.threshold = nn.Parameter(torch.full((iterations, factors), math.log(FIRST_THRESHOLD)))
        self.coupling = nn.Parameter(torch.zeros(iterations, factors, neighbours))

    def forward(self, factors: Sequence[Tensor], y: Tensor, noise_variance: Tensor | float) -> Estimate:
        """Estimate x (..., N_1, ..., N_I) from y (..., M), differentiable in all arguments and parameters.

        It is zero where y is.

        Args:
            factors: I matrices (..., M_i, N_i), real or complex, single or double precision.
            y: (..., M_1 ... M_I), the first factor slowest, of the factors' dtype.
            noise_variance: s2, positive, broadcasts to the batch; it has to be known.

        Raises:
            ValueError: an argument has a wrong shape, a NaN, or a negative variance, or the noise variance is
                None; the message names it.
        """
        if noise_variance is None:
            raise ValueError("noise_variance must be given: UnfoldedKroSBL does not estimate it")
        problem = pose(factors, y, noise_variance)
        count = self.architecture["factors"]
        if len(problem.factors) != count:
            raise ValueError(f"factors must hold {count} matrices, got {len(problem.factors)}")
        problem, units = self._in_units(problem)
        g = self.base.start(problem)
        state = initial_state(problem, (*g[:-1], g[-1] * self.start.exp()))
        s2 = state.noise_variance
        levels = self._noise_levels(problem.y, s2)
        step = self.base.compiled_step(count)
        posterior = None
        if step is not None and self._untracked(problem) and block.serves(problem, "em_unfolded", step.kind):
            neighbours = self.coupling.shape[-1]
            g, moments = compiled.unfold(state, step, levels, self._numbers(), neighbours)
            state = state._replace(g=g, noise_variance=levels[-1])
        else:
            for k, noise in enumerate(levels[:-1]):
                before = kronecker_posterior(state._replace(noise_variance=noise))
                state = state._replace(g=self._m_step(k, before, state))
            state = state._replace(noise_variance=levels[-1])
            posterior = kronecker_posterior(state)
            moments = Moments(posterior.mean(), posterior.variance(), posterior.residual())
        return _estimate(problem, state, posterior, moments, s2, len(levels) - 1, units)

    def _untracked(self, problem: Problem) -> bool:
        """Whether no gradient can be asked for."""
        tracked = torch.is_grad_enabled() and any(x.requires_grad for x in self.parameters())
        return untracked(problem) and not tracked

    def _numbers(self) -> Tensor:
        """What the iterations have learned, (K, ...), as unfolded.cu reads it."""
        of_iterations = (
            _non_negative(self.variance_weight),
            self.fixed_point,
            self.sharpness,
            self.scale_gain,
        )
        of_factors = (self.exponent, self.memory, _non_negative(self.gate), self.threshold)
        coupling = _non_negative(self.coupling)
        each = torch.cat((torch.stack(of_factors, -1), coupling), -1)
        return torch.cat((torch.stack(of_iterations, -1), each.flatten(1)), -1).detach()

    def _in_units(self, problem: Problem) -> tuple[Problem, Units]:
        """The problem with mean |y|^2 = 1 and, but as published, columns of norm one."""
        norms = tuple(torch.ones_like(A[..., 0, :].real) for A in problem.factors)
        if not self.architecture["as_published"]:
            factors, norms = zip(*map(unit_columns, problem.factors), strict=True)
            problem = problem._replace(factors=factors)
        problem, amplitude = unit_power(problem)
        return problem, Units(norms, amplitude, problem.y.dtype)

    def _noise_levels(self, y: Tensor, s2: Tensor) -> list[Tensor]:
        """s2_1, ..., s2_K and that of the last E-step."""
        signal = squared_modulus(y).mean(-1).log() - s2.log()
        gains = self.noise_gain.to(s2.dtype), self.noise_exponent.to(s2.dtype)
        return [s2 * (gain + exponent * signal).exp() for gain, exponent in zip(*gains, strict=True)]

    def _m_step(self, k: int, posterior: KroneckerPosterior, state: State) -> tuple[Tensor, ...]:
        moment = self._moment(k, posterior)
        moment = kron_matvec([self._coupling(k, i, g) for i, g in enumerate(state.g)], moment)
        largest = moment.amax(-1, keepdim=True)
        sharp = (self.sharpness[k] * _relative_log(moment, LEAST_MOMENT)).exp()
        relative = tuple(g / g.amax(-1, keepdim=True) for g in state.g)
        proposal = self.base.m_step(sharp, state._replace(g=relative))
        scale = largest * self.scale_gain[k].to(largest.dtype).exp()
        for p in proposal:
            scale = scale * p.amax(-1, keepdim=True)
        *others, last = (
            self._log_variance(k, i, p, g).exp()
            for i, (p, g) in enumerate(zip(proposal, state.g, strict=True))
        )
        return (*others, last * scale)

    def _moment(self, k: int, posterior: KroneckerPosterior) -> Tensor:
        """L (B, n_1 ... n_I)."""
        prior, explained = kron_vectors(posterior.state.g), posterior.explained()
        freedom = (explained / prior).clamp(LEAST_FREEDOM, 1)
        variance = (prior - explained).clamp(min=0)
        power = squared_modulus(posterior.mean()) * freedom ** -self.fixed_point[k]
        return _non_negative(self.variance_weight[k]) * variance + power

    def _log_variance(self, k: int, i: int, proposal: Tensor, old: Tensor) -> Tensor:
        new = self.exponent[k, i] * _relative_log(proposal, LEAST_VARIANCE)
        new = new + self.memory[k, i] * _relative_log(old, LEAST_VARIANCE)
        new = new + _non_negative(self.gate[k, i]) * logsigmoid(new - self.threshold[k, i])
        return new.clamp(min=math.log(LEAST_VARIANCE))

    def _coupling(self, k: int, i: int, g: Tensor) -> Tensor:
        """C_i (1, n, n): 1 on the diagonal, kappa_i beside it and around the corners."""
        identity = torch.eye(g.shape[-1], dtype=g.dtype, device=g.device)
        C = identity
        for distance, weight in enumerate(_non_negative(self.coupling[k, i]), start=1):
            C = C + weight * (identity.roll(distance, -1) + identity.roll(-distance, -1))
        return C.unsqueeze(0)


def base_estimator(
    m_step: str, iterations: int, sweeps: int, as_published: bool = False
) -> ExpectationMaximisation:
    """The estimator that an untrained `UnfoldedKroSBL` equals: nothing pruned, started at the data's scale.

    AM-KroSBL is always the published one: on columns of norm one it is what the unfolded one equals.

    >>> base_estimator("svd", 10, 3).max_iterations
    10
    """
    if m_step == "svd":
        return SVDKroSBL(
            pruning=0.0,
            max_iterations=iterations,
            tolerance=None,
            as_published=as_published,
            scaled_start=as_published,
        )
    return AMKroSBL(
        pruning=0.0,
        as_published=True,
        max_iterations=iterations,
        tolerance=None,
        scaled_start=True,
        sweeps=sweeps,
        inner_tolerance=0.0,
    )


def _estimate(
    problem: Problem,
    state: State,
    posterior: KroneckerPosterior | None,
    moments: Moments,
    s2: Tensor,
    iterations: int,
    units: Units,
) -> Estimate:
    batch, lengths = problem.batch, problem.lengths
    mean, variance = units.moments(moments.mean, moments.variance, state.positions)
    return Estimate(
        mean=mean.reshape(*batch, *lengths),
        variance=variance.reshape(*batch, *lengths),
        hyperparameters=tuple(v.reshape(*batch, v.shape[-1]) for v in units.prior_variances(state.g)),
        noise_variance=units.noise(s2).reshape(batch),
        iterations=torch.full(batch, iterations, device=s2.device),
        ended=torch.full(batch, Ended.ITERATIONS, device=s2.device),
        functionals=Functionals(state, posterior, units, batch, lengths, problem.y.dtype),
        residual_to_noise=(moments.residual * reciprocal(s2) / problem.y.shape[-1]).reshape(batch),
    )


def _non_negative(x: Tensor) -> Tensor:
    """max(x, 0), whose gradient passes also where x is negative, so that training can leave zero."""
    return x + (x.clamp(min=0) - x).detach()


def _relative_log(x: Tensor, least: float) -> Tensor:
    """log(x / max x), at least log(least)."""
    return (x / x.amax(-1, keepdim=True)).clamp(min=least).log()
