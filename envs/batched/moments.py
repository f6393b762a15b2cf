"""Moments of simulated traffic with all that the simulator knows; it goes on from them, and is differentiable."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from drivecast.envs.batched.frame import Frame
from drivecast.envs.batched.lanes import Lanes
from drivecast.envs.batched.scene import Scene
from drivecast.envs.batched.traffic import state_of
from drivecast.worldmodel.rules.driver_parameters import DriverParameters
from drivecast.worldmodel.scene.kinematics import within_limits
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls, TrafficState, with_ego


@dataclass(frozen=True, eq=False)
class Moments:
    """Moments of traffic on one road, `(moment, agent)`; the ego is agent 0.

    Attributes:
        scene: Who is where.
        before: One step earlier.
        drivers: Everybody's parameters.
        lanes: The road, as the simulator has it.
        road: The same as a `Road`, `(moment,)`.
        obstacles: Number of obstacles; they are the last agents.
        ego_only: Only collisions of the ego are looked for.
        dt_s: Time step, s.
    """

    scene: Scene
    before: Scene
    drivers: DriverParameters
    lanes: Lanes
    road: Road
    obstacles: int
    ego_only: bool
    dt_s: float

    def __len__(self) -> int:
        return len(self.scene.x_m)

    @cached_property
    def history(self) -> TrafficState:
        """The step before and the present, in our frame: `(moment, 2, agent)`."""
        states = [state_of(scene, self.obstacles, scene.x_m.dtype) for scene in (self.before, self.scene)]
        return TrafficState.stack(states, 1)

    def __getitem__(self, rows: Tensor) -> Moments:
        """Some of them, in any order and as often as named."""
        return replace(
            self,
            scene=self.scene.map(lambda values: values[rows]),
            before=self.before.map(lambda values: values[rows]),
            drivers=self.drivers.map(lambda values: values[rows]),
            road=self.road[rows],
        )

    def to(self, device: torch.device | str) -> Moments:
        """The same on `device`."""
        moved = {
            name: _mapped(getattr(self, name), lambda values: values.to(device))
            for name in ("scene", "before", "drivers", "lanes")
        }
        return replace(self, **moved, road=self.road.to(device))

    def seen_from(self, agent: Tensor) -> Moments:
        """The same moments with car `agent (moment,)` as the ego: it trades places in the list with agent 0.

        The ego has no target speed and no target lane, as one with continuous controls in highway-env; who was the ego
        becomes a car like the others.
        """
        count = self.scene.x_m.shape[1]
        order = torch.arange(count, device=agent.device).repeat(len(self), 1)
        order[:, 0] = agent
        order.scatter_(1, agent[:, None], 0)

        def permuted(values: Tensor) -> Tensor:
            return values.gather(1, order)

        scene, before = (scene.map(permuted) for scene in (self.scene, self.before))
        others = scene.vehicle.clone()
        others[:, 0] = False
        target_lane, target_speed = scene.target_lane.clone(), scene.target_speed_mps.clone()
        target_lane[:, 0], target_speed[:, 0] = scene.lane[:, 0], 0.0
        return replace(
            self,
            scene=scene.but(idm=others, aims=others, target_lane=target_lane, target_speed_mps=target_speed),
            before=before,
            drivers=self.drivers.map(permuted),
        )

    def branch(self, ego: TrafficState, others_listen: bool = True) -> Branch:
        """Traffic that goes on from here with the ego at `ego (moment,)`, in our frame."""
        return Branch(self, ego, others_listen)


class Branch:
    """Traffic that goes on from `moments`, the ego driven from outside; every step is differentiable.

    The others are those of the recordings: highway-env's IDM and MOBIL with each one's own parameters, but for braking
    into reverse. Their decisions (lanes, who follows whom) and contacts are taken as they are; all else carries the
    gradient, from the ego's controls to what the others answer, and on to what the ego sees of it.

    Args:
        moments: Where it begins; agent 0 is the ego, see `Moments.seen_from`.
        ego: Where the ego begins, `(moment,)`, in our frame.
        others_listen: Let the gradient flow through the others' answers to the ego; else it is cut at each step.
    """

    def __init__(self, moments: Moments, ego: TrafficState, others_listen: bool = True) -> None:
        self.moments, self.others_listen = moments, others_listen
        scene = moments.scene
        x, y = with_ego(scene.x_m, ego.position_m[:, 0]), with_ego(scene.y_m, -ego.position_m[:, 1])
        heading = with_ego(scene.heading_rad, -ego.heading_rad)
        with torch.no_grad():
            lane = moments.lanes.nearest(x, y, heading)
        self.scene = scene.but(
            x_m=x,
            y_m=y,
            heading_rad=heading,
            speed_mps=with_ego(scene.speed_mps, ego.speed_mps),
            lane=lane,
            target_lane=with_ego(scene.target_lane, lane[:, 0]),
        )

    def step(self, controls: Controls) -> TrafficState:
        """The state `(moment, agent)` one step on; `controls (moment,)` in our frame, held to what a car can do."""
        moments, scene = self.moments, self.scene
        own = within_limits(controls, scene.speed_mps[:, 0], moments.dt_s)
        frame = Frame.decided(scene, moments.lanes, moments.drivers, scene.idm & ~scene.crashed)
        frame = frame.without_reverse(moments.dt_s).with_ego(own.acceleration_mps2, -own.steering_rad)
        scene = frame.carried_out(moments.dt_s, moments.ego_only, moments.obstacles)
        self.scene = scene if self.others_listen else _others_detached(scene)
        return state_of(self.scene, moments.obstacles, scene.x_m.dtype)


def _others_detached(scene: Scene) -> Scene:
    return scene.map(lambda values: torch.cat([values[:, :1], values[:, 1:].detach()], 1))


def _mapped(record: Any, function: Any) -> Any:
    """The record with `function` applied to those of its fields that are tensors."""
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return replace(record, **{name: function(value) for name, value in values.items() if isinstance(value, Tensor)})
