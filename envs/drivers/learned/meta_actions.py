"""highway-env's meta-actions and the two controllers that carry them out (`MDPVehicle`)."""

from __future__ import annotations

import torch
from torch import Tensor

from drivecast.envs.batched.decisions import TAU_ACCELERATION_S
from drivecast.worldmodel.rules.lanes_beside import runs_beside, touches
from drivecast.worldmodel.rules.steering import lane_keeping_steering
from drivecast.worldmodel.scene.lane_neighbours import single_lane
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import Controls, TrafficState

LANE_LEFT, IDLE, LANE_RIGHT, FASTER, SLOWER = range(5)
TARGET_SPEEDS_MPS = (20.0, 25.0, 30.0)
REACHABLE_WIDTHS = 2.0  # a lane whose centre is within this many of its widths may be changed to


class MetaActions:
    """Target lane and target speed of each ego, changed by meta-actions and followed in between.

    acceleration = (target speed - v) / 0.6 s; steering as `lane_keeping_steering`. A lane change is to the neighbour of
    the *target* lane, if that is within reach of the ego. Faster and slower are one step from the target speed nearest
    to the *present* speed. Source: highway-env 1.12.1 `vehicle/controller.py`, `MDPVehicle`, `ControlledVehicle`.
    Unlike there, lanes that do not touch are no neighbours: on recorded roads a gore may lie between them.

    Args:
        target_speeds_mps: Evenly spaced, rising.
    """

    def __init__(self, target_speeds_mps: tuple[float, ...] = TARGET_SPEEDS_MPS) -> None:
        self.target_speeds_mps = target_speeds_mps

    def start(self, scene: TrafficState, road: Road) -> None:
        """Keep the lane; the speed to keep is the nearest one."""
        self.lane: Tensor = road.project(scene.position_m[:, :1]).lane[:, 0]
        self.speed_index: Tensor = self._index(scene.speed_mps[:, 0])

    def choose(self, scene: TrafficState, road: Road, action: Tensor) -> None:
        """Take up `action (batch,)`, whole numbers: highway-env's of its meta-actions."""
        self._follow_road(scene, road)
        target = self.lane
        for meta, side in ((LANE_LEFT, "left"), (LANE_RIGHT, "right")):
            beside = road.neighbour(target[:, None], side)[:, 0]
            there = single_lane(road, beside).project(scene.position_m[:, :1])
            near = (there.across_m.abs() <= REACHABLE_WIDTHS * there.width_m)[:, 0]
            may = near & (beside != NO_LANE) & runs_beside(scene, road, beside) & touches(scene, road, beside, target)
            self.lane = torch.where((action == meta) & may, beside, self.lane)
        now = self._index(scene.speed_mps[:, 0])
        index = torch.where(action == FASTER, now + 1, torch.where(action == SLOWER, now - 1, self.speed_index))
        self.speed_index = index.clamp(0, len(self.target_speeds_mps) - 1)

    def controls(self, scene: TrafficState, road: Road) -> Controls:
        """Controls `(batch,)` in `scene (batch, agent)`."""
        self._follow_road(scene, road)
        ego = scene[:, 0]
        wanted = torch.tensor(self.target_speeds_mps, dtype=ego.speed_mps.dtype, device=ego.speed_mps.device)
        acceleration = (wanted[self.speed_index] - ego.speed_mps) / TAU_ACCELERATION_S
        return Controls(acceleration, lane_keeping_steering(ego, road, self.lane))

    def _follow_road(self, scene: TrafficState, road: Road) -> None:
        """Past the end of a lane, go on in the nearest one."""
        own = road.project(scene.position_m[:, :1]).lane[:, 0]
        self.lane = torch.where(runs_beside(scene, road, self.lane), self.lane, own)

    def _index(self, speed_mps: Tensor) -> Tensor:
        lowest, highest, top = self.target_speeds_mps[0], self.target_speeds_mps[-1], len(self.target_speeds_mps) - 1
        return ((speed_mps - lowest) / (highest - lowest) * top).round().clamp(0, top).long()
