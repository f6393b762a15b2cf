"""How recorded traffic is driven in."""

from __future__ import annotations

from dataclasses import dataclass

from drivecast.worldmodel.errors import InputError

OTHERS = ("replay", "yielding", "reactive")


@dataclass(frozen=True)
class RecordedTrafficConfig:
    """How a recorded vehicle is replaced.

    Args:
        history_s: How long a vehicle must have been recorded before it is driven, s; drivers see that history.
        slack_s: A vehicle cut by the end of its recording has to reach where it was this long before the end, s, so
            that a driver who is a little slower is not failed by the clock.
        min_span_s: A vehicle is driven only if the human took at least this long over its span, s.
        min_span_m: ... and covered at least this distance, m.
        patience: The time allowed, as a multiple of what the human took (the recording's end may come first).
        off_road_m: How far the ego's centre may be outside every lane before it has left the road, m.
        contact_tolerance_m: Overlap of boxes that is not yet a contact, m (NGSIM gives sizes in steps of 0.15 m).
        appearing_m: A vehicle that comes into the recording this near the ego, where no human was, is left out, m.
        desired_speed_mps: Speed the ego is asked for, m/s; 0: the 95th percentile of the recording's speeds.
        max_acceleration_mps2: The ego's controls are held within this, m/s^2, forwards and in braking.
        others: What the others do: replay; yielding (replay, until one is about to run into the ego: from then on it
            drives by IDM); reactive (all drive by IDM from the start).
        idm: Their parameters of IDM: name of a file in configs/idm, or a path.
        idm_seed: Draws each vehicle's parameters.
    """

    history_s: float = 1.0
    slack_s: float = 2.0
    min_span_s: float = 2.0
    min_span_m: float = 5.0
    patience: float = 2.0
    off_road_m: float = 1.0
    contact_tolerance_m: float = 0.05
    appearing_m: float = 0.5
    desired_speed_mps: float = 0.0
    max_acceleration_mps2: float = 8.0
    others: str = "replay"
    idm: str = "fitted-us101"
    idm_seed: int = 0

    def __post_init__(self) -> None:
        for name in ("history_s", "slack_s", "min_span_m", "off_road_m", "contact_tolerance_m", "appearing_m"):
            if getattr(self, name) < 0:
                raise InputError(f"traffic.{name}: expected at least 0, got {getattr(self, name)}")
        for name in ("min_span_s", "max_acceleration_mps2"):
            if getattr(self, name) <= 0:
                raise InputError(f"traffic.{name}: expected more than 0, got {getattr(self, name)}")
        if self.others not in OTHERS:
            raise InputError(f"recorded.others: expected {', '.join(OTHERS[:-1])} or {OTHERS[-1]}; got '{self.others}'")
        if self.patience < 1:
            raise InputError(f"traffic.patience: expected at least 1 (the human's time), got {self.patience}")
