"""An uplink through Sionna's mapper, LDPC code and detector: what a channel estimate is worth to the receiver."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..algebra import squared_modulus
from .extra import require_sionna

require_sionna()
from sionna.phy.fec.ldpc import LDPC5GDecoder, LDPC5GEncoder  # noqa: E402
from sionna.phy.mapping import Demapper, Mapper, SymbolDemapper  # noqa: E402
from sionna.phy.mimo import StreamManagement  # noqa: E402
from sionna.phy.ofdm import LMMSEEqualizer, ResourceGrid, ResourceGridMapper  # noqa: E402

# The longest code word, and the most bits that one carries, in 5G's LDPC code.
LONGEST_WORD, MOST_BITS = 16_000, 8448
QAM_BITS = (2, 4, 6, 8)
# Of the data's resource elements, those at which the rate is computed: one subcarrier in so many.
RATE_STRIDE = 12


class Sent(NamedTuple):
    """bits (drops, users, words, k), symbols' indices (drops, users, 1, data) and the grid x that carries them."""

    bits: Tensor
    indices: Tensor
    x: Tensor


@dataclass(frozen=True)
class Uplink:
    """Users of one antenna, one resource grid, one base station that detects by LMMSE.

    grid: Sionna's ResourceGrid, with as many transmitters as users, of one stream. bits: of a QAM symbol, 2, 4,
    6 or 8. rate: of the LDPC code, between 1/5 and 1. Raises ValueError for others.
    The channel h is (drops, 1, antennas, users, 1, symbols, subcarriers), as Sionna has it.
    """

    grid: ResourceGrid
    bits: int = 2
    rate: float = 0.5

    def __post_init__(self) -> None:
        if int(self.grid.num_data_symbols) == 0:
            raise ValueError("grid must have data symbols beside its pilots")
        if self.bits not in QAM_BITS:
            raise ValueError(f"bits must be one of {', '.join(map(str, QAM_BITS))}, got {self.bits}")
        if not 0.2 <= self.rate < 1:
            raise ValueError(f"rate must be at least 0.2 and less than 1, got {self.rate}")

    @cached_property
    def users(self) -> int:
        return int(self.grid.num_tx)

    @cached_property
    def words(self) -> int:
        """Code words of a user in a resource grid: the least number of equal ones that the code takes."""
        total = int(self.grid.num_data_symbols) * self.bits
        most = min(LONGEST_WORD, int(MOST_BITS / self.rate))
        return next(count for count in range(1, total + 1) if total % count == 0 and total // count <= most)

    @cached_property
    def pilots(self) -> int:
        """Resource elements that the users, who share them, spend on pilots."""
        return int(self.grid.num_pilot_symbols)

    @cached_property
    def _blocks(self) -> dict[str, Any]:
        n = int(self.grid.num_data_symbols) * self.bits // self.words
        encoder = LDPC5GEncoder(int(n * self.rate), n, num_bits_per_symbol=self.bits)
        streams = StreamManagement(np.ones((1, self.users)), 1)
        return {
            "encoder": encoder,
            "decoder": LDPC5GDecoder(encoder, hard_out=True),
            "mapper": Mapper("qam", self.bits, return_indices=True),
            "grid": ResourceGridMapper(self.grid),
            "equaliser": LMMSEEqualizer(self.grid, streams),
            "demapper": Demapper("app", "qam", self.bits),
            "decision": SymbolDemapper("qam", self.bits, hard_out=True),
        }

    def send(self, generators: Sequence[torch.Generator]) -> Sent:
        """Random bits of one drop from each generator, coded, mapped, and put between the pilots."""
        k = self._blocks["encoder"].k
        bits = torch.stack(
            [torch.randint(0, 2, (self.users, self.words, k), generator=g).float() for g in generators]
        )
        coded = self._blocks["encoder"](bits).flatten(-2).unsqueeze(-2)
        symbols, indices = self._blocks["mapper"](coded)
        return Sent(bits, indices, self._blocks["grid"](symbols))

    def receive(self, sent: Sent, h: Tensor, noise: Tensor, noise_variance: float) -> Tensor:
        """y = h x + sqrt(N0) noise, (drops, 1, antennas, symbols, subcarriers); noise of unit variance."""
        x = sent.x.unsqueeze(1).unsqueeze(1)
        return (h * x).sum((3, 4)) + noise_variance**0.5 * noise

    def scores(
        self, sent: Sent, y: Tensor, h: Tensor, estimate: tuple[Tensor, Tensor], noise_variance: float
    ) -> dict[str, Tensor]:
        """What the receiver makes of an estimate (h^, error variance) of h, for each drop: (drops,) each.

        nmse, error_energy, reference_energy: over antennas, users and the whole grid. claimed_error: the sum of
        the error variances over the error's energy. ser: of symbols before decoding; ber and bler: of bits and
        of code words after it. spectral_efficiency: see `spectral_efficiency`.
        """
        h_hat, err_var = estimate
        error = squared_modulus(h_hat - h).flatten(1).sum(-1).double()
        energy = squared_modulus(h).flatten(1).sum(-1).double()
        claimed = err_var.broadcast_to(h.shape).flatten(1).sum(-1).double()
        level = torch.tensor(noise_variance, dtype=h.real.dtype)
        found, uncertainty = self._blocks["equaliser"](y, h_hat, err_var, level)
        indices = self._blocks["decision"](found, uncertainty)
        llr = self._blocks["demapper"](found, uncertainty).unflatten(-1, (self.words, -1)).squeeze(-3)
        wrong = self._blocks["decoder"](llr) != sent.bits
        return {
            "nmse": error / energy,
            "error_energy": error,
            "reference_energy": energy,
            "claimed_error": claimed / error.clamp(min=torch.finfo(error.dtype).tiny),
            "ser": (indices != sent.indices).double().flatten(1).mean(-1),
            "ber": wrong.double().flatten(1).mean(-1),
            "bler": wrong.any(-1).double().flatten(1).mean(-1),
            "spectral_efficiency": self._data_share() * self._rate(h, h_hat, err_var, noise_variance),
        }

    def _data_share(self) -> float:
        """The share of the resource elements that carries data."""
        return int(self.grid.num_data_symbols) / (self.grid.num_ofdm_symbols * self.grid.fft_size)

    def _rate(self, h: Tensor, h_hat: Tensor, err_var: Tensor, noise_variance: float) -> Tensor:
        def matrices(x: Tensor) -> Tensor:
            """(drops, symbols, subcarriers, antennas, users)."""
            return x[:, 0, :, :, 0, :, ::RATE_STRIDE].permute(0, 3, 4, 1, 2)

        err = matrices(err_var.broadcast_to(h.shape)).sum(-1)
        return spectral_efficiency(matrices(h), matrices(h_hat), err, noise_variance).flatten(1).mean(-1)


def spectral_efficiency(h: Tensor, h_hat: Tensor, error_variance: Tensor, noise_variance: float) -> Tensor:
    """sum over users of log2(1 + SINR) behind the LMMSE combiner of an estimate, in bits a second and hertz:
    (...).

        w_u = (H^ H^^H + diag(e) + N0 I)^-1 h^_u,   SINR_u = |w_u^H h_u|^2 / (sum_{v != u} |w_u^H h_v|^2 + N0
        |w_u|^2)

    h, h_hat: (..., antennas, users); error_variance: e (..., antennas), that of the estimate, summed over users.
    Source: Bjornson, Hoydis and Sanguinetti, Massive MIMO Networks, 2017, section 4.1.

    >>> h = torch.ones(1, 1, dtype=torch.complex64)
    >>> spectral_efficiency(h, h, torch.zeros(1), 1 / 3)
    tensor(2.)
    """
    K = h_hat @ h_hat.mH + torch.diag_embed((error_variance + noise_variance).to(h.dtype))
    w = torch.linalg.solve(K, h_hat)
    heard = squared_modulus(w.mH @ h)
    signal = heard.diagonal(dim1=-2, dim2=-1)
    left = heard.sum(-1) - signal + noise_variance * squared_modulus(w).sum(-2)
    return torch.log2(1 + signal / left).sum(-1)
