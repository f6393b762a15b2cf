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
        offsets_m: How far from its lane's centre one may keep, m, left positive: for those who reach over the marking.
        horizon_s: How far proposals are rolled out, s.
        rollout_dt_s: Time step of the rollout, s.
        decide_every_s: Time between two decisions, s.
        considered: So many vehicles, the nearest ones, take part.
        jam_gap_m: The ego's IDM: gap from bumper to bumper in a jam, m.
        acceleration_mps2: The ego's IDM: acceleration from standing, m/s^2.
        braking_mps2: The ego's IDM: comfortable braking, m/s^2 (positive).
        exponent: The ego's IDM: of the speed on a free road.
        margin_m: Room around the ego's box that counts as a contact, m; less than what people on narrow lanes leave.
        bumper_m: So much more ahead of the ego's box and behind it, m: who cuts in at a car's bumper as foreseen, will
            touch it as it comes about.
        collision_cost: Of a contact at once; one at the horizon's end costs half of it, and neither makes progress.
        impact_cost: Per m/s of relative speed in the contact.
        swerve_cost: Of a lane change that ends in a contact: where all do, braking in the lane is preferred.
        short_ttc_s: Times to collision below this are penalised, s.
        ttc_cost: Of being that short all the time.
        imposed_mps2: Braking that a lane change asks of a follower, beyond which it is penalised, m/s^2 (positive).
        imposed_cost: Per m/s^2 beyond, at the worst moment.
        comfort_cost: Per m/s^2 of the acceleration's root mean square.
        change_cost: Of a lane change, against dithering.
        offset_cost: Per m off the lane's centre.
        progress_gain: Per m/s of mean speed, and as much for the speed at the end.
    """

    time_gaps_s: tuple[float, ...] = (0.4, 0.7, 1.0, 1.4, 2.0)
    starts_s: tuple[float, ...] = (0.0, 1.5)
    offsets_m: tuple[float, ...] = (0.0, -0.5, 0.5)
    horizon_s: float = 8.0
    rollout_dt_s: float = 0.2
    decide_every_s: float = 0.5
    considered: int = 20
    jam_gap_m: float = 2.5
    acceleration_mps2: float = 3.0
    braking_mps2: float = 5.0
    exponent: float = 6.0
    margin_m: float = 0.05
    bumper_m: float = 0.5
    collision_cost: float = 40.0
    impact_cost: float = 0.3
    swerve_cost: float = 5.0
    short_ttc_s: float = 1.5
    ttc_cost: float = 3.0
    imposed_mps2: float = 2.0
    imposed_cost: float = 2.0
    comfort_cost: float = 0.1
    change_cost: float = 0.1
    offset_cost: float = 1.0
    progress_gain: float = 0.5

    def __post_init__(self) -> None:
        if not self.time_gaps_s or not self.starts_s or not self.offsets_m:
            raise InputError("rule.time_gaps_s, starts_s, offsets_m: expected at least one of each")
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
        offset_m: From the lane's centre, left positive.
    """

    side: Tensor
    time_gap_s: Tensor
    start_s: Tensor
    offset_m: Tensor

    @staticmethod
    def of(config: RuleConfig, device: torch.device) -> Proposals:
        """Keeping the lane at each gap and offset, and changing to either side at each gap and start."""
        gaps = config.time_gaps_s
        keep = [(0, gap, 0.0, offset) for offset in config.offsets_m for gap in gaps]
        change = [(side, gap, start, 0.0) for side in (1, 2) for start in config.starts_s for gap in gaps]
        side, *others = zip(*keep, *change, strict=True)
        values = (torch.tensor(each, device=device, dtype=torch.get_default_dtype()) for each in others)
        return Proposals(torch.tensor(side, device=device), *values)

    def __len__(self) -> int:
        return len(self.side)
