"""Small random problems for every estimator."""

import pytest
import torch

from unfoldkit.kernels import kron_matvec
from unfoldkit.sbl import KSBL, OMP, PCSBL, AMKroSBL, ClassicSBL, KroneckerOMP, PCKroSBL, SVDKroSBL
from unfoldkit.sbl.em import compiled

SHORT = 30
KRONECKER = {
    "SVD": SVDKroSBL(max_iterations=SHORT),
    "AM": AMKroSBL(max_iterations=SHORT),
    "KSBL": KSBL(max_iterations=SHORT),
    "PC": PCKroSBL(0.8, max_iterations=SHORT),
}
UNSTRUCTURED = {"classic": ClassicSBL(max_iterations=SHORT), "PCSBL": PCSBL(max_iterations=SHORT)}
ALL = {**KRONECKER, **UNSTRUCTURED, "OMP": OMP(), "KOMP": KroneckerOMP()}


@pytest.fixture(scope="module", params=["compiled", "pytorch"])
def engine(request):
    """Run a module's tests with the loop in C, and again with the one in PyTorch."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "pytorch":
            patch.setattr(compiled, "serves", lambda *_: False)
        yield request.param


@pytest.fixture
def draw():
    """A function that draws factors, x, y and the noise variance of a batch of problems."""

    def problem(rows=(5, 6), columns=(7, 8), batch=(), sparsity=2, snr_db=20.0, dtype=torch.float64, seed=0):
        generator = torch.Generator().manual_seed(seed)
        factors = [
            torch.randn(*batch, m, n, generator=generator, dtype=dtype)
            for m, n in zip(rows, columns, strict=True)
        ]
        size = torch.Size(batch).numel()
        support = torch.ones(size, 1, dtype=torch.bool)
        for n in columns:
            kept = torch.rand(size, n, generator=generator).argsort(-1) < sparsity
            support = (support.unsqueeze(-1) & kept.unsqueeze(-2)).flatten(-2)
        x = torch.randn(size, torch.Size(columns).numel(), generator=generator, dtype=dtype) * support
        x = x.reshape(*batch, -1)
        clean = kron_matvec(factors, x)
        s2 = clean.abs().square().mean(-1) / 10 ** (snr_db / 10)
        noise = torch.randn(clean.shape, generator=generator, dtype=dtype)
        return factors, x.reshape(*batch, *columns), clean + s2.sqrt().unsqueeze(-1) * noise, s2

    return problem


@pytest.fixture(params=KRONECKER)
def kronecker(request):
    return KRONECKER[request.param]


@pytest.fixture(params=ALL)
def estimator(request):
    return ALL[request.param]
