"""Imagined rollouts: the ego by its bicycle, the others by the world model, all differentiable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from drivecast.planner.costs.trajectory import Trajectory
from drivecast.worldmodel.energy.uncertainty import UncertaintyConfig, UncertaintyScale, disagreement
from drivecast.worldmodel.forecaster.draws import LatentDraws
from drivecast.worldmodel.forecaster.model import Memory, WorldModel
from drivecast.worldmodel.scene.kinematics import drive
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState

Control = Callable[[int, TrafficState, TrafficState], Controls]  # (step, scene, scene one step before) -> controls
# (scene, scene one step before, road, goal) -> controls: a policy, whatever it is made of
Reaction = Callable[[TrafficState, TrafficState, Road, Goal], Controls]


def drive_ego(scene: TrafficState, controls: Controls, dt_s: float) -> TrafficState:
    """The scene with its ego one bicycle step on; the others stand still: `(batch, agent)`."""
    return scene.with_ego(drive(scene[:, 0], controls, dt_s))


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
    scene = memory.scene
    who = torch.zeros_like(scene.valid)
    who[:, 0] = True
    first_acceleration = (scene.speed_mps[:, 0] - before.speed_mps[:, 0]) / model.config.dt_s
    masks = model.dropout_masks(uncertainty.masks, generator=generator) if uncertainty else None
    latents = LatentDraws(model, sample, generator, noise_period)
    for step in range(steps):
        latent = latents.at(step, memory)
        chosen = control(step, scene, before)
        ahead = drive_ego(scene, chosen, model.config.dt_s)
        listening = memory if others_listen else memory.detach()
        memory = model.step(listening, latent, road, ahead, who)
        before, scene = scene, memory.scene
        if not others_listen:
            scene = scene.detach().with_ego(ahead[:, 0])
        scenes.append(scene)
        controls.append(chosen)
        if uncertainty is not None and masks is not None and uncertainty.is_due(step, steps):
            measures.append(disagreement(model, memory, latent, masks, uncertainty.reach_m))
    raw = torch.stack(measures, 1) if measures else None
    trajectory = Trajectory(
        TrafficState.stack(scenes, 1), Controls.stack(controls, 1), first_acceleration, road, goal, model.config.dt_s
    )
    if raw is not None and uncertainty is not None and scale is not None:
        cost = scale.cost(raw, uncertainty.hinge).repeat_interleave(uncertainty.every_steps, 1)[:, :steps]
        trajectory = replace(trajectory, uncertainty=cost)
    return trajectory, raw
