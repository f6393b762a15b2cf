"""The world model as plain functions of tensors, such as an exported graph is: what was seen, and a step on from it."""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from torch import Tensor, nn

from drivecast.worldmodel.forecaster.model import Memory, WorldModel
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState

STATE = tuple(field.name for field in fields(TrafficState))
ROAD = tuple(field.name for field in fields(Road))
MOVED = ("position_m", "heading_rad", "speed_mps")  # of a state; the rest of it stays
REMEMBERED = ("embedded", "hidden", "bounds")  # of a memory, beside the scene


class Graph(nn.Module):
    """A function of plain tensors, whose inputs and outputs have names, in order."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class ObserveGraph(Graph):
    """Takes in a history of a fixed length: what `StepGraph` goes on from.

    Inputs: the fields of `history (batch, time, agent)` and of `road`. Outputs: `REMEMBERED`, `(batch, agent, ...)`.
    """

    inputs = (*(f"history_{name}" for name in STATE), *(f"road_{name}" for name in ROAD))
    outputs = REMEMBERED

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        memory = self.model.observe(TrafficState(*values[: len(STATE)]), Road(*values[len(STATE) :]))
        return tuple(getattr(memory, name) for name in REMEMBERED)


class StepGraph(Graph):
    """Everybody decides once: `decide_steps` steps on.

    Inputs: the fields of `scene (batch, agent)`, `REMEMBERED`, the `latent (batch, agent, latent)` of the stretch,
    the fields of `road`, and of agent 0 where `ego_known (batch,)`: `ego_position_m (batch, step, 2)`,
    `ego_heading_rad (batch, step)`, `ego_speed_mps (batch, step)` after each step. Outputs: `MOVED (batch, agent, ...)`
    after the last step, and `REMEMBERED`, which go into the next call.
    """

    inputs = (
        *(f"scene_{name}" for name in STATE),
        *REMEMBERED,
        "latent",
        *(f"road_{name}" for name in ROAD),
        *(f"ego_{name}" for name in MOVED),
        "ego_known",
    )
    outputs = (*(f"next_{name}" for name in MOVED), *(f"next_{name}" for name in REMEMBERED))

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(self.inputs, values, strict=True))
        scene = TrafficState(**{name: given[f"scene_{name}"] for name in STATE})
        road = Road(**{name: given[f"road_{name}"] for name in ROAD})
        nothing = torch.zeros_like(scene.speed_mps)
        embedded, hidden, bounds = (given[name] for name in REMEMBERED)
        memory = Memory(scene, scene, embedded, hidden, bounds, acceleration_mps2=nothing, curvature_per_m=nothing)
        first = torch.arange(scene.valid.shape[1], device=scene.valid.device) == 0
        who = first & given["ego_known"][:, None]
        for step in range(self.model.config.decide_steps):
            moved = {name: given[f"ego_{name}"][:, step] for name in MOVED}
            ego = replace(scene[:, 0], **moved)
            memory = self.model.step(memory, given["latent"], road, memory.scene.with_ego(ego), who)
        moved = {name: getattr(memory.scene, name) for name in MOVED}
        return (*moved.values(), *(getattr(memory, name) for name in REMEMBERED))
