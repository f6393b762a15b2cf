"""What a planner proposes: to steer for a lane and follow there at some time gap; and the law that carries it out."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.rules.driver_parameters import DriverParameters
from drivecast.worldmodel.rules.in_the_way import ROOM_M
from drivecast.worldmodel.rules.laws import free_acceleration, interaction
from drivecast.worldmodel.scene.kinematics import MAX_BRAKING_MPS2, steering_for
from drivecast.worldmodel.scene.lane_neighbours import single_lane
from drivecast.worldmodel.scene.road import Road, RoadPosition
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState, _TensorRecord

LEAST_GAP_M = 0.1
SOFT_MPS2, HARD_MPS2 = 2.0, 5.0  # braking
SETTLING_S = 0.5  # in which a speed that is nearly reached is reached
PURSUIT_S = 0.3  # the lane's heading is taken so far ahead


@dataclass(frozen=True)
class LawConfig:
    """How the ego carries a manoeuvre out.

    Args:
        acceleration_mps2: IDM's acceleration from standing, and the most that anything is added up to, m/s²; well
            within nuPlan's bound of comfort, 2.4.
        braking_mps2: IDM's comfortable braking, m/s² (positive).
        jam_gap_m: IDM's gap from bumper to bumper in a jam, m.
        exponent: IDM's, of the speed on a free road.
        foreseen_s: Who is ahead and drifts into the ego's way within this time is followed already, s.
        lateral_mps2: Largest lateral acceleration that it steers for, m/s².
        lateral_rate_radps: How fast it settles on its lane: natural frequency of a critically damped oscillator, rad/s.
        rise_mps3: Its acceleration grows no faster than this, m/s³; to brake, it is free.
    """

    acceleration_mps2: float = 2.0
    braking_mps2: float = 6.0
    jam_gap_m: float = 3.0
    exponent: float = 8.0
    foreseen_s: float = 1.0
    lateral_mps2: float = 3.0
    lateral_rate_radps: float = 1.8
    rise_mps3: float = 20.0

    def __post_init__(self) -> None:
        for name in ("acceleration_mps2", "braking_mps2", "exponent", "lateral_mps2", "lateral_rate_radps"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise InputError(f"law.{name}: expected more than 0, got {getattr(self, name)}")
        if not self.rise_mps3 > 0.0:
            raise InputError(f"law.rise_mps3: expected more than 0, got {self.rise_mps3}")

    def eased(self, controls: Controls, before_mps2: Tensor, after_s: float) -> Controls:
        """Controls `(row,)` whose acceleration has grown from `before_mps2 (row,)` in `after_s`."""
        most = before_mps2 + self.rise_mps3 * after_s
        return replace(controls, acceleration_mps2=controls.acceleration_mps2.minimum(most))


@dataclass(frozen=True)
class Manoeuvre(_TensorRecord):
    """What each row's ego is up to, `(row,)` each.

    Attributes:
        lane: Long. The lane of the road that it steers for.
        time_gap_s: IDM's, s.
        wish_mps: Speed that it wants on a free road.
        brakes: Bool. It brakes fully instead, in that lane.
    """

    lane: Tensor
    time_gap_s: Tensor
    wish_mps: Tensor
    brakes: Tensor

    def repeated(self, times: int) -> Manoeuvre:
        """Each row `times` times, side by side."""
        return self.map(lambda values: values.repeat_interleave(times, 0))


def keeping(goal: Goal, road: Road, lane: Tensor, time_gap_s: float) -> Manoeuvre:
    """To keep to `lane (row,)`, as fast as is wished there."""
    gap = torch.full_like(goal.desired_speed_mps, time_gap_s)
    return Manoeuvre(lane, gap, wished_mps(goal, road, lane), torch.zeros_like(lane, dtype=torch.bool))


class Law:
    """Carries manoeuvres out on a road, `(row,)`; differentiable in where everybody is.

    Along: IDM behind everybody in the ego's way from where it is to the centre of its lane, and before that lane's
    closed end. Across: a critically damped oscillator about the lane's centre, its acceleration limited.

    Args:
        manoeuvre: What each row's ego is up to.
        road: The road of each row.
        config: How.
    """

    def __init__(self, manoeuvre: Manoeuvre, road: Road, config: LawConfig) -> None:
        self.manoeuvre, self.config = manoeuvre, config
        self._lane = single_lane(road, manoeuvre.lane)
        self._ends = ~self._lane.open_end
        self._drivers = DriverParameters(
            time_gap_s=manoeuvre.time_gap_s[:, None],
            jam_distance_m=config.jam_gap_m,
            comfort_acceleration_mps2=config.acceleration_mps2,
            comfort_braking_mps2=config.braking_mps2,
        )
        # from a leader that pulls away it wants the gap of a jam at least: IDM's square takes less for more
        self._least_closing_mps = -manoeuvre.time_gap_s[:, None] * self._drivers.closing_mps2

    def controls(self, scene: TrafficState) -> Controls:
        """The ego's controls `(row,)` in `scene (row, agent)`."""
        ego = scene[:, 0]
        ahead_m = ego.position_m + ego.direction * (ego.speed_mps * PURSUIT_S)[:, None]
        there = self._lane.project(torch.cat([scene.position_m, ahead_m[:, None]], 1))
        lane_heading = there.heading_rad[:, -1]
        return Controls(self._along(scene, there[:, :-1]), self._across(ego, there[:, 0], lane_heading))

    def _along(self, scene: TrafficState, there: RoadPosition) -> Tensor:
        config, speed = self.config, scene.speed_mps
        turn = scene.heading_rad - there.heading_rad
        along_mps, across_mps = speed * turn.cos(), speed * turn.sin()
        room = (scene.width_m + scene.width_m[:, :1]) / 2 + ROOM_M
        own_m = there.across_m[:, :1]
        low, high = own_m.clamp_max(0.0) - room, own_m.clamp_min(0.0) + room
        then_m = there.across_m + across_mps * config.foreseen_s
        offset = there.along_m - there.along_m[:, :1]  # of the ego itself zero: it is not ahead
        gap = offset - (scene.length_m + scene.length_m[:, :1]) / 2
        # who drifts here is ahead once it is here; of who is alongside, full braking would not save the ego either
        drifts = (then_m > low) & (then_m < high) & (gap > 0)
        sweeps = (there.across_m > low) & (there.across_m < high) | drifts
        wall_m = there.remaining_m[:, :1] - scene.length_m[:, :1] / 2
        counts = torch.cat([scene.valid & sweeps & (offset > 0), self._ends], 1)
        gap = torch.where(counts, torch.cat([gap, wall_m], 1).clamp_min(LEAST_GAP_M), torch.inf)
        closing = torch.cat([along_mps[:, :1] - along_mps, along_mps[:, :1]], 1).maximum(self._least_closing_mps)
        wish = self.manoeuvre.wish_mps.clamp_min(0.1)
        free = free_acceleration(speed[:, 0], wish, config.exponent, self._drivers)
        held_back = interaction(speed[:, :1], closing, gap, self._drivers).amax(1)
        acceleration = (free - held_back).clamp(-MAX_BRAKING_MPS2, config.acceleration_mps2)
        return torch.where(self.manoeuvre.brakes, -MAX_BRAKING_MPS2, acceleration)

    def _across(self, ego: TrafficState, there: RoadPosition, lane_heading_rad: Tensor) -> Tensor:
        most, rate = self.config.lateral_mps2, self.config.lateral_rate_radps
        drift_mps = ego.speed_mps * (ego.heading_rad - lane_heading_rad).sin()
        wanted = -(rate**2) * there.across_m - 2 * rate * drift_mps
        return steering_for(wanted.clamp(-most, most), ego.speed_mps, ego.length_m)


def wished_mps(goal: Goal, road: Road, lane: Tensor) -> Tensor:
    """The speed that is wanted on `lane (row,)`, within its limit, m/s."""
    limit = road.speed_limit(lane[:, None])[:, 0]
    return torch.minimum(goal.desired_speed_mps, torch.where(limit > 0, limit, torch.inf))


def with_added(
    controls: Controls, added: Tensor, scene: TrafficState, manoeuvre: Manoeuvre, law: LawConfig
) -> Controls:
    """Controls of a law with `added (row, 2)` m/s² along and across.

    It speeds up by the law's acceleration at most, and what is added leads to no speed beyond the one that is wished.
    Of hard braking nothing is taken back: less and less from `SOFT_MPS2` on, nothing from `HARD_MPS2`.
    """
    soft = ((controls.acceleration_mps2.detach() + HARD_MPS2) / (HARD_MPS2 - SOFT_MPS2)).clamp(0.0, 1.0)
    along = added[:, 0].clamp_max(0.0) + added[:, 0].clamp_min(0.0) * soft
    faster = (controls.acceleration_mps2 + along).clamp(-MAX_BRAKING_MPS2, law.acceleration_mps2)
    settling = (manoeuvre.wish_mps - scene.speed_mps[:, 0]) / SETTLING_S
    acceleration = faster.minimum(settling.maximum(controls.acceleration_mps2))
    steering = controls.steering_rad + steering_for(added[:, 1], scene.speed_mps[:, 0], scene.length_m[:, 0])
    return Controls(acceleration, steering)
