"""The options of the OFDM experiment; Sionna is imported when they are used."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from .options import Point, different, numbers

if TYPE_CHECKING:
    from ..ofdm.experiment import OFDMExperiment


@dataclass(frozen=True)
class OFDMOptions:
    """Channel estimation in the OFDM uplink of a 3GPP urban microcell, with coded data through Sionna.

    Args:
        users: Users of one antenna each, who send at once.
        rows: Rows of the base station's panel.
        columns: Columns of the base station's panel.
        dual: Whether the panel has two polarisations.
        subcarriers: Subcarriers of the resource grid.
        spacing: Between subcarriers, in kHz.
        symbols: OFDM symbols of the resource grid.
        pilot_symbols: Those of them that carry pilots, comma-separated, counted from 0; users take turns on them.
        speed: Of every user, in km/h.
        carrier: Frequency in GHz.
        bits: Bits of a QAM symbol: 2, 4, 6 or 8.
        rate: Of the LDPC code.
        covariance_drops: Drops beside those of the trials that LMMSE's covariances are of.

    >>> OFDMOptions().settings()["pilot_symbols"]
    '2,11'
    """

    users: int = 4
    rows: int = 4
    columns: int = 4
    dual: bool = False
    subcarriers: int = 624
    spacing: float = 30.0
    symbols: int = 14
    pilot_symbols: str = "2,11"
    speed: float = 3.0
    carrier: float = 3.5
    bits: int = 2
    rate: float = 0.5
    covariance_drops: int = 600

    name: ClassVar[str] = "ofdm"
    simulated: ClassVar[dict[str, Any]] = {
        "estimators": "LS,LMMSE,AM,OffGrid,known",
        "trials": 50,
        "snr": "-10,-5,0,5,10",
    }

    def experiments(self, device: str = "cpu") -> "list[tuple[Point, OFDMExperiment]]":
        """The one experiment; raises ValueError where the sizes make none, or Sionna is missing."""
        if device != "cpu":
            raise ValueError(f"--device must be cpu in the OFDM experiment, got {device!r}")
        for name in ("users", "rows", "columns", "subcarriers", "symbols", "covariance_drops"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be at least 1, got {getattr(self, name)}")
        for name, least in (("spacing", 0), ("carrier", 0), ("speed", -1e-300)):
            if not least < getattr(self, name) < 1e6:
                raise ValueError(f"--{name} must be positive and finite, got {getattr(self, name)}")
        at = different("pilot_symbols", numbers("pilot_symbols", self.pilot_symbols, int))
        if not all(0 <= symbol < self.symbols for symbol in at):
            raise ValueError(f"--pilot_symbols must lie between 0 and {self.symbols - 1}, got {at}")
        if self.subcarriers % self.users:
            raise ValueError(f"--subcarriers {self.subcarriers} must be a multiple of --users {self.users}")
        try:
            from ..ofdm.experiment import OFDMExperiment
        except ModuleNotFoundError as error:
            raise ValueError(str(error)) from None
        sizes = asdict(self) | {"pilot_symbols": tuple(at), "spacing": 1e3 * self.spacing}
        sizes |= {"speed": self.speed / 3.6, "carrier": 1e9 * self.carrier}
        return [({}, OFDMExperiment(**sizes))]

    def settings(self) -> dict[str, Any]:
        return {"experiment": self.name} | asdict(self)
