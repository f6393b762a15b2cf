"""The rule driver's proposals rolled out along the straightened lane, IDM for everybody, and scored."""

from __future__ import annotations

import torch
from torch import Tensor

from drivecast.envs.behaviour.driver_parameters import DriverParameters
from drivecast.envs.behaviour.laws import MOST_TURN_RAD, TAU_HEADING_S, TAU_LATERAL_S, free_acceleration, interaction
from drivecast.envs.drivers.lane_frame import LaneFrame
from drivecast.envs.drivers.proposals import RuleConfig
from drivecast.worldmodel.scene.contact import separation_m
from drivecast.worldmodel.scene.kinematics import MAX_ACCELERATION_MPS2, MAX_BRAKING_MPS2
from drivecast.worldmodel.scene.traffic import TrafficState

NEARBY_M = 3.0  # boxes whose edges are farther apart, along or across, need no exact look


class Rollout:
    """One row per proposal and episode, `(row,)`, rolled out and scored.

    Args:
        config: Step, horizon and score.
        frame: Where everybody is.
        target_m: Across, of the lane that the ego goes to.
        time_gap_s: The ego's.
        start_s: When it sets out for the target.
        wish_mps: Speed that it wants.
    """

    def __init__(
        self,
        config: RuleConfig,
        frame: LaneFrame,
        target_m: Tensor,
        time_gap_s: Tensor,
        start_s: Tensor,
        wish_mps: Tensor,
    ) -> None:
        self.config, self.frame, self.target_m, self.start_s, self.wish_mps = config, frame, target_m, start_s, wish_mps
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
        changes = self.target_m != 0  # who follows on the ego's own lane has chosen its gap
        contact_at = torch.full_like(ego_x, torch.inf)
        short, imposed, squared = (torch.zeros_like(ego_x) for _ in range(3))
        for step in range(steps):
            goes = step * dt >= self.start_s - 1e-6
            aim = torch.where(goes, self.target_m, 0.0)
            ego_a, ttc = self._ego(x, y, speed, ego_x, ego_y, ego_speed, aim)
            others_a, braking = self._others(x, y, speed, ego_x, ego_y, ego_speed, aim)
            across_mps = ((aim - ego_y) / TAU_LATERAL_S / ego_speed.clamp_min(1.0)).clamp(-1.0, 1.0)
            wanted = torch.asin(across_mps).clamp(-MOST_TURN_RAD, MOST_TURN_RAD)
            ego_heading = ego_heading + (wanted - ego_heading) * min(1.0, dt / TAU_HEADING_S)
            ego_x = ego_x + ego_speed * ego_heading.cos() * dt
            ego_y = ego_y + ego_speed * ego_heading.sin() * dt
            ego_speed = (ego_speed + ego_a * dt).clamp_min(0.0)
            x = x + speed * dt
            y = y + (frame.bound_m - y) * (dt / (TAU_LATERAL_S + TAU_HEADING_S))
            speed = (speed + others_a * dt).clamp_min(0.0)
            touching = self._contact(x, y, ego_x, ego_y, ego_heading)
            contact_at = torch.where(touching & contact_at.isinf(), (step + 1) * dt, contact_at)
            before = contact_at.isinf()  # what comes after a contact counts no more
            short = short + (ttc < config.short_ttc_s) * before
            imposed = torch.where(before, imposed.maximum(braking), imposed)
            squared = squared + ego_a.square()
        crash = torch.where(contact_at.isinf(), 0.0, 1.0 - 0.5 * contact_at / config.horizon_s)
        return (
            config.progress_gain * (ego_x / config.horizon_s + ego_speed)
            - config.collision_cost * crash
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
        """Bool `(row, agent)`: overlaps across, with some room, what the ego sweeps on its way to `aim`."""
        frame = self.frame
        room = (frame.width_m + frame.ego_width_m[:, None]) / 2 + 0.4
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

    def _contact(self, x: Tensor, y: Tensor, ego_x: Tensor, ego_y: Tensor, ego_heading: Tensor) -> Tensor:
        """Bool `(row,)`: the ego's box, with its margin, overlaps another's; looked at exactly where they are near."""
        frame = self.frame
        apart_x = (x - ego_x[:, None]).abs() - (frame.length_m + frame.ego_length_m[:, None]) / 2
        apart_y = (y - ego_y[:, None]).abs() - (frame.width_m + frame.ego_width_m[:, None]) / 2
        row, agent = ((apart_x < NEARBY_M) & (apart_y < NEARBY_M / 2) & frame.valid).nonzero(as_tuple=True)
        touching = torch.zeros_like(ego_x, dtype=torch.bool)
        if len(row):
            nothing, true = torch.zeros_like(ego_x[row]), torch.ones_like(row, dtype=torch.bool)

            def box(along: Tensor, across: Tensor, heading: Tensor, length: Tensor, width: Tensor) -> TrafficState:
                place = torch.stack([along, across], -1)
                return TrafficState(place, heading, nothing, length, width, true)

            ego = box(ego_x[row], ego_y[row], ego_heading[row], frame.ego_length_m[row], frame.ego_width_m[row])
            length, width = frame.length_m[row, agent], frame.width_m[row, agent]
            other = box(x[row, agent], y[row, agent], nothing, length, width)
            near = separation_m(ego, other) < self.config.margin_m
            touching[row[near]] = True
        return touching
