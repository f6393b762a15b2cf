"""The cost terms: each maps a trajectory to an unreduced cost `(batch, time)` of order one where it hurts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from drivecast.planner.costs.trajectory import Trajectory
from drivecast.worldmodel.scene.kinematics import lateral_acceleration
from drivecast.worldmodel.scene.road import NO_LANE
from drivecast.worldmodel.scene.traffic import TrafficState, along_and_left

OVERLAP_SLOPE = 0.1
REACTION_S, STANDSTILL_M = 1.0, 2.0  # of who comes from behind: time until it brakes, and room that it wants to keep
LEAST_ROOM_M, MOST_ASKED_MPS2 = 0.5, 8.0
BESIDE_M = 0.5  # from side to side: nearer than that is in the way


@dataclass(frozen=True)
class ProximityConfig:
    """How much room the ego wants.

    Args:
        standstill_m: Gap between bumpers wanted at standstill, in metres.
        headway_s: Time headway wanted, in seconds.
        braking_mps2: Deceleration counted on to lose the closing speed, in m/s².
        beside_m: Lateral clearance between sides at which a neighbour stops mattering, in metres.
        behind: Weight of the room behind, which the follower should keep, relative to the room ahead.
    """

    standstill_m: float = 3.0
    headway_s: float = 0.8
    braking_mps2: float = 3.0
    beside_m: float = 1.0
    behind: float = 0.3

    def __post_init__(self) -> None:
        for name in ("standstill_m", "braking_mps2", "beside_m"):
            if getattr(self, name) <= 0.0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        if self.headway_s < 0.0 or self.behind < 0.0:
            raise ValueError("headway_s and behind must not be negative")


def proximity(trajectory: Trajectory, config: ProximityConfig) -> Tensor:
    """Sum over vehicles of a squared ramp in the gap along the ego's lane, faded out sideways.

    With bumper-to-bumper gap g, rear vehicle's speed v and closing speed c, the room wanted is
    d = standstill + headway v + max(c, 0)² / (2 braking), and the cost max(1 - g/d, 0)² (1 - (dy/reach)²), where reach
    is the touching width plus `beside_m`. Where g < 0 the ramp is 1 - 0.1 g/standstill. It is
    differentiable in both vehicles' states: nothing is detached, unlike in the original (Henaff et al. 2019), whose
    gradient does not reach the ego's motion.
    """
    ego, others = _ego_and_others(trajectory.states)
    there = trajectory.road.project(ego.position_m[:, :, 0])  # time stands where agents do
    tangent = torch.stack([there.heading_rad.cos(), there.heading_rad.sin()], -1)[:, :, None]
    along, left = along_and_left(others.position_m - ego.position_m, tangent)
    speed_along = (others.velocity_mps * tangent).sum(-1)
    ego_along = (ego.velocity_mps * tangent).sum(-1)
    ahead = along.detach() >= 0
    gap = along.abs() - (others.length_m + ego.length_m) / 2
    rear_speed = torch.where(ahead, ego_along, speed_along)
    closing = torch.where(ahead, ego_along - speed_along, speed_along - ego_along).clamp_min(0.0)
    wanted = config.standstill_m + config.headway_s * rear_speed.clamp_min(0.0) + closing**2 / (2 * config.braking_mps2)
    # alongside, the room wanted no longer counts, or going faster would look better: only how deep, and gently,
    # for cars in narrow lanes drive side by side within reach of each other
    overlap = OVERLAP_SLOPE * (-gap).clamp_min(0.0) / config.standstill_m
    ramp = (1.0 - gap.clamp_min(0.0) / wanted).clamp_min(0.0) + overlap
    reach = (others.width_m + ego.width_m) / 2 + config.beside_m
    beside = (1.0 - (left / reach) ** 2).clamp_min(0.0)
    weight = torch.where(ahead, 1.0, config.behind) * others.valid
    return (ramp**2 * beside * weight).sum(-1)


def asked_braking(gap_m: Tensor, closing_mps: Tensor) -> Tensor:
    """Braking that somebody asks who comes from behind, m/s²: closing² / (2 room), at most `MOST_ASKED_MPS2`.

    Of the gap between bumpers, room is what is left when a second of reaction and two metres to stand are taken off.
    """
    closing = closing_mps.clamp_min(0.0)
    room = (gap_m - closing * REACTION_S - STANDSTILL_M).clamp_min(LEAST_ROOM_M)
    return (closing.square() / (2 * room)).clamp_max(MOST_ASKED_MPS2)


def imposed(trajectory: Trajectory) -> Tensor:
    """Braking that the ego asks of those behind it who reach into its way: squares of it over 2 m/s², the largest.

    Whether they really brake is theirs to decide: imagined drivers may where real ones do not.
    Courtesy as in Sun et al. 2018, "Courteous autonomous cars", by kinematics alone.
    """
    ego, others = _ego_and_others(trajectory.states)
    there = trajectory.road.project(ego.position_m[:, :, 0])
    tangent = torch.stack([there.heading_rad.cos(), there.heading_rad.sin()], -1)[:, :, None]
    along, left = along_and_left(others.position_m - ego.position_m, tangent)
    closing = ((others.velocity_mps - ego.velocity_mps) * tangent).sum(-1)
    asked = asked_braking(-along - (others.length_m + ego.length_m) / 2, closing) / 2.0
    reach = (others.width_m + ego.width_m) / 2 + BESIDE_M
    beside = (1.0 - (left / reach) ** 2).clamp_min(0.0)
    behind = others.valid & (along.detach() < 0)
    return (asked.square() * beside * behind).amax(-1) if behind.shape[-1] else asked.sum(-1)


def lane(trajectory: Trajectory) -> Tensor:
    """Distance from the centre of the goal's lane (of the nearest, where the goal names none).

    Quadratic up to half a lane's width, linear beyond, one at half a lane.
    """
    position = trajectory.states.position_m[:, :, 0]
    nearest = trajectory.road.project(position)
    wanted = trajectory.goal.lane[:, None].expand_as(nearest.lane)
    there = trajectory.road.project(position, torch.where(wanted == NO_LANE, nearest.lane, wanted))
    share = (there.across_m / (there.width_m / 2)).abs()
    return torch.where(share < 1.0, share**2, 2.0 * share - 1.0)


def off_road(trajectory: Trajectory) -> Tensor:
    """How far the ego's side is beyond the outer edge of the road, in metres, squared and linear."""
    ego = trajectory.states[:, :, 0]
    there = trajectory.road.project(ego.position_m)
    left, right = (trajectory.road.neighbour(there.lane, side) == NO_LANE for side in ("left", "right"))
    open_side = torch.where(there.across_m > 0, left, right)
    beyond = (there.across_m.abs() + ego.width_m / 2 - there.width_m / 2).clamp_min(0.0) * open_side
    ran_out = (-there.remaining_m).clamp_min(0.0) * ~trajectory.road.is_open_end(there.lane)
    over = beyond + ran_out
    return over**2 + over


def speed(trajectory: Trajectory) -> Tensor:
    """Distance from the desired speed: smooth absolute value, about one at 10 m/s."""
    wanted = trajectory.goal.desired_speed_mps[:, None]
    off = (trajectory.states.speed_mps[:, :, 0] - wanted) / 10.0
    return (off**2 + 0.01).sqrt() - 0.1


def comfort(trajectory: Trajectory) -> Tensor:
    """Squares of acceleration (over 3 m/s²), jerk (over 10 m/s³) and lateral acceleration (over 3 m/s²)."""
    acceleration = trajectory.controls.acceleration_mps2
    before = torch.cat([trajectory.before[:, None], acceleration[:, :-1]], 1)
    jerk = (acceleration - before) / trajectory.dt_s
    ego = trajectory.states[:, :, 0]
    lateral = lateral_acceleration(trajectory.controls.steering_rad, ego.speed_mps, ego.length_m)
    return (acceleration / 3.0) ** 2 + (jerk / 10.0) ** 2 + (lateral / 3.0) ** 2


def _ego_and_others(states: TrafficState) -> tuple[TrafficState, TrafficState]:
    return states[:, :, :1], states[:, :, 1:]
