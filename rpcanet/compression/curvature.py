"""What an error of a layer's weight costs: the curvature of the loss, without labels, as a Kronecker product."""

from collections.abc import Sequence
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor

from ...kernels.factorisations.low_rank import whitening
from ..networks.unfolding import UnfoldedNetwork
from .calibration import gram_matrices, layers_of
from .forms import matrix_of

FIDELITY = 0.01  # weight of the restoration's mean square error, as in `decomposition_loss`
INPUTS, OUTPUTS = 1e-4, 1e-2  # of the mean eigenvalue, for directions that few pictures know nothing of


class Gram(NamedTuple):
    """A positive definite matrix, G^1/2 and G^-1/2, in double precision."""

    matrix: Tensor
    root: Tensor
    inverse_root: Tensor


class Weighing(NamedTuple):
    """How an error E (m, n) of a layer's matrix counts: |G^1/2 E H^1/2|^2.

    inputs: G (m, m), outputs: H (n, n); the identity where they are None.
    """

    inputs: Gram | None = None
    outputs: Gram | None = None

    def white(self, matrix: Tensor) -> Tensor:
        """G^1/2 W H^1/2 of W (m, n), whose errors count alike, in double precision."""
        white = matrix.double()
        white = white if self.inputs is None else self.inputs.root @ white
        return white if self.outputs is None else white @ self.outputs.root

    def factors(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """G^-1/2 L and R H^-1/2: factors of W, of the factors of `white`(W)."""
        left = left if self.inputs is None else self.inputs.inverse_root @ left
        return left, right if self.outputs is None else right @ self.outputs.inverse_root


def weighings(net: UnfoldedNetwork, pictures: Sequence[Tensor]) -> dict[str, Weighing]:
    """For each layer G and H, by which an error of its matrix adds half of |G^1/2 E H^1/2|^2 to the loss.

        G = X^T X,   H = mean of g^T G^-1 g / m

    of its inputs' vertical strips X and of the draws g (m, n) of `loss_draws`; to second order, and where the
    curvature is a Kronecker product.

    Source: Martens and Grosse, "Optimizing neural networks with Kronecker-factored approximate curvature", ICML
    2015.
    """
    draws = loss_draws(net, pictures)
    found = {}
    for name, gram in gram_matrices(net, pictures).items():
        inputs = decomposed(damped(gram, INPUTS))
        white = inputs.inverse_root @ draws[name].double()
        outputs = (white.mT @ white).mean(0) / len(gram)
        found[name] = Weighing(inputs, decomposed(damped(outputs, OUTPUTS)))
    return found


def decomposed(matrix: Tensor) -> Gram:
    """`matrix` and its roots, of one eigendecomposition."""
    return Gram(matrix, *whitening(identity(matrix), matrix))


def loss_draws(net: UnfoldedNetwork, pictures: Sequence[Tensor]) -> dict[str, Tensor]:
    """For each layer draws g (pictures, m, n): an error E of its matrix adds half the mean of <g, E>^2 to a loss.

        loss = CE(O, p) / sum p + MSE(D) / 100,   g = J^T H^1/2 e,   H = (p (1 - p) / sum p,  1 / 50 / pixels)

    of a picture, with the logits O of objects against p = sigmoid(O) itself, and so without labels, and with the
    restoration D against itself, weighed as in `decomposition_loss`. J are the derivatives of (O, D), H is the
    curvature of the loss along them, e are random signs.

    Source: Martens, "New insights and perspectives on the natural gradient method", JMLR 2020, section 6.
    """
    copy = deepcopy(net).eval().requires_grad_()
    weights = {name: layer.weight for name, layer in layers_of(copy).items()}
    generator = torch.Generator().manual_seed(0)
    found: dict[str, list[Tensor]] = {name: [] for name in weights}
    for picture in pictures:
        out = copy(picture[None].to(next(copy.parameters()).device))
        p = out.object.detach().sigmoid()
        objects = (p * (1 - p) / p.sum().clamp_min(1)).sqrt()
        parts = (out.object, objects), (out.restoration, (2 * FIDELITY / p.numel()) ** 0.5)
        drawn = torch.stack([(part * root * signs(part, generator)).sum() for part, root in parts]).sum()
        gradients = torch.autograd.grad(drawn, list(weights.values()), materialize_grads=True)
        for name, gradient in zip(weights, gradients, strict=True):
            found[name].append(matrix_of(gradient))
    return {name: torch.stack(draws) for name, draws in found.items() if draws}


def signs(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, like.shape, generator=generator).to(like) * 2 - 1


def damped(matrix: Tensor, share: float) -> Tensor:
    """Plus that share of the mean eigenvalue, and what keeps zero positive definite, on the diagonal."""
    least = share * matrix.diagonal().mean() + torch.finfo(matrix.dtype).tiny ** 0.5
    return matrix + least * identity(matrix)


def identity(like: Tensor) -> Tensor:
    return torch.eye(len(like), dtype=like.dtype, device=like.device)
