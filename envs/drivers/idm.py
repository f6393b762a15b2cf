"""IDM with MOBIL lane changes, with highway-env's equations and parameters, batched over episodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache

import torch
from torch import Tensor

from drivecast.envs.behaviour.intents import Intents, IntentSource, observed_intents
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.rules.driver_parameters import DriverParameters
from drivecast.worldmodel.rules.lanes_beside import runs_beside, touches
from drivecast.worldmodel.rules.laws import desired_gap, free_acceleration, interaction, worth_changing
from drivecast.worldmodel.rules.steering import lane_keeping_steering
from drivecast.worldmodel.scene.lane_neighbours import (
    NeighbourSource,
    agent_at,
    lane_neighbours,
    nearest_indices,
    pick_agents,
    single_lane,
)
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState


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
        desired_speed_mps: Speed it wants whatever it is asked for, m/s; 0: what it is asked for.
        change_lanes: Whether to change lanes by MOBIL.
        yields: Whether to break off a lane change for a vehicle just ahead that is bound for the same lane.
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
    desired_speed_mps: float = 0.0
    change_lanes: bool = True
    yields: bool = True
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
        for name in ("jam_gap_m", "time_gap_s", "desired_speed_mps", "politeness", "most_imposed_braking_mps2"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"idm.{name}: expected 0 or more, got {getattr(self, name)}")


class IDMDriver:
    """IDM along the lane, MOBIL between lanes, highway-env's steering and its rule for giving way in a lane change.

    highway-env's `IDMVehicle`, where both know the same: a test drives whole episodes with each and compares them. The
    laws are those of `worldmodel/rules/laws.py`, here on any road, with vehicles of any length and ends of lanes: a
    closed end (a ramp that runs out) is a vehicle that stands there.

    What others want is not known to a driver: their drift tells the lane that they are bound for, and their present
    speed stands for the one that they want (`observed_intents`).

    Args:
        config: The parameters; several: one for each episode, in turn.
        desired_speed_mps: Speed it wants whatever the goal says, m/s; None: the config's, else the goal's. A lane's
            limit holds for all.
        intents: Who tells what others are about to do.
        neighbours: Who tells whom it follows on a lane; highway-env goes by how far centres are from the lane's.
    """

    name = "idm"
    history_steps = 1

    def __init__(
        self,
        config: IDMConfig | Sequence[IDMConfig] | None = None,
        desired_speed_mps: float | None = None,
        intents: IntentSource = observed_intents,
        neighbours: NeighbourSource = lane_neighbours,
    ) -> None:
        if desired_speed_mps is not None and not 0 < desired_speed_mps < math.inf:
            raise InputError(f"desired_speed_mps: expected a speed above zero, got {desired_speed_mps}")
        configs = [config or IDMConfig()] if config is None or isinstance(config, IDMConfig) else list(config)
        if desired_speed_mps is not None:
            configs = [replace(each, desired_speed_mps=desired_speed_mps) for each in configs]
        self.configs, self.intents, self.neighbours = configs, intents, neighbours

    @property
    def chosen_lane(self) -> Tensor:
        """The lane that each ego steers for, `(batch,)`: others may see it."""
        return self._lane

    def reset(self, scene: TrafficState, road: Road, goal: Goal) -> None:
        self._lane: Tensor = road.project(scene.position_m[:, :1]).lane[:, 0]
        self._offset_m: Tensor | float = 0.0
        self._own = _Own.of(self.configs, scene.speed_mps[:, 0])
        # highway-env staggers the decisions of its vehicles by where they are; its y points to the right
        place = (scene.position_m[:, 0, 0] - scene.position_m[:, 0, 1]).double()
        self._since_s = torch.remainder(place * math.pi, self._own.decide_every_s)

    def steer_for(self, lane: Tensor, time_gap_s: Tensor, offset_m: Tensor) -> None:
        """Follow `lane (batch,)`, that far left of its centre, at these time gaps: for who decides in MOBIL's place."""
        self._offset_m = offset_m
        self._lane, self._own = lane, replace(self._own, drivers=replace(self._own.drivers, time_gap_s=time_gap_s))

    def act(self, history: TrafficState, road: Road, goal: Goal) -> Controls:
        config, own_speed = self._own, self._own.desired_speed_mps
        goal = replace(goal, desired_speed_mps=torch.where(own_speed > 0, own_speed, goal.desired_speed_mps))
        everyone = history[:, -1]
        agents = nearest_indices(everyone, max(each.considered for each in self.configs))
        scene = pick_agents(everyone, agents)
        ego = scene[:, 0]
        own = road.project(ego.position_m[:, None]).lane[:, 0]
        # who has come past the end of a lane follows the one it is on now
        self._lane = torch.where(runs_beside(scene, road, self._lane), self._lane, own)
        changing = self._lane != own
        # asked for at most once, and not where nobody wants to know
        intents = cache(lambda: self.intents(everyone, road).map(lambda values: values.gather(1, agents)))
        if bool((changing & config.yields).any()):
            self._yield(scene, road, own, changing & config.yields, intents())
        self._decide(scene, road, goal, own, changing, intents)
        self._since_s = self._since_s + self.configs[0].dt_s
        steering = lane_keeping_steering(ego, road, self._lane, self._offset_m)
        acceleration = self._acceleration_on(scene, road, goal, own, own)
        # while changing lanes, both the old and the new leader count
        changing = self._lane != own
        if changing.any():
            there = self._acceleration_on(scene, road, goal, self._lane, own)
            acceleration = torch.where(changing, torch.minimum(acceleration, there), acceleration)
        return Controls(acceleration.maximum(-config.most_mps2).minimum(config.most_mps2), steering)

    def _yield(self, scene: TrafficState, road: Road, own: Tensor, changing: Tensor, intents: Intents) -> None:
        """Break off a lane change for a vehicle ahead, within the desired gap, that changes to the same lane."""
        ego = scene.map(lambda values: values[:, :1])
        ahead_m = single_lane(road, own).project(scene.position_m).along_m
        ahead_m = ahead_m - ahead_m[:, :1]
        closing = ((ego.velocity_mps - scene.velocity_mps) * ego.direction).sum(-1)
        wanted = desired_gap(ego.speed_mps, closing, self._towards(ego, scene, each=True))
        there = road.project(scene.position_m).lane
        rival = scene.valid & (intents.lane == self._lane[:, None]) & (there != self._lane[:, None])
        rival &= (ahead_m > 0) & (ahead_m < wanted)
        rival[:, 0] = False
        self._lane = torch.where(changing & rival.any(1), own, self._lane)

    def _decide(
        self,
        scene: TrafficState,
        road: Road,
        goal: Goal,
        own: Tensor,
        changing: Tensor,
        intents: Callable[[], Intents],
    ) -> None:
        """MOBIL, once every `decide_every_s`, for those who are not changing lanes already."""
        config = self._own
        think = ~changing & config.change_lanes & (self._since_s > config.decide_every_s)
        if not think.any():
            return
        self._since_s = torch.where(think, 0.0, self._since_s)
        think = think & (scene.speed_mps[:, 0].abs() >= config.least_speed_mps)
        staying = self._acceleration_on(scene, road, goal, own, own)
        chosen = self._lane
        for side in ("left", "right"):
            lane = road.neighbour(own[:, None], side)[:, 0]
            gain, imposed = self._mobil(scene, road, goal, lane, staying, own, intents())
            go = think & (lane != NO_LANE) & runs_beside(scene, road, lane) & touches(scene, road, lane, own)
            chosen = torch.where(go & worth_changing(gain, imposed, config.drivers), lane, chosen)
        self._lane = chosen

    def _mobil(
        self, scene: TrafficState, road: Road, goal: Goal, lane: Tensor, staying: Tensor, own: Tensor, intents: Intents
    ) -> tuple[Tensor, Tensor]:
        """What a change to `lane` gains, and the acceleration it leaves to the new follower, m/s^2.

        Followers are taken to drive by the ego's parameters, as highway-env's cars do.
        """
        ego = scene[:, 0]
        near = self.neighbours(scene, road, lane)
        follower, leader = agent_at(scene, near.follower), agent_at(scene, near.leader)
        wish = _at(intents.desired_speed_mps, near.follower)
        gain = self._acceleration_on(scene, road, goal, lane, own) - staying
        behind_ego = self._acceleration(follower, wish, ego, near.follower_distance_m)
        imposed = torch.where(follower.valid, behind_ego, 0.0)
        if self._own.drivers.polite:
            gap = near.follower_distance_m + near.leader_distance_m
            before = self._acceleration(follower, wish, leader, gap)
            old = self.neighbours(scene, road, own)
            behind, ahead = agent_at(scene, old.follower), agent_at(scene, old.leader)
            wish = _at(intents.desired_speed_mps, old.follower)
            freed = self._acceleration(behind, wish, ahead, old.follower_distance_m + old.leader_distance_m)
            freed = freed - self._acceleration(behind, wish, ego, old.follower_distance_m)
            others = torch.where(follower.valid, behind_ego - before, 0.0) + torch.where(behind.valid, freed, 0.0)
            gain = gain + self._own.drivers.politeness * others
        return gain, imposed

    def _acceleration_on(self, scene: TrafficState, road: Road, goal: Goal, lane: Tensor, own: Tensor) -> Tensor:
        """The ego's acceleration if it drove on `lane`, `(batch,)`; the limit is that of its own lane."""
        ego = scene[:, 0]
        limit = road.speed_limit(own.clamp_min(0)[:, None])[:, 0]
        wish = torch.minimum(goal.desired_speed_mps, torch.where(limit > 0, limit, torch.inf))
        near = self.neighbours(scene, road, lane)
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
        drivers = self._towards(vehicle, leader)
        closing = ((vehicle.velocity_mps - leader.velocity_mps) * vehicle.direction).sum(-1)
        free = free_acceleration(vehicle.speed_mps, wish_mps.clamp_min(0.01), self._own.exponent, drivers)
        distance = torch.where(leader.valid, distance_m, torch.inf).clamp_min(0.01)
        return free - interaction(vehicle.speed_mps, closing, distance, drivers)

    def _towards(self, vehicle: TrafficState, leader: TrafficState, each: bool = False) -> DriverParameters:
        """The parameters, their jam distance from centre to centre of these two."""
        drivers = self._own.drivers
        if each:
            drivers = drivers.map(lambda values: values[:, None])
        return replace(drivers, jam_distance_m=drivers.jam_distance_m + (vehicle.length_m + leader.length_m) / 2)


@dataclass(frozen=True)
class _Own:
    """The parameters of each episode's driver, `(batch,)`; `drivers.jam_distance_m` from bumper to bumper."""

    drivers: DriverParameters
    exponent: Tensor
    most_mps2: Tensor
    desired_speed_mps: Tensor
    change_lanes: Tensor
    yields: Tensor
    decide_every_s: Tensor
    least_speed_mps: Tensor

    @staticmethod
    def of(configs: Sequence[IDMConfig], like: Tensor) -> _Own:
        """Those of `configs`, one for each episode in turn; `like (batch,)`."""

        def tensor(name: str, dtype: torch.dtype) -> Tensor:
            values = torch.tensor([float(getattr(config, name)) for config in configs], dtype=dtype)
            return values.repeat(-(-len(like) // len(configs)))[: len(like)].to(like.device)

        own = {field.name: tensor(field.name, like.dtype) for field in fields(_Own) if field.name != "drivers"}
        for name in ("change_lanes", "yields"):
            own[name] = own[name] > 0
        own["decide_every_s"] = tensor("decide_every_s", torch.float64)
        drivers = DriverParameters(
            time_gap_s=tensor("time_gap_s", like.dtype),
            jam_distance_m=tensor("jam_gap_m", like.dtype),
            comfort_acceleration_mps2=tensor("acceleration_mps2", like.dtype),
            comfort_braking_mps2=tensor("braking_mps2", like.dtype),
            politeness=tensor("politeness", like.dtype) if any(config.politeness for config in configs) else 0.0,
            least_gain_mps2=tensor("least_gain_mps2", like.dtype),
            most_imposed_mps2=tensor("most_imposed_braking_mps2", like.dtype),
        )
        return _Own(drivers, **own)


def _at(values: Tensor, agent: Tensor) -> Tensor:
    """`values (batch, agent)` of one agent each; -1, nobody, gives what means nothing."""
    return values.gather(1, agent.clamp_min(0)[:, None])[:, 0]
