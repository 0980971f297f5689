"""Bounds on the mean square error that no estimator passes.

Both are of one who is told the directions, or the support, and hence hold for those who are not. They take the
noise variance as known, and not as a measurement of the signal's power.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...kernels.dispatch.checks import broadcast_batches
from .genie_mmse import GenieMMSE


def genie_bound(factors: Sequence[Tensor], variances: Tensor, noise_variance: Tensor) -> Tensor:
    """E||x^ - x||^2 of any estimate of x ~ N(0, diag(g)) is at least that of the genie who is told g:

        tr (diag(g) - diag(g) A^H (A diag(g) A^H + s2 I)^-1 A diag(g))

    which on the support is tr (diag(g)^-1 + A^H A / s2)^-1, the Bayesian Cramer-Rao bound of that linear and
    Gaussian problem.

    factors: (..., M_i, N_i). variances: g (..., N_1, ..., N_I), zero off the support. noise_variance: (...).
    Returns (...), float64. Raises ValueError as `GenieMMSE` does.
    Source: Van Trees, Detection, Estimation, and Modulation Theory I, 1968, section 2.4.

    >>> genie_bound([torch.eye(3)], torch.tensor([0.0, 1.0, 3.0]), torch.tensor(1.0))
    tensor(1.2500, dtype=torch.float64)
    """
    rows = torch.Size([A.shape[-2] for A in factors]).numel()
    batch = broadcast_batches(
        "factors and noise_variance", *(A.shape[:-2] for A in factors), noise_variance.shape
    )
    wide = [A.to(torch.complex128 if A.is_complex() else torch.float64) for A in factors]
    silent = torch.zeros(*batch, rows, dtype=wide[0].dtype, device=wide[0].device)
    return GenieMMSE(variances)(wide, silent, noise_variance).variance.flatten(-len(factors)).sum(-1)


def bilinear_bound(observed: Tensor, wanted: Tensor, noise_variance: Tensor) -> Tensor:
    """E||h^ - h||^2 of any estimate of h = D (a kron b) from y = B (a kron b) + noise is at least

        tr D (I + Q / (4 s2))^-1 D^H,   Q = 4 G + T_b(G) kron I + I kron T_a(G),   G = B^H B,

    a and b independent and CN(0, I), as the gains of two hops are whose directions the genie is told. T_a(G) is
    the trace over a, sum_c G[(c, .), (c, .)], which acts on b; T_b(G) is the trace over b, which acts on a.

    It is the Bayesian Cramer-Rao bound of (a, b), weighted by C = (dg)^H, g = a kron b, dg = [I kron b, a kron I]:
    the covariance inequality for the score C^H (d log p(y, a, b))^* reads MSE >= T K^-1 T^H with

        T = E[dg C] = 2 I,   K = E[C^H F C] + 4 E[g g^H] = Q / s2 + 4 I,   F = dg^H G dg / s2.

    Without the weight T = E[dg] = 0, since a and b are known only up to a factor between them, and the bound is
    void. At a high SNR it is below that of one who is not told that g is a product, and above that of one who is
    told a or b too.

    observed: B (..., M, n_a, n_b); wanted: D (..., H, n_a, n_b); noise_variance: (...). Returns (...), float64.
    Raises ValueError where shapes do not fit, or for real matrices.
    Source: Weinstein and Weiss, "A general class of lower bounds in parameter estimation", IEEE Trans. Information
    Theory 1988.

    >>> one = torch.ones(1, 1, 1, dtype=torch.complex128)
    >>> bilinear_bound(one, one, torch.tensor(1.0))
    tensor(0.4000, dtype=torch.float64)
    """
    for name, x in (("observed", observed), ("wanted", wanted)):
        if x.ndim < 3 or not x.is_complex():
            raise ValueError(f"{name} must be complex (..., rows, n_a, n_b), got {x.dtype} {tuple(x.shape)}")
    if observed.shape[-2:] != wanted.shape[-2:]:
        shapes = f"{tuple(observed.shape[-2:])} and {tuple(wanted.shape[-2:])}"
        raise ValueError(f"observed and wanted must agree in (n_a, n_b), got {shapes}")
    broadcast_batches(
        "observed, wanted and noise_variance", observed.shape[:-3], wanted.shape[:-3], noise_variance.shape
    )
    n_a, n_b = observed.shape[-2:]
    B, D = observed.to(torch.complex128).flatten(-2), wanted.to(torch.complex128).flatten(-2)
    G = B.mH @ B
    split = G.unflatten(-1, (n_a, n_b)).unflatten(-3, (n_a, n_b))
    eye_a, eye_b = (torch.eye(n, dtype=G.dtype, device=G.device) for n in (n_a, n_b))
    over_a = torch.einsum("...cbcd->...bd", split)
    over_b = torch.einsum("...acec->...ae", split)
    Q = 4 * split + torch.einsum("ae,...bd->...abed", eye_a, over_a)
    Q = Q + torch.einsum("...ae,bd->...abed", over_b, eye_b)
    Q = Q.flatten(-2).flatten(-3, -2)
    identity = torch.eye(n_a * n_b, dtype=G.dtype, device=G.device)
    s2 = noise_variance.to(torch.float64)[..., None, None]
    shrunk = torch.linalg.solve(s2 * identity + Q / 4, s2 * D.mH)
    return (D.mH.conj() * shrunk).real.sum((-2, -1))
