"""The policy as a plain function of tensors, such as an exported graph is."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from drivecast.planner.policy.network import Policy
from drivecast.worldmodel.forecaster.graph import ROAD, STATE, Graph
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import Goal, TrafficState


class PolicyGraph(Graph):
    """What the policy does.

    Inputs: the fields of `history (batch, 2, agent)`, a step ago and now, agent 0 the ego; the fields of `road`;
    `desired_speed_mps (batch,)` and `goal_lane (batch,)`. Outputs: the controls, `(batch,)` each.

    A policy that chooses lanes takes `bound_lane (batch,)`, which it steers for so far, and gives the `lane (batch,)`
    that it steers for now: its choice where `goal_lane` is -1, otherwise that one. Give -1 every
    `PolicyConfig.lane_every_s`, and in between the lane that it gave. Of another policy -1 means the nearest lane.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy
        asked = ("desired_speed_mps", "goal_lane")
        self.inputs = (*(f"history_{name}" for name in STATE), *(f"road_{name}" for name in ROAD), *asked)
        self.outputs: tuple[str, ...] = ("acceleration_mps2", "steering_rad")
        if policy.lanes is not None:
            self.inputs, self.outputs = (*self.inputs, "bound_lane"), (*self.outputs, "lane")

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(self.inputs, values, strict=True))
        history = TrafficState(**{name: given[f"history_{name}"] for name in STATE})
        road = Road(**{name: given[f"road_{name}"] for name in ROAD})
        goal, scene, before = Goal(given["desired_speed_mps"], given["goal_lane"]), history[:, 1], history[:, 0]
        chosen: tuple[Tensor, ...] = ()
        if self.policy.lanes is not None:
            bound, dt_s = given["bound_lane"], self.policy.config.dt_s
            lane = self.policy.lanes.choose(scene, before, road, goal, bound, dt_s)
            goal = replace(goal, lane=torch.where(goal.lane == NO_LANE, lane, goal.lane))
            chosen = (goal.lane,)
        controls = self.policy(scene, before, road, goal)
        return controls.acceleration_mps2, controls.steering_rad, *chosen
