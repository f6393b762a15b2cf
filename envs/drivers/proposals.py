"""What the rule driver proposes, and how it scores what comes of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from drivecast.worldmodel.errors import InputError


@dataclass(frozen=True)
class RuleConfig:
    """What is proposed and how it is scored.

    Args:
        time_gaps_s: IDM's time gaps that are proposed, s.
        starts_s: When a lane change may begin, s from now.
        horizon_s: How far proposals are rolled out, s.
        rollout_dt_s: Time step of the rollout, s.
        decide_every_s: Time between two decisions, s.
        considered: So many vehicles, the nearest ones, take part.
        jam_gap_m: The ego's IDM: gap from bumper to bumper in a jam, m.
        acceleration_mps2: The ego's IDM: acceleration from standing, m/s^2.
        braking_mps2: The ego's IDM: comfortable braking, m/s^2 (positive).
        exponent: The ego's IDM: of the speed on a free road.
        margin_m: Room around the ego's box that counts as a contact, m.
        collision_cost: Of a contact at once; one at the horizon's end costs half of it.
        short_ttc_s: Times to collision below this are penalised, s.
        ttc_cost: Of being that short all the time.
        imposed_mps2: Braking that a lane change asks of a follower, beyond which it is penalised, m/s^2 (positive).
        imposed_cost: Per m/s^2 beyond, at the worst moment.
        comfort_cost: Per m/s^2 of the acceleration's root mean square.
        change_cost: Of a lane change, against dithering.
        progress_gain: Per m/s of mean speed, and as much for the speed at the end.
    """

    time_gaps_s: tuple[float, ...] = (0.4, 0.7, 1.0, 1.4, 2.0)
    starts_s: tuple[float, ...] = (0.0, 1.5)
    horizon_s: float = 8.0
    rollout_dt_s: float = 0.2
    decide_every_s: float = 0.5
    considered: int = 20
    jam_gap_m: float = 2.5
    acceleration_mps2: float = 3.0
    braking_mps2: float = 5.0
    exponent: float = 6.0
    margin_m: float = 0.3
    collision_cost: float = 40.0
    short_ttc_s: float = 1.5
    ttc_cost: float = 3.0
    imposed_mps2: float = 2.0
    imposed_cost: float = 2.0
    comfort_cost: float = 0.1
    change_cost: float = 0.1
    progress_gain: float = 0.5

    def __post_init__(self) -> None:
        if not self.time_gaps_s or not self.starts_s:
            raise InputError("rule.time_gaps_s, starts_s: expected at least one of each")
        for name in ("horizon_s", "rollout_dt_s", "decide_every_s", "considered"):
            if getattr(self, name) <= 0:
                raise InputError(f"rule.{name}: expected more than 0, got {getattr(self, name)}")


@dataclass(frozen=True)
class Proposals:
    """What may be driven, `(proposal,)` each: the same for all episodes.

    Attributes:
        side: Long; 0 keeps the lane, 1 goes to the left, 2 to the right.
        time_gap_s: s.
        start_s: s.
    """

    side: Tensor
    time_gap_s: Tensor
    start_s: Tensor

    @staticmethod
    def of(time_gaps_s: tuple[float, ...], starts_s: tuple[float, ...], device: torch.device) -> Proposals:
        """Keeping the lane at each gap, and changing to either side at each gap and start."""
        keep = [(0, gap, 0.0) for gap in time_gaps_s]
        change = [(side, gap, start) for side in (1, 2) for start in starts_s for gap in time_gaps_s]
        side, gap, start = zip(*keep, *change, strict=True)
        values = (torch.tensor(each, device=device, dtype=torch.get_default_dtype()) for each in (gap, start))
        return Proposals(torch.tensor(side, device=device), *values)

    def __len__(self) -> int:
        return len(self.side)
