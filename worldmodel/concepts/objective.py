"""What a concept energy is trained for: low on what was demonstrated, high on whatever else its samplers find."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from drivecast.worldmodel.concepts.contrasts import LARGE, against_others, of_positives, ruled_out
from drivecast.worldmodel.concepts.demonstrations import Labelled
from drivecast.worldmodel.concepts.ego_drive import driven, fitted
from drivecast.worldmodel.concepts.inference import InferenceConfig, inferred_drive, masks, taught_code
from drivecast.worldmodel.concepts.relation_energy import RelationEnergy
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.entities import MOST_ENTITIES, Entities
from drivecast.worldmodel.scene.relations import ego_relations

SPEED_BIN_MPS, FEW = 5.0, 50


@dataclass(frozen=True)
class ConceptObjectiveConfig:
    """The loss: a weighted sum of contrasts, each over what else could have been.

    Args:
        drives: Weight of the demonstrated drive against what the sampler drives.
        masks: Weight of whom it is about against all others.
        concepts: Weight of stretches of the concept against those of other concepts.
        shifted: Weight of the demonstrated drive against the same at another time.
        sampler: Weight of the energy of what the sampler drives, lowered through its steps.
        magnitude: Weight of the energies themselves, which holds them small.
        first_mps2: Standard deviation of the knots that the sampler begins with, m/s².
        others: Stretches of other concepts that each concept is held against.
    """

    drives: float = 1.0
    masks: float = 1.0
    concepts: float = 1.0
    shifted: float = 0.5
    sampler: float = 0.3
    magnitude: float = 0.02
    first_mps2: float = 0.8
    others: int = 12


@dataclass(frozen=True)
class Task:
    """For each of a batch of concepts: demonstrations, and one more stretch in which it holds.

    Attributes:
        demonstrations: `(batch · shot, frame, entity)`: the ego and the two that it is about.
        query: `(batch, frame, entity)`, all entities.
        about: Long `(batch, 2)`. Of the query.
        positives: Bool `(batch, mask)`. Whom it holds of in the query, see `masks`.
        also: Bool `(batch, concept)`. What else holds of them there.
        concept: Long `(batch,)`.
    """

    demonstrations: Entities
    query: Entities
    about: Tensor
    positives: Tensor
    also: Tensor
    concept: Tensor


class Tasks:
    """Draws tasks from labelled stretches.

    Args:
        labelled: What holds where.
        names: Concepts that are drawn; those without `shots + 1` labels are left out.
        shots: Most demonstrations of a concept.

    Raises:
        InputError: None of them has enough labels.
    """

    def __init__(self, labelled: Labelled, names: tuple[str, ...], shots: int) -> None:
        self.labelled, self.shots = labelled, shots
        self.of = {name: found for name in names if len(found := labelled.of(name)) > shots}
        speed = labelled.entities.speed_mps[:, :, 0].mean(1)[labelled.stretch]
        # every speed counts alike: what holds at one speed only by the recordings' chance is not the concept
        self.rarity = {name: _rarity((speed[found] / SPEED_BIN_MPS).long()) for name, found in self.of.items()}
        self.names = tuple(self.of)
        if not self.names:
            raise InputError("the recordings show none of the concepts often enough; give more of them")
        self.mask = _mask_of(labelled.about)
        concepts, count = len(labelled.names), len(masks(MOST_ENTITIES))
        place = labelled.stretch * count + self.mask
        self.also = _gathered(place, labelled.concept, concepts)
        self.positives = _gathered(labelled.stretch * concepts + labelled.concept, self.mask, count)

    def draw(self, batch: int, shots: int, generator: torch.Generator, shortest: int) -> Task:
        """`batch` tasks of `shots` demonstrations each, of the same number of frames; the last ones of a stretch."""
        label = torch.stack([self._labels(shots + 1, generator) for _ in range(batch)])  # (batch, shot + 1)
        frames = self.labelled.entities.valid.shape[1]
        count = frames
        if torch.rand((), generator=generator) < 0.5:
            count = int(torch.randint(min(shortest, frames), frames + 1, (), generator=generator))
        return self.of_labels(label, count)

    def of_labels(self, label: Tensor, frames: int) -> Task:
        """Tasks of given labels `(batch, shot + 1)`, the query last."""
        known, query = label[:, :-1].flatten(), label[:, -1]
        return Task(
            self.about(known, frames),
            self.stretch(query, frames),
            self.labelled.about[query],
            self.positives[query],
            self.also[query],
            self.labelled.concept[query],
        )

    def stretch(self, label: Tensor, frames: int) -> Entities:
        """The last `frames` of the stretches of labels, all entities; the ego's drive as its knots give it."""
        found = self.labelled.entities[self.labelled.stretch[label]]
        found = found.frames(found.valid.shape[1] - frames, frames)
        return redriven(found)

    def about(self, label: Tensor, frames: int) -> Entities:
        """The same, with those that the labels are about alone."""
        return self.stretch(label, frames).entities(self.labelled.about[label])

    def _labels(self, count: int, generator: torch.Generator) -> Tensor:
        name = self.names[int(torch.randint(len(self.names), (), generator=generator))]
        return self.of[name][torch.multinomial(self.rarity[name], count, generator=generator)]


def redriven(entities: Entities) -> Entities:
    """The same stretches, the ego's drive as its knots give it: no noise tells demonstrations from what is found."""
    return driven(entities, *fitted(entities))


def _rarity(bins: Tensor) -> Tensor:
    """One over how many share each one's bin, `(n,)`; bins that are nearly empty count no more than others do."""
    count = bins.bincount().clamp_min(FEW)
    return 1.0 / count[bins]


def _mask_of(about: Tensor) -> Tensor:
    """Number among `masks` of whom each label is about, `(label, 2)`."""
    lookup = {tuple(row.nonzero()[:, 0].tolist()[1:]): number for number, row in enumerate(masks(MOST_ENTITIES))}
    keys = [tuple(sorted(int(one) for one in row if one > 0)) for row in about.tolist()]
    return torch.tensor([lookup[key] for key in keys], dtype=torch.long)


def _gathered(place: Tensor, value: Tensor, count: int) -> Tensor:
    """By row: which values stand at its place, bool `(row, count)`."""
    _, group = torch.unique(place, return_inverse=True)
    found = torch.zeros(int(group.max()) + 1, count, dtype=torch.bool)
    found[group, value] = True
    return found[group]


def everybody(pairs: Tensor) -> Tensor:
    """Attention `(batch, entity)` to all."""
    return torch.ones_like(pairs[:, 0, 0, :, 0])


def energy_of(model: RelationEnergy, entities: Entities, code: Tensor) -> Tensor:
    """Energy `(batch,)` of entities all of whom are attended to."""
    pairs, counts = ego_relations(entities)
    return model(pairs, counts, everybody(pairs), code)


def taught(
    model: RelationEnergy,
    demonstrations: Entities,
    shots: int,
    config: InferenceConfig,
    noise: torch.Generator | None = None,
    differentiable: bool = False,
) -> Tensor:
    """Codes `(batch, code)` of `demonstrations (batch · shot, frame, entity)`, where all entities are attended to."""
    pairs, counts = ego_relations(demonstrations)
    return taught_code(model, pairs, counts, everybody(pairs), shots, config, noise, differentiable)


def loss_of(
    model: RelationEnergy,
    task: Task,
    shots: int,
    objective: ConceptObjectiveConfig,
    inference: InferenceConfig,
    noise: torch.Generator,
) -> dict[str, Tensor]:
    """The parts of the loss, and `loss`, their weighted sum."""
    code = taught(model, task.demonstrations, shots, inference, noise, differentiable=True)
    query = task.query.entities(task.about)
    low = energy_of(model, query, code)
    parts = {
        "masks": _contrast_of_masks(model, task, code),
        "concepts": _contrast_of_concepts(model, task, query, low, code, objective.others, noise),
        "shifted": softplus(low - energy_of(model, _shifted(query, noise), code)).mean(),
    }
    start, own = fitted(query)
    first = objective.first_mps2 * torch.randn(own.shape, generator=noise, device=noise.device)
    count = len(own) // 2
    first[:count] += own[:count]  # half of the samples begin near what was demonstrated
    held = code.detach()

    def energy(knots: Tensor) -> Tensor:
        return energy_of(model, driven(query, start, knots), held)

    found = inferred_drive(energy, first, inference, noise, differentiable=objective.sampler > 0)
    high = energy_of(model, driven(query, start, found.detach()), code)
    parts["drives"] = softplus(low - high).mean()
    if objective.sampler:
        pairs, counts = ego_relations(driven(query, start, found))
        parts["sampler"] = model.frozen(pairs, counts, everybody(pairs), held).mean()
    parts["magnitude"] = (low + high).mean()
    weights = {name: getattr(objective, name) for name in parts}
    total = sum((weights[name] * value for name, value in parts.items()), low.new_zeros(()))
    return {"loss": total, **parts, "low": low.mean().detach(), "high": high.mean().detach()}


def _contrast_of_masks(model: RelationEnergy, task: Task, code: Tensor) -> Tensor:
    pairs, counts = ego_relations(task.query)
    every = masks(MOST_ENTITIES).to(code)
    relations = model.relations(pairs, counts, code)
    energy = model.judged(relations, every.expand(len(code), -1, -1), code)
    there = possible_masks(task.query)
    return of_positives(torch.where(there, energy, LARGE), task.positives)


def possible_masks(entities: Entities, wanted: Tensor | None = None) -> Tensor:
    """Bool `(batch, mask)`: all whom a mask attends to are there throughout; of all `masks`, or `wanted`."""
    there = entities.valid.all(1).to(entities.along_m)  # (batch, entity)
    wanted = (masks(entities.valid.shape[2]) if wanted is None else wanted).to(there)
    return (there[:, None] >= wanted).all(-1)


def _contrast_of_concepts(
    model: RelationEnergy, task: Task, query: Entities, low: Tensor, code: Tensor, others: int, noise: torch.Generator
) -> Tensor:
    """Of the queries of the batch, the own one is low under a code; none in which the same concept holds is high."""
    batch = len(code)
    count = min(others, batch - 1)
    shift = 1 + torch.randperm(batch - 1, generator=noise, device=noise.device)[:count]
    other = (torch.arange(batch, device=shift.device)[:, None] + shift) % batch  # (batch, other)
    energy = energy_of(model, query[other.flatten()], code.repeat_interleave(count, 0)).view(batch, count)
    return against_others(low, ruled_out(energy, task.also[other], task.concept))


def _shifted(entities: Entities, noise: torch.Generator) -> Entities:
    """The others 0.3 to 2 s earlier or later, at the speed that they have."""
    drawn = torch.rand(len(entities.valid), 2, generator=noise, device=noise.device)
    shift_s = torch.where(drawn[:, 0] < 0.5, -1.0, 1.0) * (0.3 + 1.7 * drawn[:, 1])
    moved = entities.along_m + entities.speed_mps * shift_s[:, None, None]
    others = torch.cat([entities.along_m[:, :, :1], moved[:, :, 1:]], 2)
    return Entities(**{**vars(entities), "along_m": others})
