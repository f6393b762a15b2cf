"""The protocol at which planners, baselines and environments meet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor

from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState


class Driver(Protocol):
    """Drives agent 0 of each scene of a batch. Batched over episodes; episodes that have ended may be driven on.

    A driver may have `chosen_lane`, the lane of the road that each ego steers for since it last acted, long `(batch,)`:
    traffic that looks at the ego's indicator sees it.
    """

    name: str

    def reset(self, scene: TrafficState, road: Road, goal: Goal) -> None:
        """Forget everything; the episodes start at `scene (batch, agent)`."""

    def act(self, history: TrafficState, road: Road, goal: Goal) -> Controls:
        """Controls `(batch,)` for the next step, given `history (batch, time, agent)`, the present last.

        `time` grows from 1 at the start of an episode to at most `history_steps`, if the driver has that attribute,
        else 20. Agents keep their index through an episode; one that is not seen is not `valid`.
        """
        ...


@dataclass(frozen=True)
class Imagination:
    """What a driver expected: its own plan and sampled futures of the others, in world coordinates."""

    plan_m: Tensor  # (batch, step, 2)
    futures_m: Tensor  # (batch, sample, step, agent, 2)
    cost: dict[str, Tensor] = field(default_factory=dict)  # term: (batch, step), the weighted energy it expects


@runtime_checkable
class ImaginingDriver(Protocol):
    """A driver that can show what it expects; asked only for episodes that are kept for replay."""

    def imagine(self, history: TrafficState, road: Road, goal: Goal) -> Imagination: ...
