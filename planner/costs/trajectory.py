"""A driven stretch, imagined or real: what the energy is a function of."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState


@dataclass(frozen=True)
class Trajectory:
    """States after each control, and the controls; agent 0 is the ego.

    `states (batch, time, agent)`, `controls (batch, time)`, `before (batch,)` the acceleration (m/s²) just before the
    first step, `uncertainty (batch, time)` standardised and hinged, or None where nobody measured it; `past (batch,
    time, agent)` the states before, the present last, where they are known.
    """

    states: TrafficState
    controls: Controls
    before: Tensor
    road: Road
    goal: Goal
    dt_s: float
    uncertainty: Tensor | None = None
    past: TrafficState | None = None
