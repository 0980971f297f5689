"""What a reflecting surface is set to: phases of few bits, chosen for a channel or for its estimate."""

import math

import torch
from torch import Tensor

from .irs_mimo import IRSMIMO

SWEEPS = 30


def quantised(phases: Tensor, bits: int | None) -> Tensor:
    """The nearest of 2^bits phases 0, 2 pi / 2^bits, ...; as they are where bits is None.

    Raises ValueError for fewer than one bit.

    >>> quantised(torch.tensor([0.1, 3.0, -1.7]), 1)
    tensor([0.0000, 3.1416, 3.1416])
    """
    if bits is None:
        return phases
    if bits < 1:
        raise ValueError(f"bits must be at least 1, got {bits}")
    step = 2 * math.pi / 2**bits
    return (phases / step).round().remainder(2**bits) * step


def optimised_phases(elements: Tensor, bits: int | None = None) -> Tensor:
    """Phases p (..., S) that make ||sum_s exp(j p_s) C_s||^2 large, C_s the channel through element s.

    Element after element takes the phase that is best given the others, the angle of sum_{t != s} <C_s, C_t>
    e^{j p_t}, or the nearest of 2^bits; no step lowers the energy. It begins at the leading eigenvector of the
    Gram matrix.

    elements: C (..., S, K), complex, K everything that a channel holds: antennas, users, subcarriers.
    Source: Wu and Zhang, IEEE Trans. Communications 2020 (discrete phases), section IV.

    >>> C = torch.tensor([[1.0 + 0j], [1j], [-1.0 + 0j]])
    >>> p = optimised_phases(C)
    >>> round(float((torch.polar(torch.ones(3), p) @ C).abs()), 4)
    3.0
    """
    gram = elements.conj() @ elements.mT
    phases = quantised(torch.linalg.eigh(gram)[1][..., -1].angle(), bits)
    theta = torch.polar(torch.ones_like(phases), phases)
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    for _ in range(SWEEPS):
        before = theta
        for s in range(theta.shape[-1]):
            others = (gram[..., s, :] * theta).sum(-1) - diagonal[..., s] * theta[..., s]
            best = quantised(others.angle(), bits)
            theta = theta.index_fill(-1, torch.tensor(s, device=theta.device), 0)
            theta = theta + _at(s, torch.polar(torch.ones_like(best), best), theta)
        if bool((theta == before).all()):
            break
    return theta.angle()


def _at(s: int, value: Tensor, like: Tensor) -> Tensor:
    """`value` (...) at index s of zeros of the shape of `like` (..., S)."""
    return torch.nn.functional.pad(value.unsqueeze(-1), (s, like.shape[-1] - s - 1))


def element_channels(system: IRSMIMO, x: Tensor) -> Tensor:
    """The channel through each element of the surface that coefficients x (..., N_irs, N_ms, N_bs) describe.

    The cascade of a pattern theta is sum_s theta_s C_s. Returns C (..., S, bs, ms).

    >>> element_channels(IRSMIMO(bs=4, ms=3, irs=8, grid=5), torch.zeros(5, 5, 5, dtype=torch.complex128)).shape
    torch.Size([8, 4, 3])
    """
    surface = system.dictionary(system.irs, x.device)
    seen = torch.einsum("sn,...nmb->...sbm", surface[:, :1] * surface.conj(), x)
    return system.dictionary(system.bs, x.device) @ seen @ system.dictionary(system.ms, x.device).mH


def rate(channel: Tensor, snr: Tensor | float) -> Tensor:
    """log2 det(I + SNR / ms H H^H), in bits a second and hertz, of H (..., bs, ms), nothing known to the sender.

    >>> rate(torch.eye(2, dtype=torch.complex64), 2.0)
    tensor(2.)
    """
    ms = channel.shape[-1]
    snr = torch.as_tensor(snr, dtype=channel.real.dtype, device=channel.device)
    values = torch.linalg.svdvals(channel).square()
    return torch.log2(1 + snr.unsqueeze(-1) / ms * values).sum(-1)


def rate_after_pilots(
    elements: Tensor, estimated: Tensor, snr: Tensor | float, bits: int | None, pilots: int, coherence: int
) -> Tensor:
    """The `rate` with phases optimised for an estimate, of what the pilots leave of a coherence interval.

        (1 - pilots / coherence) log2 det(I + SNR / ms H H^H),   H = sum_s exp(j p_s) C_s

    elements: C (..., S, bs, ms), the true channel through each element. estimated: the same, as estimated.
    pilots, coherence: in symbols. Raises ValueError where pilots do not fit into the interval.
    """
    if not 0 <= pilots <= coherence:
        raise ValueError(f"pilots must lie between 0 and coherence = {coherence}, got {pilots}")
    phases = optimised_phases(estimated.flatten(-2), bits)
    theta = torch.polar(torch.ones_like(phases), phases)
    H = torch.einsum("...s,...sbm->...bm", theta, elements)
    return (1 - pilots / coherence) * rate(H, snr)
