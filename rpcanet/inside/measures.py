"""How low-rank a background is, how sparse its objects are, and how well both explain the picture.

The measures take plain tensors, so that they serve networks and classical solvers alike; `Statistics` gathers
them over any number of pictures in constant memory.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ...kernels import svdvals
from ...kernels.dispatch.checks import broadcast_batches

LEADING = (1, 5, 10)


def spectrum(plane: Tensor) -> Tensor:
    """Singular values of max(plane, 0), descending: (..., height, width) -> (..., min(height, width)).

    Source: Wu et al., "RPCANet++", arXiv 2508.04190, its interpretability analysis.

    >>> spectrum(torch.tensor([[3.0, -1.0], [0.0, 4.0]]))
    tensor([4., 3.])
    """
    _require_real("plane", plane, 2)
    return svdvals(plane.clamp_min(0))


def effective_rank(singular_values: Tensor) -> Tensor:
    """exp(-sum_i p_i log p_i), p_i = s_i / sum_j s_j: (..., n) -> (...), from 1 to n; 0 where all s_i are.

    Source: Roy and Vetterli, "The effective rank", EUSIPCO 2007, definition 1.

    >>> effective_rank(torch.tensor([[2.0, 2.0, 0.0], [5.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    tensor([2., 1., 0.])
    """
    _require_real("singular_values", singular_values, 1)
    total = singular_values.sum(-1, keepdim=True)
    p = singular_values / torch.where(total > 0, total, 1)
    return torch.special.entr(p).sum(-1).exp() * (total[..., 0] > 0)


def leading_energy(singular_values: Tensor, leading: tuple[int, ...] = LEADING) -> Tensor:
    """sum_{i <= r} s_i^2 / sum_i s_i^2 for each r of `leading`: (..., n) -> (..., len(leading)); NaN if s = 0.

    >>> leading_energy(torch.tensor([3.0, 2.0, 1.0]), (1, 2, 5))
    tensor([0.6429, 0.9286, 1.0000])
    """
    _require_real("singular_values", singular_values, 1)
    energy = singular_values.square()
    shares = [energy[..., :r].sum(-1) for r in leading]
    return torch.stack(shares, -1) / energy.sum(-1, keepdim=True)


def sparsity(object_: Tensor) -> Tensor:
    """Share of the pixels above 0: (..., height, width) -> (...).

    Source: Wu et al., "RPCANet++", arXiv 2508.04190, its interpretability analysis.

    >>> sparsity(torch.tensor([[-1.0, 0.0], [0.5, -2.0]]))
    tensor(0.2500)
    """
    _require_real("object_", object_, 2)
    return (object_ > 0).to(object_.dtype).mean((-2, -1))


def fidelity(image: Tensor, background: Tensor, object_: Tensor) -> Tensor:
    """||D - B - O||_F, in the levels of the input: (..., height, width) -> (...).

    >>> fidelity(torch.full((2, 2), 3.0), torch.ones(2, 2), torch.ones(2, 2))
    tensor(2.)
    """
    for name, plane in (("image", image), ("background", background), ("object_", object_)):
        _require_real(name, plane, 2)
    broadcast_batches("image, background and object_", image.shape, background.shape, object_.shape)
    return torch.linalg.matrix_norm(image - background - object_)


def stage_measures(image: Tensor, backgrounds: Tensor, objects: Tensor) -> dict[str, Tensor]:
    """Every measure of a picture D and its stages (B_k, O_k), k = 1..K, be they a network's or a solver's.

    image: (batch, height, width).  backgrounds, objects: (batch, K, height, width).

    Returns, n being min(height, width):

        spectrum        (batch, K + 1, n)   of D and of each B_k, see `spectrum`
        effective_rank  (batch, K + 1)      likewise
        energy          (batch, K + 1, 3)   in the leading 1, 5 and 10 values, likewise
        sparsity        (batch, K)          of each O_k
        fidelity        (batch, K)          ||D - B_k - O_k||_F

    Raises ValueError where the shapes do not fit.

    >>> image, parts = torch.rand(2, 16, 20), torch.rand(2, 3, 16, 20)
    >>> {name: tuple(values.shape) for name, values in stage_measures(image, parts, parts).items()}
    {'spectrum': (2, 4, 16), 'effective_rank': (2, 4), 'energy': (2, 4, 3), 'sparsity': (2, 3), 'fidelity': (2, 3)}
    """
    fits = image.ndim == 3 and backgrounds.ndim == 4 and backgrounds.shape == objects.shape
    if not fits or backgrounds[:, 0].shape != image.shape:
        raise ValueError(
            "expected an image (batch, height, width) and backgrounds and objects (batch, K, height, width), "
            f"got {tuple(image.shape)}, {tuple(backgrounds.shape)} and {tuple(objects.shape)}"
        )
    image = image.unsqueeze(1)
    values = spectrum(torch.cat((image, backgrounds), dim=1))
    return {
        "spectrum": values,
        "effective_rank": effective_rank(values),
        "energy": leading_energy(values),
        "sparsity": sparsity(objects),
        "fidelity": fidelity(image, backgrounds, objects),
    }


class Statistics:
    """Mean and standard deviation over pictures, in constant memory and in float64.

    After n pictures of values x:  mean = sum x / n,  std = sqrt(sum (x - mean)^2 / n), combined batch by batch.

    Source: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances",
    1979.

    >>> statistics = Statistics()
    >>> statistics.update({"x": torch.tensor([1.0, 2.0])})
    >>> statistics.update({"x": torch.tensor([6.0])})
    >>> statistics.count, statistics.mean["x"], statistics.std["x"].square()
    (3, tensor(3., dtype=torch.float64), tensor(4.6667, dtype=torch.float64))
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: dict[str, Tensor] = {}
        self._squares: dict[str, Tensor] = {}

    def update(self, measures: Mapping[str, Tensor]) -> None:
        """Add a batch: each measure is (batch, ...), the same names and shapes every time.

        Raises ValueError where they are not, as the spectra of pictures of several sizes.
        """
        shapes = {name: values.shape[1:] for name, values in measures.items()}
        known = {name: mean.shape for name, mean in self.mean.items()}
        if known and known != shapes:
            raise ValueError(
                "all pictures must have measures of one shape (resize them to one size); "
                f"expected {_shown(known)}, got {_shown(shapes)}"
            )
        batch = len(next(iter(measures.values())))
        total = self.count + batch
        for name, values in measures.items():
            values = values.double()
            mean = values.mean(0)
            squares = (values - mean).square().sum(0)
            before = self.mean.get(name, torch.zeros_like(mean))
            step = mean - before
            self.mean[name] = before + step * (batch / total)
            squares = squares + step.square() * (self.count * batch / total)
            self._squares[name] = self._squares.get(name, torch.zeros_like(mean)) + squares
        self.count = total

    @property
    def std(self) -> dict[str, Tensor]:
        return {name: (squares / self.count).sqrt() for name, squares in self._squares.items()}


def _shown(shapes: Mapping[str, torch.Size]) -> str:
    return ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())


def _require_real(name: str, x: Tensor, dimensions: int) -> None:
    if not x.is_floating_point() or x.ndim < dimensions:
        raise ValueError(
            f"{name} must be floating point of at least {dimensions} dimensions, "
            f"got {x.dtype} of shape {tuple(x.shape)}"
        )
