"""Drivers that do not look at the others."""

from __future__ import annotations

import torch
from torch import Tensor

from drivecast.worldmodel.rules.steering import lane_keeping_steering
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState


class IdleDriver:
    """Does nothing: no acceleration and straight wheels, PPUU's "no action"."""

    name = "idle"
    history_steps = 1

    def reset(self, scene: TrafficState, road: Road, goal: Goal) -> None:
        pass

    def act(self, history: TrafficState, road: Road, goal: Goal) -> Controls:
        nothing = torch.zeros_like(history.speed_mps[:, -1, 0])
        return Controls(nothing, nothing.clone())


class ConstantVelocityDriver:
    """Keeps the speed it starts with and steers along the lane it starts in, whoever is ahead."""

    name = "constant-velocity"
    history_steps = 1

    def reset(self, scene: TrafficState, road: Road, goal: Goal) -> None:
        self._lane: Tensor = road.project(scene.position_m[:, :1]).lane[:, 0]

    def act(self, history: TrafficState, road: Road, goal: Goal) -> Controls:
        ego = history[:, -1, 0]
        return Controls(torch.zeros_like(ego.speed_mps), lane_keeping_steering(ego, road, self._lane))


class HumanDriver:
    """The recorded human. The closed loop lets the environment replay its ego instead of asking this driver."""

    name = "human"
    history_steps = 1
    replays = True

    def reset(self, scene: TrafficState, road: Road, goal: Goal) -> None:
        pass

    def act(self, history: TrafficState, road: Road, goal: Goal) -> Controls:
        raise NotImplementedError("the recorded human is replayed by the environment: step(None)")
