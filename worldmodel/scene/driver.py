"""The protocol at which planners, baselines and environments meet."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState

HISTORY_STEPS = 20  # for a driver that does not say what it needs (see `Driver.act`)


class Driver(Protocol):
    """Drives agent 0 of each scene of a batch. Batched over episodes; episodes that have ended may be driven on.

    A driver may have `chosen_lane`, the lane of the road that each ego steers for since it last acted, long `(batch,)`:
    traffic that looks at the ego's indicator sees it. One that stands under a safety net has `acted`, bool `(batch,)`:
    whether the net overrode it then. One that was taught concepts has `attended`, bool `(batch, concept, agent)`: whom
    each of them is about.
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


def history_steps_of(driver: Driver) -> int:
    """How many steps of history a driver wants to see at most."""
    return int(getattr(driver, "history_steps", HISTORY_STEPS))


def checked(controls: Controls, driver: str, step: int) -> Controls:
    """Controls that are finite.

    Raises:
        InputError: They are not.
    """
    finite = torch.isfinite(controls.acceleration_mps2) & torch.isfinite(controls.steering_rad)
    if not bool(finite.all()):
        episode = int((~finite).nonzero()[0])
        raise InputError(
            f"driver '{driver}': its controls are not finite at step {step} of episode {episode} of the batch; "
            "evaluate another checkpoint"
        )
    return controls


@dataclass(frozen=True)
class Weighed:
    """The plans among which a driver chose, of each episode the chosen one first, then by their energy.

    Where an episode had fewer plans than another, the rest is NaN.

    Attributes:
        path_m: `(batch, plan, point, 2)`. Where the ego would have gone, a point every `every` steps.
        energy: `(batch, plan)`. What each costs.
        cost: term: `(batch, plan)`. The parts of the energy.
        lanes: Long `(batch, plan, stretch)`. The lanes of the road that it steers for, one after the other.
        brakes: Bool `(batch, plan)`. It brakes fully.
        every: Steps between two points; the first one is so many steps after the decision.
        ago: Steps since the decision.
    """

    path_m: Tensor
    energy: Tensor
    cost: dict[str, Tensor]
    lanes: Tensor
    brakes: Tensor
    every: int
    ago: int

    def of(self, episode: int) -> Weighed:
        """Those of one episode, as a batch of one on the CPU."""

        def one(values: Tensor) -> Tensor:
            return values[episode : episode + 1].cpu()

        cost = {name: one(values) for name, values in self.cost.items()}
        return replace(
            self,
            path_m=one(self.path_m),
            energy=one(self.energy),
            cost=cost,
            lanes=one(self.lanes),
            brakes=one(self.brakes),
        )


@dataclass(frozen=True)
class Imagination:
    """What a driver expected: its own plan and sampled futures of the others, in world coordinates."""

    plan_m: Tensor  # (batch, step, 2)
    futures_m: Tensor  # (batch, sample, step, agent, 2)
    cost: dict[str, Tensor] = field(default_factory=dict)  # term: (batch, step), the weighted energy it expects
    weighed: Weighed | None = None  # the plans that it chose from, if it did
    attended: Tensor | None = None  # (batch, agent) bool: whom its concepts are about, if it was taught any

    def of(self, episode: int) -> Imagination:
        """What it expected in one episode, as a batch of one on the CPU."""
        return Imagination(
            plan_m=self.plan_m[episode : episode + 1].cpu(),
            futures_m=self.futures_m[episode : episode + 1].cpu(),
            cost={name: cost[episode : episode + 1].cpu() for name, cost in self.cost.items()},
            weighed=self.weighed and self.weighed.of(episode),
            attended=None if self.attended is None else self.attended[episode : episode + 1].cpu(),
        )


@runtime_checkable
class ImaginingDriver(Protocol):
    """A driver that can show what it expects; asked only for episodes that are kept for replay."""

    def imagine(self, history: TrafficState, road: Road, goal: Goal) -> Imagination: ...
