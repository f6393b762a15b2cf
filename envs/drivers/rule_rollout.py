"""The rule driver's proposals rolled out along the straightened lane, IDM for everybody, and scored."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from drivecast.envs.drivers.lane_frame import LaneFrame
from drivecast.envs.drivers.proposals import RuleConfig
from drivecast.worldmodel.rules.driver_parameters import DriverParameters
from drivecast.worldmodel.rules.in_the_way import ROOM_M
from drivecast.worldmodel.rules.laws import MOST_TURN_RAD, TAU_HEADING_S, TAU_LATERAL_S, free_acceleration, interaction
from drivecast.worldmodel.scene.contact import separation_m
from drivecast.worldmodel.scene.kinematics import MAX_ACCELERATION_MPS2, MAX_BRAKING_MPS2, MAX_STEERING_RAD
from drivecast.worldmodel.scene.traffic import TrafficState

MOST_SLIP_SINE = math.sin(math.atan(0.5 * math.tan(MAX_STEERING_RAD)))  # of the bicycle, wheels turned all the way
NEARBY_M = 3.0  # boxes whose edges are farther apart, along or across, need no exact look


class Rollout:
    """One row per proposal and episode, `(row,)`, rolled out and scored.

    Args:
        config: Step, horizon and score.
        frame: Where everybody is.
        target_m: Across, where the ego goes.
        changes: Bool. That is another lane.
        time_gap_s: The ego's.
        start_s: When it sets out for the target.
        wish_mps: Speed that it wants.
    """

    def __init__(
        self,
        config: RuleConfig,
        frame: LaneFrame,
        target_m: Tensor,
        changes: Tensor,
        time_gap_s: Tensor,
        start_s: Tensor,
        wish_mps: Tensor,
    ) -> None:
        self.config, self.frame, self.start_s, self.wish_mps = config, frame, start_s, wish_mps
        self.target_m, self.changes = target_m, changes
        self.ego_drivers = DriverParameters(
            time_gap_s=time_gap_s,
            jam_distance_m=config.jam_gap_m,  # its distances are from bumper to bumper
            comfort_acceleration_mps2=config.acceleration_mps2,
            comfort_braking_mps2=config.braking_mps2,
        )
        self.others = DriverParameters()
        self.leader = frame.leader
        self.has_leader = frame.leader != torch.arange(frame.leader.shape[1], device=frame.leader.device)

    def run(self) -> Tensor:
        """The score of each row."""
        config, frame = self.config, self.frame
        steps, dt = round(config.horizon_s / config.rollout_dt_s), config.rollout_dt_s
        x, y, speed = frame.along_m, frame.across_m, frame.speed_mps
        ego_x, ego_y = torch.zeros_like(frame.ego_across_m), frame.ego_across_m
        ego_heading, ego_speed = frame.ego_heading_rad, frame.ego_speed_mps
        changes = self.changes  # who follows on the ego's own lane has chosen its gap
        contact_at, impact_mps = torch.full_like(ego_x, torch.inf), torch.zeros_like(ego_x)
        short, imposed, squared = (torch.zeros_like(ego_x) for _ in range(3))
        for step in range(steps):
            goes = step * dt >= self.start_s - 1e-6
            aim = torch.where(goes, self.target_m, 0.0)
            ego_a, ttc = self._ego(x, y, speed, ego_x, ego_y, ego_speed, aim)
            others_a, braking = self._others(x, y, speed, ego_x, ego_y, ego_speed, aim)
            across_mps = ((aim - ego_y) / TAU_LATERAL_S / ego_speed.clamp_min(1.0)).clamp(-1.0, 1.0)
            wanted = torch.asin(across_mps).clamp(-MOST_TURN_RAD, MOST_TURN_RAD)
            ego_heading = next_heading(ego_heading, wanted, ego_speed, frame.ego_length_m, dt)
            ego_x = ego_x + ego_speed * ego_heading.cos() * dt
            ego_y = ego_y + ego_speed * ego_heading.sin() * dt
            ego_speed = (ego_speed + ego_a * dt).clamp_min(0.0)
            x = x + speed * dt
            y = y + (frame.bound_m - y) * (dt / (TAU_LATERAL_S + TAU_HEADING_S))
            speed = (speed + others_a * dt).clamp_min(0.0)
            hit_mps = self._contact(x, y, speed, ego_x, ego_y, ego_heading, ego_speed)
            touches_first = (hit_mps >= 0) & contact_at.isinf()
            impact_mps = torch.where(touches_first, hit_mps, impact_mps)
            contact_at = torch.where(touches_first, (step + 1) * dt, contact_at)
            before = contact_at.isinf()  # what comes after a contact counts no more
            short = short + (ttc < config.short_ttc_s) * before
            imposed = torch.where(before, imposed.maximum(braking), imposed)
            squared = squared + ego_a.square()
        crashed = contact_at.isfinite()
        crash = torch.where(crashed, 1.0 - 0.5 * contact_at / config.horizon_s, 0.0)
        progress = torch.where(crashed, 0.0, ego_x / config.horizon_s + ego_speed)
        return (
            config.progress_gain * progress
            - config.collision_cost * crash
            - config.impact_cost * impact_mps
            - config.swerve_cost * (crashed & changes)
            - config.ttc_cost * short / steps
            - config.imposed_cost * (imposed - config.imposed_mps2).clamp_min(0.0) * changes
            - config.comfort_cost * (squared / steps).sqrt()
        )

    def _ego(
        self, x: Tensor, y: Tensor, speed: Tensor, ego_x: Tensor, ego_y: Tensor, ego_speed: Tensor, aim: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The ego's IDM acceleration behind who is in its way, and its time to collision with them, `(row,)`."""
        frame = self.frame
        gap = x - ego_x[:, None] - (frame.length_m + frame.ego_length_m[:, None]) / 2
        ahead = frame.valid & (x > ego_x[:, None]) & self._in_the_way(y, ego_y, aim)
        gap = torch.where(ahead, gap, torch.inf)
        nearest, who = gap.min(1)
        leader_speed = speed.gather(1, who[:, None])[:, 0]
        closing = ego_speed - leader_speed
        free = free_acceleration(ego_speed, self.wish_mps, self.config.exponent, self.ego_drivers)
        acceleration = free - interaction(ego_speed, closing, nearest.clamp_min(0.1), self.ego_drivers)
        ttc = torch.where(closing > 0.1, nearest.clamp_min(0.0) / closing.clamp_min(0.1), torch.inf)
        return acceleration.clamp(-MAX_BRAKING_MPS2, MAX_ACCELERATION_MPS2), ttc

    def _in_the_way(self, y: Tensor, ego_y: Tensor, aim: Tensor) -> Tensor:
        """Bool `(row, agent)`: overlaps across, with `ROOM_M` to spare, what the ego sweeps on its way to `aim`."""
        frame = self.frame
        room = (frame.width_m + frame.ego_width_m[:, None]) / 2 + ROOM_M
        low, high = torch.minimum(ego_y, aim)[:, None], torch.maximum(ego_y, aim)[:, None]
        here = (y > low - room) & (y < high + room)
        return here | ((frame.bound_m > low - room) & (frame.bound_m < high + room))

    def _others(
        self, x: Tensor, y: Tensor, speed: Tensor, ego_x: Tensor, ego_y: Tensor, ego_speed: Tensor, aim: Tensor
    ) -> tuple[Tensor, Tensor]:
        """IDM accelerations of the others `(row, agent)`; the hardest braking that the ego imposes `(row,)`, > 0."""
        frame = self.frame
        # highway-env's jam distance is from centre to centre of two cars of 5 m
        longer = (frame.length_m + frame.length_m.gather(1, self.leader)) / 2 - 5.0
        leader_x = torch.where(self.has_leader, x.gather(1, self.leader) - longer, torch.inf)
        leader_speed = speed.gather(1, self.leader)
        free = free_acceleration(speed, frame.speed_mps.clamp_min(1.0), 4.0, self.others)
        by_leader = interaction(speed, speed - leader_speed, (leader_x - x).clamp_min(0.1), self.others)
        behind = frame.valid & (ego_x[:, None] > x) & self._in_the_way(y, ego_y, aim)
        longer = (frame.length_m + frame.ego_length_m[:, None]) / 2 - 5.0
        distance = torch.where(behind, ego_x[:, None] - x - longer, torch.inf).clamp_min(0.1)
        by_ego = interaction(speed, speed - ego_speed[:, None], distance, self.others)
        acceleration = (free - torch.maximum(by_leader, by_ego)).clamp(-6.0, 6.0)
        nearest = distance.amin(1, keepdim=True)
        imposed = torch.where(distance == nearest, (by_ego - free).clamp(0.0, 8.0), 0.0).amax(1)
        return acceleration, torch.where(nearest[:, 0].isinf(), 0.0, imposed)

    def _contact(
        self, x: Tensor, y: Tensor, speed: Tensor, ego_x: Tensor, ego_y: Tensor, ego_heading: Tensor, ego_speed: Tensor
    ) -> Tensor:
        """Speed relative to whom the ego's box, with its margins, overlaps, `(row,)`; -1: nobody.

        Looked at exactly where they are near.
        """
        frame = self.frame
        apart_x = (x - ego_x[:, None]).abs() - (frame.length_m + frame.ego_length_m[:, None]) / 2
        apart_y = (y - ego_y[:, None]).abs() - (frame.width_m + frame.ego_width_m[:, None]) / 2
        row, agent = ((apart_x < NEARBY_M) & (apart_y < NEARBY_M / 2) & frame.valid).nonzero(as_tuple=True)
        hit_mps = torch.full_like(ego_x, -1.0)
        if len(row):
            true = torch.ones_like(row, dtype=torch.bool)

            def box(
                along: Tensor, across: Tensor, heading: Tensor, mps: Tensor, size: tuple[Tensor, Tensor]
            ) -> TrafficState:
                return TrafficState(torch.stack([along, across], -1), heading, mps, *size, true)

            ego_size = frame.ego_length_m[row] + 2 * self.config.bumper_m, frame.ego_width_m[row]
            ego = box(ego_x[row], ego_y[row], ego_heading[row], ego_speed[row], ego_size)
            straight, size = torch.zeros_like(ego.heading_rad), (frame.length_m[row, agent], frame.width_m[row, agent])
            other = box(x[row, agent], y[row, agent], straight, speed[row, agent], size)
            near = separation_m(ego, other) < self.config.margin_m
            relative_mps = (ego.velocity_mps - other.velocity_mps).norm(dim=-1)
            hit_mps = hit_mps.scatter_reduce(0, row[near], relative_mps[near], "amax")
        return hit_mps


def next_heading(heading_rad: Tensor, wanted_rad: Tensor, speed_mps: Tensor, length_m: Tensor, dt_s: float) -> Tensor:
    """Heading a step later, on the way to the wanted one and no faster than wheels that are turned all the way allow.

    The bicycle's turn rate is v sin(atan(tan(steering) / 2)) / (length / 2), see `kinematics.bicycle_step`.
    """
    most = speed_mps * dt_s * MOST_SLIP_SINE / (length_m / 2)
    turn = (wanted_rad - heading_rad) * min(1.0, dt_s / TAU_HEADING_S)
    return heading_rad + turn.maximum(-most).minimum(most)
