"""What one driver's IDM and MOBIL differ in from another's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property

from torch import Tensor


@dataclass(frozen=True, eq=False)
class DriverParameters:
    """Numbers that all drivers share, or tensors `(episode, agent)` of each driver's own; highway-env's unless given.

    Numbers cost nothing: the arithmetic is then the same as with constants, and what is multiplied by a politeness of
    zero is not computed.

    Attributes:
        time_gap_s: IDM's T, s.
        jam_distance_m: IDM's d0, centre to centre, m.
        comfort_acceleration_mps2: IDM's a, m/s².
        comfort_braking_mps2: IDM's b, m/s², positive.
        politeness: MOBIL's p: what a gain of the followers counts beside one's own.
        least_gain_mps2: MOBIL: the gain that makes a lane change worth it, m/s².
        most_imposed_mps2: MOBIL: how hard the new follower may have to brake, m/s².
    """

    time_gap_s: float | Tensor = 1.5
    jam_distance_m: float | Tensor = 10.0
    comfort_acceleration_mps2: float | Tensor = 3.0
    comfort_braking_mps2: float | Tensor = 5.0
    politeness: float | Tensor = 0.0
    least_gain_mps2: float | Tensor = 0.2
    most_imposed_mps2: float | Tensor = 2.0

    @cached_property
    def closing_mps2(self) -> float | Tensor:
        """2 sqrt(a b), by which IDM weighs a closing speed, m/s²."""
        product = self.comfort_acceleration_mps2 * self.comfort_braking_mps2
        return 2 * (product.sqrt() if isinstance(product, Tensor) else math.sqrt(product))

    @property
    def polite(self) -> bool:
        """Somebody may care about others."""
        return isinstance(self.politeness, Tensor) or self.politeness != 0

    def of(self, places: Tensor) -> DriverParameters:
        """Those of the agents at `places (k,)` of the flattened scene."""
        return self.map(lambda values: values.take(places))

    def map(self, function: Callable[[Tensor], Tensor]) -> DriverParameters:
        """The same with `function` applied to those that are tensors."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        own = {name: function(value) for name, value in values.items() if isinstance(value, Tensor)}
        return DriverParameters(**(values | own)) if own else self


HIGHWAY_ENV = DriverParameters()
