"""IDM parameters of a population of drivers: its typical driver and the spread around it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.rules.driver_parameters import DriverParameters
from drivecast.worldmodel.rules.laws import free_acceleration, interaction
from drivecast.worldmodel.storage.files import atomic_file

DRAWN_WITHIN = 2.0  # standard deviations: nobody is drawn further out
FOLDER = Path(__file__).resolve().parents[2] / "configs" / "idm"  # of parameter files; in a wheel, too
SEED_STRIDE = 1_000_003  # between the seeds of neighbouring vehicles


@dataclass(frozen=True)
class DriverTraits:
    """Parameters of IDM with the names of `IDMConfig`: numbers, or tensors with one value per driver.

    Attributes:
        acceleration_mps2: Acceleration on a free road from standing, m/s².
        braking_mps2: Comfortable braking, m/s² (positive).
        jam_gap_m: Gap from bumper to bumper in a jam, m.
        time_gap_s: Time gap to the leader, s.
        desired_speed_mps: Speed on a free road, m/s.
    """

    acceleration_mps2: Any
    braking_mps2: Any
    jam_gap_m: Any
    time_gap_s: Any
    desired_speed_mps: Any

    @staticmethod
    def of(values: Tensor) -> DriverTraits:
        """From `values (..., 5)` in the order of the fields."""
        return DriverTraits(*values.unbind(-1))

    def values(self) -> list[Any]:
        """In the order of the fields."""
        return [getattr(self, name) for name in TRAITS]


TRAITS = tuple(field.name for field in fields(DriverTraits))
EXPONENT = 4.0  # of the speed on a free road
TEXTBOOK = DriverTraits(1.0, 1.5, 2.0, 1.0, 30.0)  # Treiber, Kesting 2013, table 11.2: highway


@dataclass(frozen=True)
class FittedDrivers:
    """Drivers that differ: each parameter is log-normal, independent of the others.

    Attributes:
        typical: The median of each parameter.
        spread: Standard deviation of each parameter's logarithm.
        drivers: How many recorded drivers it was estimated from.
    """

    typical: DriverTraits
    spread: DriverTraits
    drivers: int = 0

    def __post_init__(self) -> None:
        for name in TRAITS:
            typical, spread = getattr(self.typical, name), getattr(self.spread, name)
            if not 0 < typical < math.inf:
                raise InputError(f"{name}: expected more than 0, got {typical}")
            if not 0 <= spread < math.inf:
                raise InputError(f"spread.{name}: expected at least 0, got {spread}")

    def quantile(self, share: float) -> DriverTraits:
        """Each parameter's quantile."""
        at = float(torch.special.ndtri(torch.tensor(share, dtype=torch.float64)))
        return DriverTraits(*(m * math.exp(s * at) for m, s in zip(self.typical.values(), self._spread(), strict=True)))

    def draw(self, count: int, seed: int) -> DriverTraits:
        """`count` drivers, `(count,)` each: the same ones for the same seed, the first ones whatever their number."""
        rows = [self._normal(seed * SEED_STRIDE + number) for number in range(count)]
        normal = torch.stack(rows) if rows else torch.zeros(0, len(TRAITS), dtype=torch.float64)
        median = torch.tensor([float(value) for value in self.typical.values()], dtype=torch.float64)
        drawn = median * (normal * torch.tensor(self._spread(), dtype=torch.float64)).exp()
        return DriverTraits.of(drawn.to(torch.get_default_dtype()))

    def write(self, path: Path, comment: str = "") -> None:
        """Write a YAML file: the typical values under the names of `IDMConfig`, `spread` and, to read, quantiles."""
        rounded = {name: round(float(getattr(self.typical, name)), 4) for name in TRAITS}
        content: dict[str, Any] = {
            **rounded,
            "spread": {name: round(float(getattr(self.spread, name)), 4) for name in TRAITS},
            "drivers": self.drivers,
        }
        low, high = self.quantile(0.05), self.quantile(0.95)
        notes = [f"# {line}".rstrip() for line in comment.splitlines()]
        notes += ["#", "# 5 % and 95 % of drivers:"]
        notes += [f"#   {name}: {getattr(low, name):.2f} to {getattr(high, name):.2f}" for name in TRAITS]
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as temporary:
            text = yaml.safe_dump(content, sort_keys=False)
            temporary.write_text("\n".join(notes) + "\n" + text, encoding="utf-8")

    @staticmethod
    def named(name: str) -> FittedDrivers:
        """Those of a file in configs/idm, or of a path."""
        file = FOLDER / f"{name}.yaml"
        return FittedDrivers.read(file if file.is_file() else Path(name))

    @staticmethod
    def read(path: Path) -> FittedDrivers:
        """Read what `write` wrote.

        Raises:
            InputError: It is missing, not YAML, or a value is missing, unknown or out of range.
        """
        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(f"{path}: cannot be read as parameters of IDM ({' '.join(str(error).split())})") from None
        if not isinstance(content, dict) or not isinstance(content.get("spread"), dict):
            raise InputError(
                f"{path}: expected {', '.join(TRAITS)} and their spread; fit them to a store's train split"
            )
        spread, drivers = content.pop("spread"), content.pop("drivers", 0)
        parts = []
        for where, given in (("", content), ("spread.", spread)):
            if set(given) != set(TRAITS):
                raise InputError(f"{path}: expected {where}{{{', '.join(TRAITS)}}}, got {sorted(map(str, given))}")
            try:
                parts.append(DriverTraits(*(float(given[name]) for name in TRAITS)))
            except (TypeError, ValueError):
                raise InputError(f"{path}: expected numbers under {where or 'the names'}, got {given}") from None
        try:
            return FittedDrivers(parts[0], parts[1], int(drivers))
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    def _spread(self) -> list[float]:
        return [float(value) for value in self.spread.values()]

    @staticmethod
    def _normal(seed: int) -> Tensor:
        """Five standard normals of one driver, held within `DRAWN_WITHIN`."""
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(len(TRAITS), generator=generator, dtype=torch.float64)
        return drawn.clamp(-DRAWN_WITHIN, DRAWN_WITHIN)


def idm_acceleration(
    traits: DriverTraits, speed_mps: Tensor, closing_mps: Tensor, gap_m: Tensor, lengths_m: Tensor
) -> Tensor:
    """IDM's acceleration, m/s², by the laws of `IDMDriver` and highway-env: distances from centre to centre.

    Args, all of one shape:
        traits: The drivers.
        speed_mps: Their speed.
        closing_mps: ... less that of their leader.
        gap_m: From bumper to bumper; infinite: nobody ahead.
        lengths_m: Half of both lengths.
    """
    drivers = DriverParameters(
        time_gap_s=traits.time_gap_s,
        jam_distance_m=traits.jam_gap_m + lengths_m,
        comfort_acceleration_mps2=traits.acceleration_mps2,
        comfort_braking_mps2=traits.braking_mps2,
    )
    free = free_acceleration(speed_mps, traits.desired_speed_mps, EXPONENT, drivers)
    return free - interaction(speed_mps, closing_mps, gap_m.clamp_min(0.01) + lengths_m, drivers)
