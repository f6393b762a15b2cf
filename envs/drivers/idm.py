"""IDM with MOBIL lane changes, with highway-env's equations and parameters, batched over episodes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from envs.drivers.lanes_beside import runs_beside, touches
from envs.drivers.steering import lane_keeping_steering
from envs.neighbours import agent_at, lane_neighbours, nearest_agents, single_lane
from worldmodel.errors import InputError
from worldmodel.road import NO_LANE, Road
from worldmodel.traffic import Controls, Goal, TrafficState


@dataclass(frozen=True)
class IDMConfig:
    """The Intelligent Driver Model and MOBIL; the defaults are highway-env's `IDMVehicle`.

    Args:
        acceleration_mps2: Acceleration on a free road from standing, m/s^2.
        braking_mps2: Comfortable braking, m/s^2 (positive).
        most_mps2: Acceleration and braking are held within this, m/s^2.
        jam_gap_m: Gap from bumper to bumper in a jam, m (highway-env: 10 m from centre to centre of 5 m cars).
        time_gap_s: Time gap to the leader, s.
        exponent: Of the speed, on a free road.
        change_lanes: Whether to change lanes by MOBIL.
        politeness: Weight of the followers' gain in a lane change, 0 to 1.
        least_gain_mps2: A lane change must gain this, m/s^2.
        most_imposed_braking_mps2: ... and impose no more than this braking on the new follower, m/s^2 (positive).
        decide_every_s: Time between two thoughts about changing lanes, s.
        least_speed_mps: No lane change below this speed, m/s.
        dt_s: Time between two calls, s.
        considered: The vehicles that are looked at are this many nearest ones.
    """

    acceleration_mps2: float = 3.0
    braking_mps2: float = 5.0
    most_mps2: float = 6.0
    jam_gap_m: float = 5.0
    time_gap_s: float = 1.5
    exponent: float = 4.0
    change_lanes: bool = True
    politeness: float = 0.0
    least_gain_mps2: float = 0.2
    most_imposed_braking_mps2: float = 2.0
    decide_every_s: float = 1.0
    least_speed_mps: float = 1.0
    dt_s: float = 0.1
    considered: int = 32

    def __post_init__(self) -> None:
        for name in ("acceleration_mps2", "braking_mps2", "most_mps2", "dt_s", "considered", "decide_every_s"):
            if getattr(self, name) <= 0:
                raise InputError(f"idm.{name}: expected more than 0, got {getattr(self, name)}")


class IDMDriver:
    """IDM along the lane, MOBIL between lanes, highway-env's steering.

    acceleration = a (1 - (v / v0)^4 - (d* / d)^2), d* = d0 + v T + v dv / (2 sqrt(a b)), with d from centre to centre,
    d0 the jam gap and half of both lengths, dv the closing speed along the vehicle's heading.
    A closed end of its lane (a ramp that runs out) is a vehicle that stands there.
    Sources: Treiber, Hennecke, Helbing 2000; Kesting, Treiber, Helbing 2007; highway-env `vehicle/behavior.py`. Unlike
    there, the wish of another vehicle is not known: its present speed stands for it. Nor are the lanes that others are
    about to change to, so a lane change is not broken off for them.

    Args:
        config: The parameters; None: highway-env's.
        desired_speed_mps: Speed it wants whatever the goal says, m/s; None: the goal's. A lane's limit holds for both.
    """

    name = "idm"
    history_steps = 1

    def __init__(self, config: IDMConfig | None = None, desired_speed_mps: float | None = None) -> None:
        if desired_speed_mps is not None and not 0 < desired_speed_mps < math.inf:
            raise InputError(f"desired_speed_mps: expected a speed above zero, got {desired_speed_mps}")
        self.config, self.desired_speed_mps = config or IDMConfig(), desired_speed_mps

    def reset(self, scene: TrafficState, road: Road, goal: Goal) -> None:
        self._lane: Tensor = road.project(scene.position_m[:, :1]).lane[:, 0]
        # highway-env staggers the decisions of its vehicles; an ego has its first thought a whole interval in
        self._since_s = torch.zeros_like(scene.speed_mps[:, 0])

    def act(self, history: TrafficState, road: Road, goal: Goal) -> Controls:
        config = self.config
        if self.desired_speed_mps is not None:
            goal = replace(goal, desired_speed_mps=torch.full_like(goal.desired_speed_mps, self.desired_speed_mps))
        scene = nearest_agents(history[:, -1], config.considered)
        ego = scene[:, 0]
        own = road.project(ego.position_m[:, None]).lane[:, 0]
        # who has come past the end of a lane follows the one it is on now
        self._lane = torch.where(runs_beside(scene, road, self._lane), self._lane, own)
        if config.change_lanes:
            self._decide(scene, road, goal, own)
        self._since_s = self._since_s + config.dt_s
        steering = lane_keeping_steering(ego, road, self._lane)
        acceleration = self._acceleration_on(scene, road, goal, own)
        # while changing lanes, both the old and the new leader count
        changing = self._lane != own
        if changing.any():
            there = self._acceleration_on(scene, road, goal, self._lane)
            acceleration = torch.where(changing, torch.minimum(acceleration, there), acceleration)
        return Controls(acceleration.clamp(-config.most_mps2, config.most_mps2), steering)

    def _decide(self, scene: TrafficState, road: Road, goal: Goal, own: Tensor) -> None:
        """MOBIL, once every `decide_every_s`, for those who are not changing lanes already."""
        config = self.config
        settled = self._lane == own
        think = settled & (self._since_s > config.decide_every_s - 1e-6)
        if not think.any():
            return
        self._since_s = torch.where(think, 0.0, self._since_s)
        think = think & (scene.speed_mps[:, 0] >= config.least_speed_mps)
        staying = self._acceleration_on(scene, road, goal, own)
        chosen = self._lane
        for side in ("left", "right"):
            lane = road.neighbour(own[:, None], side)[:, 0]
            gain, imposed = self._mobil(scene, road, goal, lane, staying, own)
            go = think & (lane != NO_LANE) & runs_beside(scene, road, lane) & touches(scene, road, lane, own)
            go = go & (imposed >= -config.most_imposed_braking_mps2) & (gain >= config.least_gain_mps2)
            chosen = torch.where(go, lane, chosen)
        self._lane = chosen

    def _mobil(
        self, scene: TrafficState, road: Road, goal: Goal, lane: Tensor, staying: Tensor, own: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What a change to `lane` gains, and the acceleration it leaves to the new follower, m/s^2."""
        ego = scene[:, 0]
        near = lane_neighbours(scene, road, lane)
        follower, leader = agent_at(scene, near.follower), agent_at(scene, near.leader)
        gain = self._acceleration_on(scene, road, goal, lane) - staying
        wish = self._wish(follower)
        behind_ego = self._acceleration(follower, wish, ego, near.follower_distance_m)
        imposed = torch.where(follower.valid, behind_ego, 0.0)
        if self.config.politeness:
            gap = near.follower_distance_m + near.leader_distance_m
            before = self._acceleration(follower, wish, leader, gap)
            old = lane_neighbours(scene, road, own)
            behind, ahead = agent_at(scene, old.follower), agent_at(scene, old.leader)
            freed = self._acceleration(
                behind, self._wish(behind), ahead, old.follower_distance_m + old.leader_distance_m
            ) - self._acceleration(behind, self._wish(behind), ego, old.follower_distance_m)
            others = torch.where(follower.valid, behind_ego - before, 0.0) + torch.where(behind.valid, freed, 0.0)
            gain = gain + self.config.politeness * others
        return gain, imposed

    @staticmethod
    def _wish(vehicle: TrafficState) -> Tensor:
        return vehicle.speed_mps

    def _acceleration_on(self, scene: TrafficState, road: Road, goal: Goal, lane: Tensor) -> Tensor:
        """The ego's acceleration if it drove on `lane`, `(batch,)`."""
        ego = scene[:, 0]
        limit = road.speed_limit(lane.clamp_min(0)[:, None])[:, 0]
        wish = torch.minimum(goal.desired_speed_mps, torch.where(limit > 0, limit, torch.inf))
        near = lane_neighbours(scene, road, lane)
        following = self._acceleration(ego, wish, agent_at(scene, near.leader), near.leader_distance_m)
        end = single_lane(road, lane).project(ego.position_m[:, None]).remaining_m[:, 0]
        closed = ~road.open_end.gather(1, lane.clamp_min(0)[:, None])[:, 0]
        wall = TrafficState(
            position_m=ego.position_m,
            heading_rad=ego.heading_rad,
            speed_mps=torch.zeros_like(ego.speed_mps),
            length_m=torch.zeros_like(ego.length_m),
            width_m=ego.width_m,
            valid=closed,
        )
        stopping = self._acceleration(ego, wish, wall, end.clamp_min(0.1))
        return torch.minimum(following, stopping)

    def _acceleration(
        self, vehicle: TrafficState, wish_mps: Tensor, leader: TrafficState, distance_m: Tensor
    ) -> Tensor:
        """IDM, `(batch,)`; an invalid leader is none."""
        config = self.config
        speed = vehicle.speed_mps
        free = config.acceleration_mps2 * (1 - (speed / wish_mps.clamp_min(0.01)).pow(config.exponent))
        closing = ((vehicle.velocity_mps - leader.velocity_mps) * vehicle.direction).sum(-1)
        jam_m = config.jam_gap_m + (vehicle.length_m + leader.length_m) / 2
        comfort = 2 * (config.acceleration_mps2 * config.braking_mps2) ** 0.5
        wanted = jam_m + speed * config.time_gap_s + speed * closing / comfort
        distance = torch.where(leader.valid, distance_m, torch.inf).clamp_min(0.01)
        return free - config.acceleration_mps2 * (wanted / distance).pow(2)
