"""Where an episode came from and how it ended."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, Literal, get_args

Outcome = Literal["completed", "collision", "off_road", "timed_out"]


@dataclass(frozen=True)
class EpisodeMetadata:
    """Where an episode came from and how it ended.

    Attributes:
        driver: Name of the driver, as on the command line.
        environment: Name of the environment, as on the command line.
        seed: Seed of the episode.
        dt_s: Time between two states, s.
        outcome: `completed`, `collision`, `off_road` or `timed_out`.
        config_hash: Hash of the evaluation's configuration.
        recording: Recorded traffic only: name of the recording.
        vehicle_id: Recorded traffic only: the vehicle whose place the ego took.
        collided_with: Index of the agent the ego touched, if any.
        at_fault: Whether a collision was the ego's fault, where that was judged.
        desired_speed_mps: The speed the ego was asked for, m/s, if any.
        extras: Anything else worth keeping that JSON can hold.
    """

    driver: str
    environment: str
    seed: int
    dt_s: float
    outcome: Outcome
    config_hash: str = ""
    recording: str | None = None
    vehicle_id: int | None = None
    collided_with: int | None = None
    at_fault: bool | None = None
    desired_speed_mps: float | None = None
    extras: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, kinds in _KINDS.items():
            value = getattr(self, name)
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                expected = " or ".join("none" if kind is NoneType else kind.__name__ for kind in kinds)
                raise ValueError(f"{name} must be {expected}; got {value!r:.60}")
        if self.outcome not in get_args(Outcome):
            raise ValueError(f"outcome must be one of {', '.join(get_args(Outcome))}; got {self.outcome!r:.60}")
        if not 0 < self.dt_s < math.inf:
            raise ValueError(f"dt_s must be positive and finite; got {self.dt_s!r}")


_KINDS: dict[str, tuple[type, ...]] = {  # a file may have been made by anybody
    "driver": (str,),
    "environment": (str,),
    "seed": (int,),
    "dt_s": (float, int),
    "outcome": (str,),
    "config_hash": (str,),
    "recording": (str, NoneType),
    "vehicle_id": (int, NoneType),
    "collided_with": (int, NoneType),
    "at_fault": (bool, NoneType),
    "desired_speed_mps": (float, int, NoneType),
    "extras": (dict,),
}
