"""What cars see of each other in one frame, and what IDM makes of it.

Equations and constants are those of highway-env 1.12.1 (`vehicle/behavior.py`); IDM: Treiber, Hennecke, Helbing 2000.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from drivecast.envs.batched.lanes import Lanes
from drivecast.envs.batched.neighbours import LaneOrder
from drivecast.envs.batched.scene import Scene
from drivecast.worldmodel.rules.driver_parameters import DriverParameters
from drivecast.worldmodel.rules.elementary import cos, sin
from drivecast.worldmodel.rules.laws import free_acceleration, interaction, not_zero


class Motion:
    """What the equations need of each agent, with one place more for nobody: infinitely far ahead, at rest.

    Attributes: `(episode, agent + 1)` each.
        x_m: m.
        speed_mps: Along the heading, m/s.
        cos, sin: Of the heading.
        vx_mps, vy_mps: Velocity, m/s.
        desired_mps: Target speed within the limit of the lane, m/s.
        columns: All of them in this order, `(7, episode * (agent + 1))`: to pick some agents is one operation.
        agents: Their number, nobody not counted.
    """

    def __init__(self, scene: Scene, lanes: Lanes) -> None:
        limit = lanes.limit_mps[0] if lanes.one_limit else lanes.limit_mps.take(scene.lane)
        desired = not_zero(scene.target_speed_mps.clamp_min(0.0).minimum(limit)).abs()
        nothing = torch.zeros_like(scene.x_m[:, :1])

        def with_nobody(values: Tensor, value: float) -> Tensor:
            return torch.cat([values, nothing + value], 1)

        self.x_m = with_nobody(scene.x_m, torch.inf)
        self.speed_mps = with_nobody(scene.speed_mps, 0.0)
        heading = with_nobody(scene.heading_rad, 0.0)
        self.cos, self.sin = cos(heading), sin(heading)
        self.vx_mps, self.vy_mps = self.speed_mps * self.cos, self.speed_mps * self.sin
        self.desired_mps = with_nobody(desired, 1.0)
        columns = (self.x_m, self.speed_mps, self.cos, self.sin, self.vx_mps, self.vy_mps, self.desired_mps)
        self.columns = torch.stack(columns).flatten(1)
        self.agents = scene.x_m.shape[1]

    def of(self, episode: Tensor, agent: Tensor) -> Tensor:
        """The columns `(7, k)` of some agents, who may be nobody."""
        return self.columns.gather(1, (episode * (self.agents + 1) + agent).expand(len(self.columns), -1))


def closing_speed(who: Tensor, other: Tensor) -> Tensor:
    """Speed of `who` towards `other`, along its own heading, m/s; both are columns `(7, k)` of `Motion`."""
    return (who[4] - other[4]) * who[2] + (who[5] - other[5]) * who[3]


def behind(who: Tensor, leader: Tensor, free: Tensor, drivers: DriverParameters) -> Tensor:
    """IDM acceleration of some agents behind theirs, m/s²: columns `(7, k)` of `Motion`; `free`: with nobody ahead."""
    return free - interaction(who[1], closing_speed(who, leader), leader[0] - who[0], drivers)


@dataclass(frozen=True)
class Situation:
    """A frame before anyone decides.

    Attributes:
        scene: Who is where.
        lanes: The road.
        drivers: Parameters of IDM and MOBIL.
        order: Who is ahead of and behind whom.
        motion: What the equations need of each.
        free_mps2: IDM acceleration of each with nobody ahead, `(episode, agent)`.
        keeping_mps2: Behind the leader on its own lane.
    """

    scene: Scene
    lanes: Lanes
    drivers: DriverParameters
    order: LaneOrder
    motion: Motion
    free_mps2: Tensor
    keeping_mps2: Tensor

    @staticmethod
    def of(scene: Scene, lanes: Lanes, drivers: DriverParameters) -> Situation:
        """What the cars of `scene` see."""
        order, motion = LaneOrder.of(scene, lanes), Motion(scene, lanes)
        agents = motion.agents
        leader = order.leaders(scene.lane)
        closing = (motion.vx_mps[:, :agents] - motion.vx_mps.gather(1, leader)) * motion.cos[:, :agents]
        closing = closing + (motion.vy_mps[:, :agents] - motion.vy_mps.gather(1, leader)) * motion.sin[:, :agents]
        distance = motion.x_m.gather(1, leader) - scene.x_m
        free = free_acceleration(scene.speed_mps, motion.desired_mps[:, :agents], scene.exponent, drivers)
        keeping = free - interaction(scene.speed_mps, closing, distance, drivers)
        return Situation(scene, lanes, drivers, order, motion, free, keeping)
