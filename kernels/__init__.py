"""Batched low-rank and sparse numerics in PyTorch: what `rpcanet` and `sbl` both stand on."""

from .batch_norm import batch_norm
from .conv import conv_spectrum, large_kernel_conv2d
from .eigh import Eigh, eigh
from .factorisations.dictionary import SparseDictionary, sparse_dictionary
from .factorisations.low_rank import LowRank, truncated_svd
from .factorisations.monarch import Monarch, monarch_project
from .factorisations.robust import LowRankPlusSparse, low_rank_plus_sparse
from .features import ContrastWindow, ConvChain, LSTMStep
from .gpu.graphs import Graph, Graphs
from .kronecker import kron_matvec, mode_product
from .leading_triplet import LeadingTriplet, leading_singular_triplet
from .low_rank import LowRankSparse, lowrank_sparse_step, singular_value_threshold
from .nonnegative import nonnegative_least_squares
from .proximal import group_soft_threshold, hard_threshold, soft_threshold
from .same_conv import same_conv2d
from .svd import SVD, svd, svdvals

__all__ = [
    "SVD",
    "ContrastWindow",
    "ConvChain",
    "Eigh",
    "Graph",
    "Graphs",
    "LSTMStep",
    "LeadingTriplet",
    "LowRank",
    "LowRankPlusSparse",
    "LowRankSparse",
    "Monarch",
    "SparseDictionary",
    "batch_norm",
    "conv_spectrum",
    "eigh",
    "group_soft_threshold",
    "hard_threshold",
    "kron_matvec",
    "large_kernel_conv2d",
    "leading_singular_triplet",
    "low_rank_plus_sparse",
    "lowrank_sparse_step",
    "mode_product",
    "monarch_project",
    "nonnegative_least_squares",
    "same_conv2d",
    "singular_value_threshold",
    "soft_threshold",
    "sparse_dictionary",
    "svd",
    "svdvals",
    "truncated_svd",
]
