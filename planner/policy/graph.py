"""The policy as a plain function of tensors, such as an exported graph is."""

from __future__ import annotations

from torch import Tensor

from drivecast.planner.policy.network import Policy
from drivecast.worldmodel.forecaster.graph import ROAD, STATE, Graph
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Goal, TrafficState


class PolicyGraph(Graph):
    """What the policy does.

    Inputs: the fields of `history (batch, 2, agent)`, a step ago and now, agent 0 the ego; the fields of `road`;
    `desired_speed_mps (batch,)` and `goal_lane (batch,)`, -1 for any. Outputs: the controls, `(batch,)` each.
    """

    inputs = (
        *(f"history_{name}" for name in STATE),
        *(f"road_{name}" for name in ROAD),
        "desired_speed_mps",
        "goal_lane",
    )
    outputs = ("acceleration_mps2", "steering_rad")

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        states = len(STATE)
        history, road, goal = TrafficState(*values[:states]), Road(*values[states:-2]), Goal(*values[-2:])
        controls = self.policy(history[:, 1], history[:, 0], road, goal)
        return controls.acceleration_mps2, controls.steering_rad
