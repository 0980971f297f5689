"""The operations of kernels/ against the calls they replace."""

import json
from collections.abc import Callable, Iterator
from functools import partial, reduce
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from unfoldkit import kernels
from unfoldkit.common.files import write_whole
from unfoldkit.kernels.low_rank import sparse_dual_update
from unfoldkit.tools.benchmarks.timing import compare, copy_bandwidth, setting


class Case(NamedTuple):
    """An operation, the obvious call, and the arguments of both; each returns what is to be compared.

    memory_bound: whether its floor is to read every argument and write every result once.
    """

    name: str
    obvious_name: str
    ours: Callable[..., Tensor | tuple[Tensor, ...]]
    obvious: Callable[..., Tensor | tuple[Tensor, ...]]
    arguments: tuple[Tensor, ...]
    memory_bound: bool = False


def cases(device: str) -> Iterator[Case]:
    """Every operation at the sizes that the toolkit meets."""

    def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape, dtype=dtype, device=device)

    torch.manual_seed(0)
    small = draw(1000, 32, 32)
    yield Case("svd 1000 x 32x32", "torch.linalg.svd", _svd, _library_svd, (small,))
    yield Case("svd 200 x 64x64", "torch.linalg.svd", _svd, _library_svd, (draw(200, 64, 64),))
    yield Case("svd 1000 x 32x32 complex64", "torch.linalg.svd", _svd, _library_svd, (small + 1j * small.mT,))
    yield Case(
        "svdvals 1000 x 32x32", "torch.linalg.svdvals", kernels.svdvals, torch.linalg.svdvals, (small,)
    )
    double = draw(1000, 16, 16, dtype=torch.complex128)
    yield Case(
        "eigh 1000 x 16x16 complex128", "torch.linalg.eigh", _eigh, _library_eigh, (double @ double.mH,)
    )
    yield Case("eigh 1000 x 32x32", "torch.linalg.eigh", _eigh, _library_eigh, (small @ small.mT,))
    if device == "cuda":
        for count, n in ((10_000, 8), (10_000, 16), (10_000, 32), (1000, 64), (256, 128), (64, 256)):
            batch = draw(count, n, n)
            yield Case(f"svd {count} x {n}x{n}", "torch.linalg.svd", _svd, _library_svd, (batch,))
        batch = draw(1000, 64, 64, dtype=torch.complex64)
        yield Case("svd 1000 x 64x64 complex64", "torch.linalg.svd", _svd, _library_svd, (batch,))
        for dtype in (torch.float32, torch.complex128):
            for n in (8, 16, 32):
                square = draw(4096, n, n, dtype=dtype)
                name = f"eigh 4096 x {n}x{n} {str(dtype).removeprefix('torch.')}"
                hermitian = (square + square.mH) / 2
                yield Case(name, "torch.linalg.eigh", _eigh, _library_eigh, (hermitian,))
    wide = draw(250, 18, 324, dtype=torch.float64)
    yield Case("triplet 250 x 18x324 float64", "torch.linalg.svd", _triplet, _library_triplet, (wide,))
    yield Case(
        "singular values > 2, 1000 x 32x32", "torch.linalg.svd", _threshold, _library_threshold, (small,)
    )
    video = tuple(draw(64, 64, 64) for _ in range(3))
    yield Case("robust PCA step 64 x 64x64", "torch.linalg.svd, unfused", _step, _library_step, video)
    many = 1024 if device == "cuda" else 64
    planes = [draw(many, 256, 256) for _ in range(3)]
    name = f"{planes[0].numel() / 2**20:.0f}M numbers"
    yield Case(f"soft threshold, {name}", "sign * clamp", _soft, _unfused_soft, (planes[0],), True)
    yield Case(f"sparse + dual step, {name}", "unfused", _update, _unfused_update, tuple(planes), True)
    factors = tuple(draw(200, m, 15, dtype=torch.float64) for m in (8, 12, 15))
    vector = draw(200, 3375, dtype=torch.float64)
    yield Case("kron_matvec 200 x 3 factors of 15", "einsum", _kron, _einsum_kron, (*factors, vector))
    if device == "cpu":
        one = tuple(factor[0] for factor in factors)
        yield Case("kron_matvec, one", "numpy.kron", _kron, _dense_kron, (*one, vector[0]))
    last = torch.channels_last
    pixels, window = draw(1, 32, 256, 256).to(memory_format=last), draw(32, 32, 3, 3).to(memory_format=last)
    yield Case("conv 3x3 32->32 at 256", "F.conv2d", kernels.same_conv2d, _conv, (pixels, window))
    yield Case("conv 3x3 32->1 at 256", "F.conv2d", kernels.same_conv2d, _conv, (pixels, window[:1]))
    yield Case(
        "conv 3x3 32->32, forward + backward",
        "F.conv2d",
        _with_gradients(kernels.same_conv2d),
        _with_gradients(_conv),
        (pixels, window),
    )
    images, weight = draw(1, 32, 256, 256), draw(32, 32, 17, 17) / 100
    yield Case("conv 17x17 32->32 at 256", "F.conv2d", kernels.large_kernel_conv2d, _conv, (images, weight))
    spectrum = kernels.conv_spectrum(weight)

    def cached(images: Tensor, weight: Tensor) -> Tensor:
        single = images.dtype == torch.float32
        return kernels.large_kernel_conv2d(images, weight, spectrum=spectrum if single else None)

    yield Case("the same, spectrum cached", "F.conv2d", cached, _conv, (images, weight))
    yield Case(
        "the same, forward + backward",
        "F.conv2d",
        _with_gradients(kernels.large_kernel_conv2d),
        _with_gradients(_conv),
        (images, weight),
    )


def _svd(matrix: Tensor) -> Tensor:
    return kernels.svd(matrix).S


def _library_svd(matrix: Tensor) -> Tensor:
    return torch.linalg.svd(matrix, full_matrices=False).S


def _eigh(matrix: Tensor) -> Tensor:
    return kernels.eigh(matrix).eigenvalues


def _library_eigh(matrix: Tensor) -> Tensor:
    return torch.linalg.eigh(matrix).eigenvalues


def _triplet(matrix: Tensor) -> Tensor:
    sigma, u, v = kernels.leading_singular_triplet(matrix)
    return sigma[:, None, None] * u[:, :, None] * v[:, None, :].conj()


def _library_triplet(matrix: Tensor) -> Tensor:
    U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
    return S[:, :1, None] * U[..., :1] * Vh[:, :1]


def _threshold(matrix: Tensor) -> Tensor:
    return kernels.singular_value_threshold(matrix, 2.0)


def _library_threshold(matrix: Tensor) -> Tensor:
    U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
    return (U * (S - 2.0).clamp_min(0)[..., None, :]) @ Vh


def _step(observation: Tensor, sparse: Tensor, dual: Tensor) -> Tensor:
    return torch.stack(kernels.lowrank_sparse_step(observation, sparse, dual, 0.5, 0.2))


def _library_step(observation: Tensor, sparse: Tensor, dual: Tensor) -> Tensor:
    low_rank = _library_threshold(observation - sparse + dual / 0.5)
    new_sparse = _unfused_soft(observation - low_rank + dual / 0.5, 0.4)
    return torch.stack((low_rank, new_sparse, dual + 0.5 * (observation - low_rank - new_sparse)))


def _update(observation: Tensor, low_rank: Tensor, dual: Tensor) -> tuple[Tensor, Tensor]:
    mu, lambda_ = (torch.full(dual.shape[:1], x, dtype=dual.dtype, device=dual.device) for x in (0.5, 0.2))
    return sparse_dual_update(observation, low_rank, dual, mu, lambda_)


def _unfused_update(observation: Tensor, low_rank: Tensor, dual: Tensor) -> tuple[Tensor, Tensor]:
    sparse = _unfused_soft(observation - low_rank + dual / 0.5, 0.4)
    return sparse, dual + 0.5 * (observation - low_rank - sparse)


def _soft(x: Tensor) -> Tensor:
    return kernels.soft_threshold(x, 0.5)


def _unfused_soft(x: Tensor, threshold: float = 0.5) -> Tensor:
    return x.sign() * (x.abs() - threshold).clamp_min(0)


def _kron(A: Tensor, B: Tensor, C: Tensor, x: Tensor) -> Tensor:
    return kernels.kron_matvec([A, B, C], x)


def _einsum_kron(A: Tensor, B: Tensor, C: Tensor, x: Tensor) -> Tensor:
    return torch.einsum("bil,bjm,bkn,blmn->bijk", A, B, C, x.reshape(-1, 15, 15, 15)).flatten(1)


def _dense_kron(A: Tensor, B: Tensor, C: Tensor, x: Tensor) -> Tensor:
    return torch.from_numpy(reduce(np.kron, (A.numpy(), B.numpy(), C.numpy())) @ x.numpy())


def _conv(images: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(images, weight, padding=weight.shape[-1] // 2)


def _with_gradients(
    convolution: Callable[[Tensor, Tensor], Tensor],
) -> Callable[[Tensor, Tensor], tuple[Tensor, ...]]:
    def run(images: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        leaves = [x.detach().requires_grad_() for x in (images, weight)]
        result = convolution(*leaves)
        gradients = torch.autograd.grad(result, leaves, result.detach())
        return (result.detach(), *gradients)

    return run


def _tensors(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else result


def _error(result: Tensor | tuple[Tensor, ...], exact: Tensor | tuple[Tensor, ...]) -> float:
    norm = torch.linalg.vector_norm
    pairs = zip(_tensors(result), _tensors(exact), strict=True)
    return max(float(norm(x.to(y.dtype) - y) / norm(y)) for x, y in pairs)


def _double(x: Tensor) -> Tensor:
    return x.to(torch.complex128 if x.is_complex() else torch.float64)


def run(device: str | None, rounds: int, only: list[str] | None, file: str | None) -> int:
    """Time and check every case, print a table, and write JSON where asked."""
    found = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    rows = []
    bandwidth = {}
    for place in [device] if device else found:
        bandwidth[place] = copy_bandwidth(place)
        for case in cases(place):
            if only and not any(word in case.name for word in only):
                continue
            exact = case.obvious(*(_double(x) for x in case.arguments))
            results = [way(*case.arguments) for way in (case.ours, case.obvious)]
            errors = [_error(result, exact) for result in results]
            moved = sum(x.numel() * x.element_size() for x in (*case.arguments, *_tensors(results[0])))
            del results, exact
            ours, obvious = (partial(way, *case.arguments) for way in (case.ours, case.obvious))
            timing = compare(ours, obvious, place, rounds)
            rows.append(
                {
                    "case": case.name,
                    "device": place,
                    "against": case.obvious_name,
                    **timing._asdict(),
                    "error": errors[0],
                    "obvious_error": errors[1],
                    "of_copy": moved / timing.seconds / bandwidth[place] if case.memory_bound else None,
                }
            )
    if not rows:
        raise ValueError(f"--only: no operation's name holds {' or '.join(only or [])}")
    _print(rows)
    if file:
        place = device or found[-1]
        about = setting(place) | {"copy_bytes_per_second": bandwidth[place]}
        write_whole(file, json.dumps({"setting": about, "rows": rows}, indent=2) + "\n")
    return 0


def _print(rows: list[dict[str, object]]) -> None:
    table = Table("operation", "on", "against", "ms", "obvious", "faster", "of copy", "error (obvious)")
    for row in rows:
        times = [f"{1000 * float(str(row[key])):.2f}" for key in ("seconds", "obvious_seconds")]
        names = [str(row[key]) for key in ("case", "device", "against")]
        of_copy = "" if row["of_copy"] is None else f"{float(str(row['of_copy'])):.0%}"
        errors = f"{float(str(row['error'])):.1e} ({float(str(row['obvious_error'])):.1e})"
        table.add_row(*names, *times, f"{float(str(row['ratio'])):.2f}", of_copy, errors)
    Console().print(table)
