"""A world that goes on in imagination, step by step, and branches: the ego by its bicycle, the others by a model."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from drivecast.worldmodel.forecaster.draws import LatentDraws
from drivecast.worldmodel.forecaster.model import Memory, WorldModel
from drivecast.worldmodel.scene.kinematics import drive
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls, TrafficState


class World(Protocol):
    """Scenes that go on under the ego's controls and can be branched, `(row, agent)` each, the ego at agent 0.

    Attributes:
        scene: The present.
        before: One step earlier.
        road: The road of each row.
        decide_steps: The others decide every so many steps.
    """

    scene: TrafficState
    before: TrafficState
    road: Road

    @property
    def decide_steps(self) -> int: ...

    @property
    def first_acceleration(self) -> Tensor:
        """The ego's, m/s², over the step that led here, `(row,)`."""
        ...

    def announce(self, lane: Tensor) -> None:
        """The lane of the road `(row,)` that the ego steers for from now on."""
        ...

    def advance(self, controls: Controls) -> TrafficState:
        """One step on under `controls (row,)`; the scene after it. Differentiable in the controls."""
        ...

    def picked(self, rows: Tensor) -> World:
        """The worlds of `rows`, which may be named several times: from here on they go their own ways."""
        ...


class ImaginedWorld:
    """Scenes that go on under the ego's controls, `(row, agent)` each, the ego at agent 0.

    Args:
        model: The world model; the caller freezes it.
        memory: What it remembers of the past.
        before: The scene one step before the present.
        road: The road of each row.
        latents: The others' latents: the ego never chooses them.
        others_listen: Let the gradient flow through the others' answers to the ego. If False it is cut: they still
            answer, but the ego is not rewarded for pushing them.
    """

    def __init__(
        self,
        model: WorldModel,
        memory: Memory,
        before: TrafficState,
        road: Road,
        latents: LatentDraws,
        others_listen: bool = True,
    ) -> None:
        self.model, self.memory, self.before, self.road = model, memory, before, road
        self.latents, self.others_listen = latents, others_listen
        self.scene = memory.scene
        self.step = 0
        self.latent: Tensor | None = None  # of the step that led here

    @property
    def decide_steps(self) -> int:
        return self.model.config.decide_steps

    def announce(self, lane: Tensor) -> None:
        """Imagined drivers see what the ego does, not its indicator."""

    @property
    def first_acceleration(self) -> Tensor:
        """The ego's, m/s², over the step that led here, `(row,)`."""
        return (self.scene.speed_mps[:, 0] - self.before.speed_mps[:, 0]) / self.model.config.dt_s

    def advance(self, controls: Controls) -> TrafficState:
        """One step on under `controls (row,)`; the scene after it."""
        self.latent = self.latents.at(self.step, self.memory)
        ego = drive(self.scene[:, 0], controls, self.model.config.dt_s)
        self.memory = self._stepped(self.memory if self.others_listen else self.memory.detach(), ego)
        self.before, self.scene = self.scene, self.memory.scene
        if not self.others_listen:
            self.scene = self.scene.detach().with_ego(ego)
        self.step += 1
        return self.scene

    def _stepped(self, memory: Memory, ego: TrafficState) -> Memory:
        assert self.latent is not None
        who = torch.zeros_like(memory.scene.valid)
        who[:, 0] = True
        return self.model.step(memory, self.latent, self.road, memory.scene.with_ego(ego), who)

    def picked(self, rows: Tensor) -> ImaginedWorld:
        """The worlds of `rows`, which may be named several times: from here on they go their own ways.

        Where latents are shared (`LatentDraws.period`), rows come in whole periods.
        """
        world = type(self)(
            self.model,
            self.memory[rows],
            self.before[rows],
            self.road[rows],
            self.latents.picked(rows),
            self.others_listen,
        )
        world.step = self.step
        return world


class HeldWorld(ImaginedWorld):
    """The same with no gradient at all through the world model: the others' answers are taken as they are.

    The ego's own motion stays differentiable, and so does what a plan costs.
    """

    def __init__(
        self,
        model: WorldModel,
        memory: Memory,
        before: TrafficState,
        road: Road,
        latents: LatentDraws,
        others_listen: bool = False,
    ) -> None:
        if others_listen:
            raise ValueError("others_listen: no gradient flows through a held world")
        super().__init__(model, memory, before, road, latents, others_listen)

    def _stepped(self, memory: Memory, ego: TrafficState) -> Memory:
        with torch.no_grad():
            return super()._stepped(memory, ego)
