"""How well a channel can be known where every path's directions and delay are: a genie for 3GPP's channels."""

import copy
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..algebra import squared_modulus
from .extra import require_sionna
from .grids import Pilots, pilot_groups, responses
from .path_channel import between, strided
from .paths import inverse_root
from .umi import Cell, impulse_responses, sionna_on_cpu, umi_model

require_sionna()
from sionna.phy.ofdm import ResourceGrid  # noqa: E402

NEGLIGIBLE = 1e-7  # of a link's energy: components of a path that are left out
PER_CLUSTER = 4  # axes of what Sionna sorts clusters by: batch, transmitters, receivers, clusters
COMPONENTS = 4  # of a ray: from two polarisations of the field to two


class KnownPaths(NamedTuple):
    """Links of P paths: each adds at frequency f a Gaussian of covariance root root^H, times exp(-2 pi j f delay).

    roots: (drops, users, P, antennas, symbols, R), of unit energy a resource element over all paths. delays:
    (drops, users, P), seconds.
    """

    roots: Tensor
    delays: Tensor


@sionna_on_cpu()
def umi_paths(resource_grid: ResourceGrid, drops: int, seed: int, cell: Cell | None = None) -> KnownPaths:
    """The paths of the drops of `umi_channels` with the same arguments: all but the rays' random phases.

    The covariance is that over uniform phases, which those of equally spaced frequencies have exactly.

    Raises:
        ValueError: there is no drop, or `seed` is negative.

    >>> grid = ResourceGrid(14, 24, 30e3, num_tx=2)
    >>> paths = umi_paths(grid, 1, 7)
    >>> paths.roots.shape[:5] == (1, 2, paths.delays.shape[-1], 16, 14)
    True
    """
    if drops < 1 or seed < 0:
        raise ValueError(f"paths need at least one drop and no negative seed, got {drops} and {seed}")
    cell = cell or Cell()
    model = umi_model(cell)
    model._cir_sampler = sampler = _Phases(model._cir_sampler)
    roots, delays = [], []
    for drop in range(drops):
        delays.append(impulse_responses(resource_grid, model, seed + drop, cell)[1][:, 0])
        a = sampler.coefficients[:, :, 0, :, :, 0].permute(1, 2, 3, 4, 0)
        energy = squared_modulus(a).sum((1, -1), keepdim=True).mean((2, 3), keepdim=True)
        roots.append(a / energy.sqrt())
    return KnownPaths(torch.stack(roots), torch.cat(delays).double())


class _Phases(torch.nn.Module):
    """Sionna's sampler of path coefficients, which keeps those of K = 4 rays + 1 sets of phases beside its own.

    Set k gives component i of all rays the phase 2 pi k i / K, i = 1, 2, ...: summed over the sets the products
    of two different ones vanish, and those with a line of sight, whose phase stands still.
    """

    def __init__(self, sampler: Any) -> None:
        super().__init__()
        self.sampler = sampler
        self.coefficients = torch.empty(0)

    def forward(
        self, steps: int, rate: float, k_factor: Tensor, rays: Any, *about: Any
    ) -> tuple[Tensor, Tensor]:
        """coefficients: (K, users, 1, paths, antennas, 1, steps)."""
        found = self.sampler(steps, rate, k_factor, rays, *about)
        count = rays.aoa.shape[-1]
        K = COMPONENTS * count + 1
        turns = torch.arange(1, K).view(count, COMPONENTS)
        phases = 2 * math.pi / K * (torch.arange(K).view(K, *[1] * 5) * turns % K)
        every = copy.copy(rays)
        for name, x in vars(rays).items():
            if isinstance(x, Tensor) and x.ndim == PER_CLUSTER:
                setattr(every, name, x.expand(K, -1, -1, -1))
        every.phases = phases.expand(K, *rays.aoa.shape[1:], COMPONENTS)
        self.coefficients = self.sampler(steps, rate, k_factor, every, *about)[0] / math.sqrt(K)
        return found


class PathOracle:
    """The mean and variance of h given y, the paths' delays and directions: their amplitudes alone are unknown.

        h = sum_n z_n l_n exp(-2 pi j f tau_n),   z ~ N(0, I),   z | y ~ N(S A^H y / s2, S),
        S = (I + A^H A / s2)^-1

    with l_n (antennas x symbols) the columns of the paths' roots and A what is seen of them at the pilots; A^H A
    is a product of one over antennas and symbols and one over subcarriers. It answers as `KroSBLChannelEstimator`
    does, for one receiver and the drops of `paths`, and computes on the CPU. Who must find the paths has a larger
    mean square error. The variance is interpolated between every eighth subcarrier.
    Source: Kay, Fundamentals of Statistical Signal Processing: Estimation Theory, 1993, section 11.5.

    >>> from unfoldkit.sbl.ofdm.umi import umi_channels
    >>> grid = ResourceGrid(14, 24, 30e3, num_tx=2, pilot_pattern="kronecker", pilot_ofdm_symbol_indices=[2, 11])
    >>> h_hat, err_var = PathOracle(grid, umi_paths(grid, 1, 7))(torch.ones(1, 1, 16, 14, 24) + 0j, 0.1)
    >>> h_hat.shape, bool((err_var > 0).all())
    (torch.Size([1, 1, 16, 2, 1, 14, 24]), True)
    """

    def __init__(self, resource_grid: ResourceGrid, paths: KnownPaths) -> None:
        pattern = resource_grid.pilot_pattern
        self.paths, self.spacing = paths, float(resource_grid.subcarrier_spacing)
        self.places = torch.as_tensor(resource_grid.effective_subcarrier_ind)
        self.middle = resource_grid.fft_size // 2
        self.groups = pilot_groups(
            pattern.mask.cpu().flatten(0, 1), pattern.pilots.flatten(0, 1), self.places
        )

    def __call__(self, y: Tensor, no: Tensor | float) -> tuple[Tensor, Tensor]:
        """h_hat and err_var, (drops, 1, antennas, users, 1, symbols, subcarriers), of y and one N0.

        Raises ValueError where y has other drops, antennas or symbols than the paths, or N0 is not positive.
        """
        drops, users, _, antennas, symbols, _ = self.paths.roots.shape
        if y.ndim != 5 or y.shape[:4] != (drops, 1, antennas, symbols):
            raise ValueError(
                f"y must be those of the paths, ({drops}, 1, {antennas}, {symbols}, subcarriers), "
                f"got {tuple(y.shape)}"
            )
        if not float(no) > 0:
            raise ValueError(f"no must be positive, got {float(no)}")
        h_hat = y.new_empty(drops, users, antennas, symbols, len(self.places))
        err_var = torch.empty_like(h_hat.real)
        for group in self.groups:
            seen = y[:, 0].cpu()[..., self.places].flatten(2)[..., group.elements] * group.conjugate
            for i, user in enumerate(group.streams):
                for drop in range(drops):
                    found = self._link(group, drop, user, seen[drop, :, i], float(no))
                    h_hat[drop, user], err_var[drop, user] = found
        return _as_sionna(h_hat), _as_sionna(err_var)

    def _link(self, group: Pilots, drop: int, user: int, seen: Tensor, no: float) -> tuple[Tensor, Tensor]:
        """Mean and variance, (antennas, symbols, F), from |p| h + noise, (antennas, S, K)."""
        L, path = self.components(drop, user)
        at_pilots = self._waves(drop, user, group.first[group.streams.index(user)] + group.offsets)
        at_pilots = at_pilots * group.in_frequency.unsqueeze(-1)
        sent = (L[:, group.symbols] * group.in_time.unsqueeze(-1)).flatten(0, 1)
        gram = (sent.mH @ sent) * (at_pilots.mH @ at_pilots)[path][:, path]
        matched = ((seen.flatten(0, 1) @ at_pilots.conj())[:, path] * sent.conj()).sum(0)
        root = inverse_root(torch.eye(len(path)) + gram / no)
        z = root @ (root.mH @ matched) / no
        member = torch.nn.functional.one_hot(path, at_pilots.shape[-1]).mT.to(z)
        mean = (L * z) @ member.mT @ self._waves(drop, user, self.places).mT
        few = strided(len(self.places), z.device)
        deviations = ((L.flatten(0, 1).unsqueeze(1) * member).flatten(0, 1) @ root).unflatten(
            0, (-1, len(member))
        )
        F = self._waves(drop, user, self.places[few])
        pairs = (F.unsqueeze(-1) * F.conj().unsqueeze(-2)).flatten(1)
        variance = ((deviations @ deviations.mH).flatten(1) @ pairs.mT).real
        return mean, between(variance.unflatten(0, L.shape[:2]), few)

    def components(self, drop: int, user: int) -> tuple[Tensor, Tensor]:
        """The columns l_n, (antennas, symbols, N), that matter of a link's roots, and the path of each, (N,)."""
        roots = self.paths.roots[drop, user].to(torch.complex128)
        flat = roots.flatten(1, 2)
        energy, turned = torch.linalg.eigh(flat.mH @ flat)
        path, column = (energy > NEGLIGIBLE * flat.shape[1]).nonzero(as_tuple=True)
        return (flat @ turned)[path, :, column].mT.unflatten(0, roots.shape[1:3]), path

    def _waves(self, drop: int, user: int, subcarriers: Tensor) -> Tensor:
        """(F, P)."""
        return responses((subcarriers - self.middle).double() * self.spacing, self.paths.delays[drop, user])


def _as_sionna(x: Tensor) -> Tensor:
    """(drops, 1, antennas, users, 1, symbols, F) of (drops, users, antennas, symbols, F)."""
    return x.movedim(1, 2)[:, None, :, :, None]
