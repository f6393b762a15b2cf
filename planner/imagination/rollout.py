"""Imagined rollouts: the ego by its bicycle, the others by the world model, all differentiable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from drivecast.planner.costs.trajectory import Trajectory
from drivecast.planner.imagination.world import ImaginedWorld
from drivecast.worldmodel.energy.uncertainty import UncertaintyConfig, UncertaintyScale, disagreement
from drivecast.worldmodel.forecaster.draws import LatentDraws
from drivecast.worldmodel.forecaster.model import Memory, WorldModel
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState

Control = Callable[[int, TrafficState, TrafficState], Controls]  # (step, scene, scene one step before) -> controls
# (scene, scene one step before, road, goal) -> controls: a policy, whatever it is made of
Reaction = Callable[[TrafficState, TrafficState, Road, Goal], Controls]


def imagine(
    model: WorldModel,
    memory: Memory,
    before: TrafficState,
    road: Road,
    goal: Goal,
    control: Control,
    steps: int,
    generator: torch.Generator | None = None,
    sample: bool = True,
    uncertainty: UncertaintyConfig | None = None,
    scale: UncertaintyScale | None = None,
    others_listen: bool = True,
    noise_period: int | None = None,
) -> tuple[Trajectory, Tensor | None]:
    """Unroll `steps` steps under `control`.

    Args:
        model: The world model; the caller freezes it.
        memory: What it remembers of the past.
        before: The scene one step before the present, `(batch, agent)`.
        road: The road.
        goal: The goal.
        control: Gives the ego's controls at each step.
        steps: Length of the rollout.
        generator: Source of the latents and dropout masks.
        sample: Draw z from the prior; otherwise hold it at the prior's mean. The ego never chooses z.
        uncertainty: Measure the model's disagreement on the way, if given: of what follows from the controls so far.
        scale: Turn it into a cost on the trajectory, if given too.
        others_listen: Let the gradient flow through the others' answers to the ego. If False it is cut here: they
            still answer, but the ego is not rewarded for pushing them.
        noise_period: Rows of the batch that are so far apart share their latents' noise: alternatives are then compared
            in the same futures, and no row depends on which others stand in the batch.

    Returns:
        The trajectory, and the raw disagreement `(batch, measure)` where it was measured.
    """
    scenes, controls, measures = [], [], []
    masks = model.dropout_masks(uncertainty.masks, generator=generator) if uncertainty else None
    latents = LatentDraws(model, sample, generator, noise_period)
    world = ImaginedWorld(model, memory, before, road, latents, others_listen)
    first_acceleration = world.first_acceleration
    for step in range(steps):
        chosen = control(step, world.scene, world.before)
        scenes.append(world.advance(chosen))
        controls.append(chosen)
        if uncertainty is not None and masks is not None and uncertainty.is_due(step, steps):
            assert world.latent is not None
            measures.append(disagreement(model, world.memory, world.latent, masks, uncertainty.reach_m))
    raw = torch.stack(measures, 1) if measures else None
    trajectory = Trajectory(
        TrafficState.stack(scenes, 1), Controls.stack(controls, 1), first_acceleration, road, goal, model.config.dt_s
    )
    if raw is not None and uncertainty is not None and scale is not None:
        cost = scale.cost(raw, uncertainty.hinge).repeat_interleave(uncertainty.every_steps, 1)[:, :steps]
        trajectory = replace(trajectory, uncertainty=cost)
    return trajectory, raw
