"""Kronecker-structured sparse Bayesian learning and channel estimation."""

try:
    from kernels import large_kernel_conv2d as _  # noqa: F401 - another package called kernels has none
except ImportError as error:
    raise ImportError(
        f"sbl needs unfoldkit's package 'kernels', but {error}: another package of that name is in its place; "
        "install unfoldkit into an environment of its own"
    ) from error

from sbl.am_krosbl import AMKroSBL
from sbl.classic_sbl import ClassicSBL
from sbl.decomposed_sbl import DecomposedSBL
from sbl.estimate import Estimate
from sbl.kronecker_omp import KroneckerOMP
from sbl.ksbl import KSBL
from sbl.omp import OMP
from sbl.oracle_ls import OracleLS
from sbl.pc_krosbl import PCKroSBL
from sbl.pc_sbl import PCSBL
from sbl.svd_krosbl import SVDKroSBL
from sbl.unfolded import UnfoldedKroSBL
from sbl.weights import load_estimator, save_estimator

__all__ = [
    "KSBL",
    "OMP",
    "PCSBL",
    "AMKroSBL",
    "ClassicSBL",
    "DecomposedSBL",
    "Estimate",
    "KroneckerOMP",
    "OracleLS",
    "PCKroSBL",
    "SVDKroSBL",
    "UnfoldedKroSBL",
    "load_estimator",
    "save_estimator",
]
