"""The sparse and dual updates of a robust PCA alternation in one pass: three reads and two writes a number.

R = D - B + Y / mu,  O = soft(R, lambda / mu),  Y' = mu (R - O).
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
def sparse_dual_kernel(
    observation,
    low_rank,
    dual,
    mu,
    lambda_,
    sparse,
    new_dual,
    size,
    BLOCK: tl.constexpr,
    COMPLEX: tl.constexpr,
):
    """D, B, Y (batch, size), mu and lambda (batch,) to O and Y'; complex numbers are pairs of reals."""
    batch = tl.program_id(0).to(tl.int64)
    number = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = number < size
    penalty = tl.load(mu + batch)
    threshold = tl.load(lambda_ + batch) / penalty
    here = batch * size + number
    if COMPLEX:
        here = 2 * here
        imaginary = here + 1
        im = tl.load(observation + imaginary, inside, 0.0) - tl.load(low_rank + imaginary, inside, 0.0)
        im += tl.load(dual + imaginary, inside, 0.0) / penalty
    re = tl.load(observation + here, inside, 0.0) - tl.load(low_rank + here, inside, 0.0)
    re += tl.load(dual + here, inside, 0.0) / penalty
    if COMPLEX:
        largest = tl.maximum(tl.abs(re), tl.abs(im))
        unit = tl.where(largest > 0, largest, 1.0)
        size_of = largest * tl.sqrt((re / unit) * (re / unit) + (im / unit) * (im / unit))
        remainder = tl.where(size_of > threshold, threshold / tl.where(size_of > 0, size_of, 1.0), 1.0)
        tl.store(sparse + imaginary, im - remainder * im, inside)
        tl.store(new_dual + imaginary, penalty * remainder * im, inside)
        tl.store(sparse + here, re - remainder * re, inside)
        tl.store(new_dual + here, penalty * remainder * re, inside)
    else:
        clipped = tl.minimum(tl.maximum(re, -threshold), threshold)
        tl.store(sparse + here, re - clipped, inside)
        tl.store(new_dual + here, penalty * clipped, inside)


def sparse_dual_update(
    observation: Tensor, low_rank: Tensor, dual: Tensor, mu: Tensor, lambda_: Tensor
) -> tuple[Tensor, Tensor]:
    """O and Y' (..., m, n) of D, B, Y (..., m, n) and mu, lambda (...)."""
    inputs = [x.resolve_conj().contiguous() for x in (observation, low_rank, dual)]
    sparse, new_dual = torch.empty_like(inputs[0]), torch.empty_like(inputs[0])
    batch, size = mu.numel(), observation.shape[-2] * observation.shape[-1]
    is_complex = observation.is_complex()
    reals = torch.view_as_real if is_complex else torch.Tensor.detach
    D, B, Y, *outputs = (reals(x) for x in (*inputs, sparse, new_dual))
    arrays = (D, B, Y, mu.contiguous(), lambda_.contiguous(), *outputs)
    if observation.numel():
        with torch.cuda.device_of(observation):
            sparse_dual_kernel[(batch, triton.cdiv(size, BLOCK))](
                *arrays, size, BLOCK=BLOCK, COMPLEX=is_complex
            )
    return sparse, new_dual
