"""The energy of scenes in the plane, and what is inferred by it: codes, places, and of whom a concept holds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from drivecast.worldmodel.concepts.contrasts import LARGE
from drivecast.worldmodel.concepts.inference import InferenceConfig, inferred_mask, taught_code
from drivecast.worldmodel.concepts.plane import FEWEST_ATTENDED, MOST, Scenes, attentions, possible
from drivecast.worldmodel.concepts.plane_rules import COLOURS, length_of, uniform
from drivecast.worldmodel.concepts.relation_energy import RelationEnergy

PAIR_FEATURES = 16


def plane_relations(scenes: Scenes) -> tuple[Tensor, Tensor]:
    """How any two stand to each other: `(batch, time, i, j, 16)`, and which pairs count, an entity with itself, too.

    Where j is from i and how far, both colours, whether they are one, and the time from -1 to 1: the energy is of a
    mean over time, which without it would be the same for any order of frames. No absolute place, so that scenes can
    be shifted.
    """
    position, colour = scenes.position, scenes.colour
    batch, time, count = position.shape[:3]
    shape = (batch, time, count, count)
    delta = position[:, :, None] - position[:, :, :, None]
    distance = length_of(delta)
    shade = one_hot(colour.clamp_min(0), len(COLOURS)).to(position)
    first = shade[:, None, :, None].expand(*shape, -1)
    second = shade[:, None, None].expand(*shape, -1)
    same = torch.eye(count).to(position).expand(shape)
    when = torch.linspace(-1.0, 1.0, time).to(position) if time > 1 else position.new_zeros(1)
    scalars = [2.0 * distance, torch.tanh(distance / 0.3), same, when[:, None, None].expand(shape)]
    scalars += [(-(distance / 0.2).square()).exp(), when[:, None, None] * (-(distance / 0.2).square()).exp()]
    there = colour >= 0
    counts = (there[:, :, None] & there[:, None])[:, None].expand(shape)
    direction = delta / (distance + 0.1)[..., None]
    return torch.cat([2.0 * delta, direction, torch.stack(scalars, -1), first, second], -1), counts


def energy_of(model: RelationEnergy, scenes: Scenes, code: Tensor) -> Tensor:
    """Energy `(batch,)` of scenes all of whose entities are attended to."""
    pairs, counts = plane_relations(scenes)
    return model(pairs, counts, (scenes.colour >= 0).to(pairs), code)


def taught(
    model: RelationEnergy,
    demonstrations: Scenes,
    shots: int,
    config: InferenceConfig,
    noise: torch.Generator | None = None,
    differentiable: bool = False,
) -> Tensor:
    """Codes `(batch, code)` of `demonstrations (batch · shot, ...)`, all of whose entities are attended to."""
    pairs, counts = plane_relations(demonstrations)
    attention = (demonstrations.colour >= 0).to(pairs)
    return taught_code(model, pairs, counts, attention, shots, config, noise, differentiable)


@dataclass(frozen=True)
class PlacingConfig:
    """Langevin steps over positions.

    Args:
        steps: How many.
        step: Length of the first, root mean square over those who move; it falls to a twentieth.
        noise: Standard deviation of the noise of each, as a share of its length.
    """

    steps: int = 10
    step: float = 0.2
    noise: float = 0.2


def inferred_places(
    model: RelationEnergy,
    scenes: Scenes,
    moves: Tensor,
    code: Tensor,
    config: PlacingConfig,
    noise: torch.Generator | None = None,
    differentiable: int = 0,
) -> Scenes:
    """`scenes` with those who move, bool `(batch, entity)`, brought to positions of low energy, in the square.

    x ← x - s_k ∇E / |∇E| + σ s_k n, n normal: Langevin steps of set lengths s_k, for the energy's size says nothing
    about how far. Source: Mordatch 2018, but for the lengths. The last `differentiable` steps pass gradients on.
    """
    free = moves[:, None, :, None].to(scenes.position).expand_as(scenes.position)
    share = free.sum((1, 2, 3), keepdim=True).clamp_min(1.0)
    places = scenes.position.detach().requires_grad_(True)
    for step in range(config.steps):
        length = config.step * (1.0 - 0.95 * step / max(config.steps - 1, 1))
        flows = step >= config.steps - differentiable
        with torch.enable_grad():
            value = energy_of(model, replace(scenes, position=places), code)
            (gradient,) = torch.autograd.grad(value.sum(), places, create_graph=flows)
        gradient = gradient * free
        scale = (gradient.square().sum((1, 2, 3), keepdim=True) / share + 1e-8).sqrt()
        change = -gradient / scale
        if noise is not None:
            change = change + config.noise * torch.randn(change.shape, generator=noise) * free
        places = (places + length * change).clamp(-1.0, 1.0)
        if not flows:
            places = places.detach().requires_grad_(True)
    return replace(scenes, position=places if differentiable else places.detach())


def scattered(scenes: Scenes, moves: Tensor, noise: torch.Generator) -> Scenes:
    """`scenes` with those who move anywhere in the square, in each frame anew."""
    anywhere = uniform(noise, *scenes.position.shape)
    return replace(scenes, position=torch.where(moves[:, None, :, None], anywhere, scenes.position))


def identified(
    model: RelationEnergy, scenes: Scenes, code: Tensor, config: InferenceConfig, starts: int, noise: torch.Generator
) -> Tensor:
    """Attention `(batch, entity)` in [0, 1] of least energy, by gradient from `starts` random logits each."""
    pairs, counts = plane_relations(scenes)
    relations = model.relations(pairs, counts, code).repeat_interleave(starts, 0)
    codes = code.repeat_interleave(starts, 0)
    there = (scenes.colour >= 0).to(pairs).repeat_interleave(starts, 0)

    def energy(attention: Tensor) -> Tensor:
        return model.judged(relations, attention * there, codes)

    found = inferred_mask(energy, torch.randn(there.shape, generator=noise), config) * there
    # judged as it will be read, all or nothing; fewer than two are nobody
    sharp = found.round()
    value = energy(sharp) + LARGE * (sharp.sum(1) < FEWEST_ATTENDED)
    best = value.view(-1, starts).argmin(1)
    return found.view(-1, starts, MOST)[torch.arange(len(best)), best].detach()


def energy_of_attentions(model: RelationEnergy, scenes: Scenes, code: Tensor) -> Tensor:
    """Energy `(batch, mask)` of all `attentions()`; `LARGE` where somebody is not there."""
    pairs, counts = plane_relations(scenes)
    every = attentions().to(code).expand(len(code), -1, -1)
    energy = model.judged(model.relations(pairs, counts, code), every, code)
    return torch.where(possible(scenes), energy, LARGE)
