"""The world model unrolled under latents that are given or inferred, one for each stretch."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from drivecast.worldmodel.forecaster.latent import DiagonalNormal
from drivecast.worldmodel.forecaster.model import Memory, WorldModel
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState

Choice = Callable[[int, Memory, Tensor | None], Tensor]  # (stretch, memory, last latent) to the next latent


class LatentRollout(NamedTuple):
    """A rollout, and what its latents cost."""

    position_m: Tensor  # (batch, time, agent, 2)
    latents: Tensor  # (batch, stretch, agent, latent)
    code: Tensor  # (batch, stretch, agent): -log prior of each latent after the one before, without its constant


def stretches(model: WorldModel, steps: int) -> int:
    """How many latents a rollout of `steps` steps takes."""
    return -(-steps // model.config.latent_hold_steps)


def unroll(
    model: WorldModel,
    memory: Memory,
    road: Road,
    future: TrafficState,
    choose: Choice,
    who: Tensor | None = None,
) -> LatentRollout:
    """Unroll over the steps of `future (batch, time, agent)` under the latents that `choose` gives.

    Vehicles where `who (batch, agent)` is True move as in `future`, where they are valid there; nobody else sees it.
    """
    hold = model.config.latent_hold_steps
    last: Tensor | None = None
    positions, latents, codes = [], [], []
    for step in range(future.valid.shape[1]):
        if step % hold == 0:
            prior = model.prior(memory, last)
            last = choose(step // hold, memory, last)
            latents.append(last)
            codes.append(_code(prior, last, model.config.prior == "learned"))
        known = None if who is None else who & future.valid[:, step]
        assert last is not None
        memory = model.step(memory, last, road, None if who is None else future[:, step], known)
        positions.append(memory.scene.position_m)
    return LatentRollout(torch.stack(positions, 1), torch.stack(latents, 1), torch.stack(codes, 1))


def posterior_choice(
    model: WorldModel, future: TrafficState, noted: list[DiagonalNormal], draw: Callable[[DiagonalNormal], Tensor]
) -> Choice:
    """Latents that `draw` takes from the posterior of each stretch; the posteriors are noted.

    A vehicle that is not seen in a stretch has the prior for its posterior.
    """
    hold = model.config.latent_hold_steps

    def choose(stretch: int, memory: Memory, last: Tensor | None) -> Tensor:
        target = future[:, stretch * hold : (stretch + 1) * hold]
        posterior, prior = model.posterior(memory, target, last), model.prior(memory, last)
        seen = (target.valid.any(1) & memory.scene.valid)[..., None]
        found = DiagonalNormal(
            torch.where(seen, posterior.mean, prior.mean),
            torch.where(seen, posterior.log_variance, prior.log_variance),
        )
        noted.append(found)
        return draw(found)

    return choose


def posterior_latents(
    model: WorldModel,
    memory: Memory,
    road: Road,
    future: TrafficState,
    who: Tensor | None = None,
    draw: Callable[[DiagonalNormal], Tensor] = lambda posterior: posterior.mean,
) -> tuple[LatentRollout, DiagonalNormal]:
    """The rollout under latents of the posterior (its means), each inferred where the one before has led.

    Returns the rollout and the posteriors, `(batch, stretch, agent, latent)`.
    """
    noted: list[DiagonalNormal] = []
    if model.config.latent_dims:
        rollout = unroll(model, memory, road, future, posterior_choice(model, future, noted, draw), who)
    else:
        rollout = unroll(model, memory, road, future, lambda stretch, memory, last: model.no_latent(memory), who)
        noted = [DiagonalNormal(latent, latent) for latent in rollout.latents.unbind(1)]
    means, variances = ([getattr(each, name) for each in noted] for name in ("mean", "log_variance"))
    return rollout, DiagonalNormal(torch.stack(means, 1), torch.stack(variances, 1))


def _code(prior: DiagonalNormal, latent: Tensor, normalised: bool) -> Tensor:
    cost = (latent - prior.mean).square() / prior.log_variance.exp()
    if normalised:  # of a prior whose width depends on the past, its normaliser is no constant
        cost = cost + prior.log_variance
    return 0.5 * cost.sum(-1)
