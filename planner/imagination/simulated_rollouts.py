"""Rollouts in a differentiable simulator: the oracle, a policy's training without a world model's errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from drivecast.planner.costs.energy import EnergyWeights, Term
from drivecast.planner.costs.trajectory import Trajectory
from drivecast.planner.imagination.rollout import Reaction
from drivecast.planner.imagination.starts import InteractionConfig, Starts, interacting, start_from
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls, TrafficState


class SimulatedRolloutSettings(Protocol):
    """What simulated rollouts take from the settings of their training; they explain the values."""

    @property
    def starts(self) -> InteractionConfig: ...
    @property
    def horizon_steps(self) -> int: ...
    @property
    def others_listen(self) -> bool: ...


class Branch(Protocol):
    """Traffic that goes on from some moments; agent 0 is driven."""

    def step(self, controls: Controls) -> TrafficState:
        """The state `(moment, agent)` one step on, differentiable in `controls (moment,)`."""
        ...


class Moments(Protocol):
    """Moments of simulated traffic that it can go on from, the ego at agent 0."""

    @property
    def history(self) -> TrafficState:
        """The step before and the present: `(moment, 2, agent)`."""
        ...

    @property
    def road(self) -> Road: ...

    def __getitem__(self, rows: Tensor) -> Moments: ...

    def to(self, device: torch.device | str) -> Moments: ...

    def branch(self, ego: TrafficState, others_listen: bool = True) -> Branch:
        """Go on from here with the ego at `ego (moment,)`."""
        ...


class MomentSource(Protocol):
    """Simulated traffic to start from.

    Attributes:
        dt_s: Time step, s.
        identity: Plain JSON: what traffic it is.
    """

    @property
    def dt_s(self) -> float: ...
    @property
    def identity(self) -> Mapping[str, Any]: ...

    def draw(self, split: str, count: int, generator: torch.Generator, one_road: bool) -> Sequence[Moments]:
        """About `count` moments of `train` or `val`, one `Moments` per road, or all on one road."""
        ...


@dataclass(frozen=True)
class SimulatedStarts(Starts):
    """Starts whose traffic can go on in the simulator."""

    moments: Moments

    def to(self, device: str) -> SimulatedStarts:
        return SimulatedStarts(
            self.history.to(device), self.road.to(device), self.goal.to(device), self.moments.to(device)
        )


class SimulatedRollouts:
    """Rollouts in the simulator itself: the same starts, goals, energy and policy as imagined ones, other dynamics.

    There is no latent to draw (each driver is the one it is) and nothing to be uncertain of. A batch is on one road.

    Args:
        source: Simulated traffic.
        config: Which scenes, what is asked of the egos, and for how long.
    """

    validated_on = "val"

    def __init__(self, source: MomentSource, config: SimulatedRolloutSettings) -> None:
        self.source, self.config, self.dt_s = source, config, source.dt_s
        self.identity = {"simulator": dict(source.identity)}
        self.origin = self.identity

    def draw(self, batch: int, generator: torch.Generator) -> Sequence[SimulatedStarts]:
        return self._draw("train", batch, generator, one_road=True)

    def draw_validation(self, batch: int, generator: torch.Generator) -> Sequence[SimulatedStarts]:
        return self._draw("val", batch, generator, one_road=False)

    def unroll(self, policy: Reaction, starts: SimulatedStarts, noise: torch.Generator) -> Trajectory:
        before, scene = starts.history[:, -2], starts.history[:, -1]
        first_acceleration = (scene.speed_mps[:, 0] - before.speed_mps[:, 0]) / self.dt_s
        branch = starts.moments.branch(scene[:, 0], self.config.others_listen)
        scenes, controls = [], []
        for _ in range(self.config.horizon_steps):
            chosen = policy(scene, before, starts.road, starts.goal)
            before, scene = scene, branch.step(chosen)
            scenes.append(scene)
            controls.append(chosen)
        states, driven = TrafficState.stack(scenes, 1), Controls.stack(controls, 1)
        return Trajectory(states, driven, first_acceleration, starts.road, starts.goal, self.dt_s)

    def more_terms(self, weights: EnergyWeights) -> Sequence[Term]:
        return []

    def _draw(self, split: str, batch: int, generator: torch.Generator, one_road: bool) -> list[SimulatedStarts]:
        config, result = self.config.starts, []
        for moments in self.source.draw(split, batch * config.candidates, generator, one_road):
            history = moments.history
            wanted = max(round(len(history.valid) / config.candidates), 1)
            chosen = moments[interacting(history[:, -1], moments.road, wanted, config, generator)]
            starts = start_from(chosen.history, chosen.road, config, self.dt_s, generator)
            result.append(SimulatedStarts(starts.history, starts.road, starts.goal, chosen))
        return result
