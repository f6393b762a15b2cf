"""How imagined traffic is driven in."""

from __future__ import annotations

from dataclasses import dataclass

from drivecast.worldmodel.errors import InputError


@dataclass(frozen=True)
class ImaginedTrafficConfig:
    """Traffic that the world model goes on with from recorded scenes.

    Args:
        history_s: How long a vehicle must have been recorded before it is driven, s; the model sees that history.
        duration_s: Length of an episode, s.
        every_s: Moments of a recording at which episodes begin are this far apart, s.
        off_road_m: How far the ego's centre may be outside every lane before it has left the road, m.
        contact_tolerance_m: Overlap of boxes that is not yet a contact, m (NGSIM gives sizes in steps of 0.15 m).
        near_m: Vehicles beyond the end of the recorded section stay as long as they are this near the ego, m.
        desired_speed_mps: Speed the ego is asked for, m/s; 0: the 95th percentile of the recording's speeds.
    """

    history_s: float = 2.0
    duration_s: float = 30.0
    every_s: float = 1.0
    off_road_m: float = 1.0
    contact_tolerance_m: float = 0.05
    near_m: float = 100.0
    desired_speed_mps: float = 0.0

    def __post_init__(self) -> None:
        for name in ("history_s", "off_road_m", "contact_tolerance_m", "near_m", "desired_speed_mps"):
            if getattr(self, name) < 0:
                raise InputError(f"imagined.{name}: expected at least 0, got {getattr(self, name)}")
        for name in ("duration_s", "every_s"):
            if getattr(self, name) <= 0:
                raise InputError(f"imagined.{name}: expected more than 0, got {getattr(self, name)}")
