"""The options of the two experiments, for command lines and notebooks; PyTorch is imported when they are used.

Lists and arrays are text, as on a command line: "8,12,15", "4x4".
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

if TYPE_CHECKING:
    import torch

    from ..systems import IRSMIMO
    from .experiments import IRSExperiment, SyntheticExperiment

Number = TypeVar("Number", int, float)
Value = TypeVar("Value")
Point = dict[str, float]
AXES = {
    "snr_db": "SNR (dB)",
    "first_rows": "measurements of the first factor, $M_1$",
    "sparsity": "nonzeros a factor, $K$",
}
ARRAYS = ("bs", "ms", "irs")
LOUDEST_DB = 300.0  # beyond, double precision holds either the signal or the noise


@dataclass(frozen=True)
class SyntheticOptions:
    """Random Kronecker-sparse problems.

    Args:
        rows: Measurements M_i of each factor, comma-separated.
        columns: Unknowns N_i of each factor, comma-separated.
        sparsity: Nonzeros a factor, comma-separated for a sweep.
        first_rows: Values of M_1 for a sweep, comma-separated; it replaces the first of --rows.
        known_noise: Whether the estimators are told the noise variance.
        as_published: Whether the estimators are those of the published tables.

    >>> [(point, experiment)] = SyntheticOptions(rows="4,5", columns="6,6", sparsity="2").experiments()
    >>> point, experiment.rows
    ({'first_rows': 4, 'sparsity': 2}, (4, 5))
    """

    rows: str = "8,12,15"
    columns: str = "15,15,15"
    sparsity: str = "3"
    first_rows: str | None = None
    known_noise: bool = True
    as_published: bool = False

    name: ClassVar[str] = "synthetic"
    simulated: ClassVar[dict[str, Any]] = {
        "estimators": "SVD,AM,KSBL,KOMP,OLS",
        "trials": 200,
        "snr": "5,10,15,20,25,30",
    }
    traced: ClassVar[dict[str, Any]] = {"estimators": "SVD,AM,PC0.8", "snr": 20.0}

    def experiments(self, device: str = "cpu") -> "list[tuple[Point, SyntheticExperiment]]":
        """One experiment for each M_1 and sparsity; raises ValueError where the sizes make no problem."""
        from ..systems.synthetic import require_sizes
        from .experiments import SyntheticExperiment

        first, *others = numbers("rows", self.rows, int)
        columns = tuple(numbers("columns", self.columns, int))
        sweep = numbers("first_rows", self.first_rows, int) if self.first_rows else [first]
        nonzeros = numbers("sparsity", self.sparsity, int)
        found: list[tuple[Point, SyntheticExperiment]] = []
        for m, k in product(different("first_rows", sweep), different("sparsity", nonzeros)):
            rows = (m, *others)
            require_sizes(rows, columns, [k] * len(rows))
            experiment = SyntheticExperiment(
                rows, columns, k, self.known_noise, device, as_published=self.as_published
            )
            found.append(({"first_rows": m, "sparsity": k}, experiment))
        return found

    def shape(self) -> tuple[int, bool, bool]:
        """How many factors the problems have, of complex numbers or not, and whether for published forms."""
        return self.rows.count(",") + 1, False, self.as_published

    def settings(self) -> dict[str, Any]:
        return {"experiment": self.name} | asdict(self)


@dataclass(frozen=True)
class SystemOptions:
    """The uplink whose channels are estimated; see `sbl.systems.IRSMIMO`.

    Args:
        bs: Antennas of the base station; 4x4 for a planar array.
        ms: Antennas of the mobile station; 2x3 for a planar array.
        irs: Elements of the surface; 16x16 for a planar array.
        grid: Points of the angular grid, in each dimension of an array.
        paths: Departure directions of each hop.
        spread: Neighbouring arrival angles of each path.
        pilots: Pilot symbols for each pattern.
        patterns: Patterns of the surface.
        on_grid: Whether directions lie on the grid.

    >>> SystemOptions(bs="4x4").system().bs
    (4, 4)
    """

    bs: int | str = 16
    ms: int | str = 6
    irs: int | str = 256
    grid: int = 18
    paths: int = 1
    spread: int = 3
    pilots: int = 3
    patterns: int = 6
    on_grid: bool = True

    def system(self, dtype: "torch.dtype | None" = None) -> "IRSMIMO":
        """In complex128 unless told otherwise; raises ValueError where the sizes make no system."""
        import torch

        from ..systems import IRSMIMO

        sizes = {field.name: getattr(self, field.name) for field in fields(SystemOptions)}
        arrays = {name: array(name, sizes[name]) for name in ARRAYS}
        return IRSMIMO(**sizes | arrays, dtype=dtype or torch.complex128)


@dataclass(frozen=True)
class IRSOptions(SystemOptions):
    """Channel estimation in the uplink of a MIMO system aided by an intelligent reflecting surface.

    Args:
        fresh_training: Draw pilots and patterns anew for each trial, not once for the run.
        as_published: Whether the estimators are those of the published tables.

    >>> [(point, experiment)] = IRSOptions(grid=12).experiments()
    >>> point, experiment.system.grid
    ({}, 12)
    """

    fresh_training: bool = False
    as_published: bool = False

    name: ClassVar[str] = "irs"
    traced: ClassVar[dict[str, Any]] = {"estimators": "SVD,AM,PC0.8,PC0.5", "snr": 12.0}
    simulated: ClassVar[dict[str, Any]] = traced | {"trials": 50, "snr": "4,8,12,16,20"}

    def experiments(self, device: str = "cpu") -> "list[tuple[Point, IRSExperiment]]":
        """The one experiment; raises ValueError where the sizes make no system."""
        from .experiments import IRSExperiment

        experiment = IRSExperiment(self.system(), self.fresh_training, device, as_published=self.as_published)
        return [({}, experiment)]

    def shape(self) -> tuple[int, bool, bool]:
        """As of `SyntheticOptions`."""
        return 3, True, self.as_published

    def settings(self) -> dict[str, Any]:
        arrays = {name: str(getattr(self, name)) for name in ARRAYS}
        return {"experiment": self.name} | asdict(self) | arrays


def numbers(name: str, text: str, kind: type[Number]) -> list[Number]:
    """The finite numbers of a comma-separated list; raises ValueError, which names --`name`.

    >>> numbers("snr", "4,8.5", float)
    [4.0, 8.5]
    """
    try:
        found = [kind(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--{name} must be comma-separated numbers, got {text!r}") from None
    if not all(math.isfinite(value) for value in found):
        raise ValueError(f"--{name} must be finite, got {text!r}")
    return found


def decibels(text: str) -> list[float]:
    """The SNRs of a comma-separated list; raises ValueError for one that is named twice or beyond +-300 dB.

    >>> decibels("10,20")
    [10.0, 20.0]
    """
    found = different("snr", numbers("snr", text, float))
    if max(map(abs, found)) > LOUDEST_DB:
        raise ValueError(f"--snr must lie between -{LOUDEST_DB:g} and {LOUDEST_DB:g} dB, got {text!r}")
    return found


def different(name: str, values: list[Value]) -> list[Value]:
    """`values`, unless one is there twice: ValueError, since it would be counted twice."""
    twice = [value for k, value in enumerate(values) if value in values[:k]]
    if twice:
        raise ValueError(f"--{name} names {twice[0]} twice; name each once")
    return values


def array(name: str, text: int | str) -> int | tuple[int, int]:
    """The sizes of an array; raises ValueError, which names --`name`.

    >>> array("bs", 16), array("bs", "4x4")
    (16, (4, 4))
    """
    try:
        sizes = [int(part) for part in str(text).split("x")]
    except ValueError:
        sizes = []
    if len(sizes) not in (1, 2) or min(sizes) < 1:
        raise ValueError(f"--{name} must be a number or a pair such as 4x4, got {text!r}")
    return sizes[0] if len(sizes) == 1 else (sizes[0], sizes[1])


def varying(points: Sequence[Mapping[str, Any]]) -> str:
    """The quantity in which `points` differ, the SNR if none; raises ValueError where there are several."""
    found = [axis for axis in AXES if len({point.get(axis) for point in points}) > 1]
    if len(found) > 1:
        raise ValueError(f"only one quantity can vary in a run, not {' and '.join(found)}")
    return found[0] if found else "snr_db"
