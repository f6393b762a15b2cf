"""Training of the energy in the plane: events of its concepts, the contrasts of the loss, and the optimiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.functional import softplus

from drivecast.worldmodel.concepts.contrasts import against_others, of_positives, ruled_out
from drivecast.worldmodel.concepts.inference import InferenceConfig
from drivecast.worldmodel.concepts.plane import Events, Scenes, attentions, draw_events
from drivecast.worldmodel.concepts.plane_energy import (
    PAIR_FEATURES,
    PlacingConfig,
    energy_of,
    energy_of_attentions,
    identified,
    inferred_places,
    plane_relations,
    scattered,
    taught,
)
from drivecast.worldmodel.concepts.plane_rules import BY_NAME, CONCEPTS, FRAMES, TRAINED
from drivecast.worldmodel.concepts.relation_energy import RelationEnergy, RelationEnergyConfig
from drivecast.worldmodel.errors import InputError

THROUGH = 2  # steps of the sampler that are learned through


@dataclass(frozen=True)
class PlaneTrainingConfig:
    """Training in the plane; the loss is a weighted sum of contrasts, as for traffic.

    Args:
        steps: Of the optimiser.
        batch: Concepts of each.
        shots: Most demonstrations of a concept.
        events: Of each concept, drawn once.
        learning_rate: Of Adam, at most; it rises over the first twentieth of the steps and falls to a hundredth.
        first_log_code_step: Logarithm of how far each step moves codes at first. At -1 codes
            say nothing of directions for the first 600 steps: gradients are small while energies are.
        moving_share: Of the steps that are about concepts of several frames.
        masks: Weight of whom it is about against all others.
        found_masks: Weight of whom it is about against whom inference by gradient finds.
        concepts: Weight of events of the concept against those of other concepts.
        moved: Weight of demonstrated positions against the same, moved at random.
        places: Weight of demonstrated positions against those that the sampler finds.
        sampler: Weight of the energy of what the sampler finds, lowered through its steps.
        magnitude: Weight of the energies themselves, which holds them small.
        negatives: Scenes with moved positions, and of other concepts, that each event is held against.
    """

    steps: int = 1500
    batch: int = 24
    shots: int = 5
    events: int = 200
    learning_rate: float = 5e-3
    first_log_code_step: float = 0.5
    moving_share: float = 0.15
    masks: float = 1.0
    found_masks: float = 0.3
    concepts: float = 1.0
    moved: float = 1.0
    places: float = 1.0
    sampler: float = 0.3
    magnitude: float = 0.01
    negatives: int = 8
    inference: InferenceConfig = field(default_factory=lambda: InferenceConfig(code_steps=5, mask_steps=5))
    placing: PlacingConfig = field(default_factory=PlacingConfig)


PLANE_MODEL = RelationEnergyConfig(features=PAIR_FEATURES, hidden=48, all_pairs=True)


def loss_of(
    model: RelationEnergy,
    demonstrations: Scenes,
    query: Events,
    shots: int,
    config: PlaneTrainingConfig,
    noise: torch.Generator,
) -> dict[str, Tensor]:
    """The parts of the loss, and `loss`, their weighted sum.

    L = mean of softplus(E(x⁺, a⁺, w) - E(x⁻, a⁻, w)), or of the cross-entropy of exp(-E) over several x⁻ or a⁻, where w
    is inferred from the demonstrations, plus E, with frozen weights, of what the sampler finds. Source: Mordatch 2018;
    the cross-entropies are added here.

    Args:
        model: The energy.
        demonstrations: `(batch · shot, ...)`, those attended to alone.
        query: One more event of each concept, `(batch,)`.
        shots: Demonstrations of each concept.
        config: The weights.
        noise: Of negatives and samplers.
    """
    code = taught(model, demonstrations, shots, config.inference, noise, differentiable=True)
    alone, moves, frozen_code = query.alone, query.moves, code.detach()
    low = energy_of(model, alone, code)
    parts = {"concepts": _contrast_of_concepts(model, query, low, code, config.negatives)}
    parts["masks"], parts["found_masks"] = _contrasts_of_masks(model, query, low, code, config.inference, noise)
    parts["moved"] = _contrast_of_moved(model, alone, moves, low, code, config.negatives, noise)
    near = torch.rand(len(code), 1, 1, 1, generator=noise) < 0.3  # some samples begin near what was demonstrated
    start = scattered(alone, moves, noise)
    start = replace(start, position=torch.where(near, (2 * alone.position + start.position) / 3, start.position))
    through = THROUGH if config.sampler else 0
    found = inferred_places(model, start, moves, frozen_code, config.placing, noise, through)
    high = energy_of(model, found.detach(), code)
    parts["places"] = softplus(low - high).mean()
    if config.sampler:
        pairs, counts = plane_relations(found)
        parts["sampler"] = model.frozen(pairs, counts, (found.colour >= 0).to(pairs), frozen_code).mean()
    parts["magnitude"] = (low + high).mean()
    total = sum((getattr(config, name) * value for name, value in parts.items()), low.new_zeros(()))
    return {"loss": total, **parts, "low": low.mean().detach(), "high": high.mean().detach()}


def _contrast_of_concepts(model: RelationEnergy, query: Events, low: Tensor, code: Tensor, count: int) -> Tensor:
    """Under a code its own event is lower than those of other concepts in which the own concept does not hold."""
    batch = len(code)
    count = min(count, batch - 1)
    shift = torch.arange(1, count + 1)
    other = (torch.arange(batch)[:, None] + shift) % batch  # (batch, other)
    alone = query.alone[other.flatten()]
    energy = energy_of(model, alone, code.repeat_interleave(count, 0)).view(batch, count)
    return against_others(low, ruled_out(energy, query.also[other], query.concept))


def _contrasts_of_masks(
    model: RelationEnergy,
    query: Events,
    low: Tensor,
    code: Tensor,
    config: InferenceConfig,
    noise: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Of whom it holds against all others, and against whom the inference by gradient finds wrongly."""
    energy = energy_of_attentions(model, query.scenes, code)
    every = of_positives(energy, query.positives)
    found = identified(model, query.scenes, code.detach(), config, 1, noise)
    pairs, counts = plane_relations(query.scenes)
    high = model(pairs, counts, found, code)
    wrong = ~((found[:, None].round() == attentions().to(found)).all(-1) & query.positives).any(1)
    return every, (softplus(low - high) * wrong).mean()


def _contrast_of_moved(
    model: RelationEnergy, alone: Scenes, moves: Tensor, low: Tensor, code: Tensor, count: int, noise: torch.Generator
) -> Tensor:
    """Demonstrated positions against the same with those who move some 0.05 to 1 away."""
    times = alone.map(lambda values: values.repeat_interleave(count, 0))
    far = 0.05 * 20.0 ** torch.rand(len(times.colour), 1, 1, 1, generator=noise)
    change = far * torch.randn(times.position.shape, generator=noise)
    change = change * moves.repeat_interleave(count, 0)[:, None, :, None]
    moved = replace(times, position=(times.position + change).clamp(-1.0, 1.0))
    energy = energy_of(model, moved, code.repeat_interleave(count, 0)).view(-1, count)
    return against_others(low, energy)


class EventBank:
    """Events of some concepts, drawn by number of frames, from which few-shot tasks are made.

    Args:
        names: Of the concepts.
        each: Events of each concept.
        generator: Of the events.
    """

    def __init__(self, names: Sequence[str], each: int, generator: torch.Generator) -> None:
        self.each = each
        self.names: list[list[str]] = []
        self.events: list[Events] = []
        for frames in (1, FRAMES):
            some = [name for name in names if CONCEPTS[BY_NAME[name]].frames == frames]
            if some:
                self.names.append(some)
                self.events.append(draw_events(some, each, generator))

    def task(self, kind: int, concepts: Tensor, shots: int, generator: torch.Generator) -> tuple[Scenes, Events]:
        """Demonstrations `(batch · shot, ...)` and one more event each, of `concepts (batch,)` among `names[kind]`."""
        drawn = torch.rand(len(concepts), self.each, generator=generator).argsort(1)[:, : shots + 1]
        index = concepts[:, None] * self.each + drawn
        events = self.events[kind]
        return events[index[:, :-1].flatten()].alone, events[index[:, -1]]


def train(
    config: PlaneTrainingConfig,
    seed: int,
    names: Sequence[str] = TRAINED,
    model: RelationEnergyConfig = PLANE_MODEL,
    on_step: Callable[[int, dict[str, Tensor]], None] | None = None,
) -> RelationEnergy:
    """A model trained on events of `names`.

    Raises:
        InputError: The loss is no longer finite.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = RelationEnergy(model)
    torch.nn.init.constant_(net.log_code_step, config.first_log_code_step)
    bank = EventBank(names, config.events, generator)
    optimiser = torch.optim.Adam(net.parameters(), config.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.learning_rate, total_steps=config.steps + 1, pct_start=0.05, final_div_factor=4.0
    )
    for step in range(config.steps):
        moving = float(torch.rand((), generator=generator)) < config.moving_share
        kind = len(bank.names) - 1 if moving else 0
        shots = int(torch.randint(1, config.shots + 1, (), generator=generator))
        concepts = torch.randint(len(bank.names[kind]), (config.batch,), generator=generator)
        demonstrations, query = bank.task(kind, concepts, shots, generator)
        parts = loss_of(net, demonstrations, query, shots, config, generator)
        if not torch.isfinite(parts["loss"]):
            raise InputError(f"the loss of step {step} is {float(parts['loss'])}; lower the learning rate")
        optimiser.zero_grad(set_to_none=True)
        parts["loss"].backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if on_step is not None:
            on_step(step, {name: value.detach() for name, value in parts.items()})
    return net.eval()
