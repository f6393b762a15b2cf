"""Imagined futures: the world model unrolled, with its latent held, drawn, inferred or zero."""

from __future__ import annotations

import torch
from torch import Tensor

from drivecast.worldmodel.forecaster.draws import LatentDraws
from drivecast.worldmodel.forecaster.model import Memory, WorldModel
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState


def forecast(
    model: WorldModel,
    memory: Memory,
    road: Road,
    steps: int,
    known: TrafficState | None = None,
    who: Tensor | None = None,
    sample: bool = False,
    generator: torch.Generator | None = None,
    masks: Tensor | None = None,
) -> TrafficState:
    """Unroll `steps` steps: `(batch, time, agent)`.

    Args:
        model: The world model.
        memory: Its memory of the past.
        road: The road.
        steps: Steps to go ahead.
        known: Future `(batch, time, agent)` of the vehicles whose motion is known, or None.
        who: Which those are, `(batch, agent)`.
        sample: Draw latents from the prior; otherwise hold them at the prior's mean (the likeliest latent).
        generator: Source of randomness.
        masks: Dropout masks of the decoder, `(batch, agent or 1, 3 hidden)`, if any.
    """
    scenes, latents = [], LatentDraws(model, sample, generator)
    for step in range(steps):
        latent = latents.at(step, memory)
        memory = model.step(memory, latent, road, None if known is None else known[:, step], who, masks)
        scenes.append(memory.scene)
    return TrafficState.stack(scenes, 1)


def sampled_forecasts(
    model: WorldModel,
    memory: Memory,
    road: Road,
    steps: int,
    samples: int,
    known: TrafficState | None = None,
    who: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> TrafficState:
    """`samples` futures with latents from the prior, in one batch: `(batch, sample, time, agent)`."""
    repeated = torch.arange(memory.hidden.shape[0], device=memory.hidden.device).repeat_interleave(samples)
    future = forecast(
        model,
        memory[repeated],
        road[repeated],
        steps,
        None if known is None else known[repeated],
        None if who is None else who[repeated],
        sample=True,
        generator=generator,
    )
    return future.map(lambda tensor: tensor.view(-1, samples, *tensor.shape[1:]))
