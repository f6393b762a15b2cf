"""highway-env's continuous actions (`ContinuousAction`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls, TrafficState


class ContinuousActions:
    """Throttle and steering in [-1, 1], held until the next choice; highway-env steers positive to the right.

    Args:
        action: highway-env's `config["action"]`, with `acceleration_range`, m/s², and `steering_range`, rad.
    """

    def __init__(self, action: Mapping[str, Any]) -> None:
        self.acceleration_range, self.steering_range = action["acceleration_range"], action["steering_range"]

    def start(self, scene: TrafficState, road: Road) -> None:
        """Nothing is held yet."""
        self._chosen = torch.zeros(len(scene.speed_mps), 2).to(scene.speed_mps)

    def choose(self, scene: TrafficState, road: Road, action: Tensor) -> None:
        """Take up `action (batch, 2)`."""
        self._chosen = action.to(scene.speed_mps).clamp(-1.0, 1.0)

    def controls(self, scene: TrafficState, road: Road) -> Controls:
        """Controls `(batch,)`."""
        (low, high), (right, left) = self.acceleration_range, self.steering_range
        share = (self._chosen + 1) / 2
        return Controls(low + share[:, 0] * (high - low), -(right + share[:, 1] * (left - right)))
