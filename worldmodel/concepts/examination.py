"""How well a taught concept is recognised: whom it is about in an unseen stretch, and in which stretches it holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from drivecast.worldmodel.concepts.demonstrations import Labelled
from drivecast.worldmodel.concepts.inference import InferenceConfig, masks
from drivecast.worldmodel.concepts.objective import Task, Tasks, energy_of, possible_masks, taught
from drivecast.worldmodel.concepts.relation_energy import RelationEnergy
from drivecast.worldmodel.concepts.rules import NOBODY
from drivecast.worldmodel.scene.entities import MOST_ENTITIES, Entities
from drivecast.worldmodel.scene.relations import ego_relations

POOL_OF_EACH = 40
NEVER = 1e9


@dataclass(frozen=True)
class Recognition:
    """Of one concept, means over its tasks.

    Attributes:
        tasks: How many.
        identified: Share of stretches in which the lowest attention is one of whom it holds.
        iou: Intersection over union of the attention found and the nearest true one.
        by_chance: `identified` of somebody picked at random.
        retrieval: Probability that a stretch where it holds lies lower than one where it does not (AUROC).
    """

    tasks: int
    identified: float
    iou: float
    by_chance: float
    retrieval: float


# Of demonstrations (task · shot, frame, entity): scores, low on what is alike, of stretches with all entities under
# every mask (task, mask), and of a pool of stretches (task, pool) whose entities are all attended to.
Recogniser = Callable[[Entities, int, Entities, Entities], tuple[Tensor, Tensor]]


def by_energy(model: RelationEnergy, inference: InferenceConfig) -> Recogniser:
    """Recognition by the energy under codes that are inferred from the demonstrations."""

    def recognise(shown: Entities, shots: int, query: Entities, pool: Entities) -> tuple[Tensor, Tensor]:
        code = taught(model, shown, shots, inference)
        return by_code(model, code, query, pool)

    return recognise


@torch.no_grad()
def by_code(model: RelationEnergy, code: Tensor, query: Entities, pool: Entities) -> tuple[Tensor, Tensor]:
    """Energies under given codes `(task, code)`; see `Recogniser`."""
    pairs, counts = ego_relations(query)
    every = masks(MOST_ENTITIES).to(code)
    of_masks = model.judged(model.relations(pairs, counts, code), every.expand(len(code), -1, -1), code)
    return of_masks, of_pool(model, code, pool)


@torch.no_grad()
def of_pool(model: RelationEnergy, code: Tensor, pool: Entities) -> Tensor:
    """Energy of each stretch under each code, `(code, stretch)`."""
    size = len(pool.valid)
    return torch.stack([energy_of(model, pool, one.expand(size, -1)) for one in code])


def examined(
    model: RelationEnergy,
    unseen: Labelled,
    names: Sequence[str],
    shots: int,
    tasks: int,
    inference: InferenceConfig,
    seed: int,
) -> dict[str, Recognition]:
    """Recognition of each concept with enough labels in `unseen`; see `recognised`."""
    return recognised(by_energy(model, inference), unseen, names, shots, tasks, seed, model.log_code_step.device)


def recognised(
    recognise: Recogniser,
    unseen: Labelled,
    names: Sequence[str],
    shots: int,
    tasks: int,
    seed: int,
    device: torch.device | str = "cpu",
) -> dict[str, Recognition]:
    """Recognition of each concept, `tasks` times from `shots` demonstrations, all of them from `unseen`.

    Who demonstrates is never the ego of a stretch that is judged.

    Stretches to be told apart come from all concepts, a set number of each; somebody of the same stretch whom the
    concept does not hold of counts as somebody else.
    """
    generator = torch.Generator().manual_seed(seed)
    every = Tasks(unseen, unseen.names, shots)
    frames = unseen.entities.valid.shape[1]
    shows = unseen.shown()
    judges = ~shows if bool((~shows).any()) else shows
    labels = torch.cat([_some(found[judges[found]], POOL_OF_EACH, generator) for found in every.of.values()])
    pool, holds = every.about(labels, frames).to(device), every.also[labels]
    found = {}
    for name in names:
        available = every.of.get(name, labels[:0])
        to_show, to_judge = available[shows[available]], available[judges[available]]
        if len(to_show) < shots or not len(to_judge):
            continue
        drawn = torch.stack(
            [torch.cat([_some(to_show, shots, generator), _some(to_judge, 1, generator)]) for _ in range(tasks)]
        )
        task = every.of_labels(drawn, frames)
        of_masks, of_stretches = recognise(task.demonstrations.to(device), shots, task.query.to(device), pool)
        found[name] = _measured(task, of_masks.cpu(), of_stretches.cpu(), holds[:, unseen.names.index(name)])
    return found


@dataclass(frozen=True)
class Combination:
    """Two concepts of one entity at once: AUROC of the sum of their energies, and of each of them alone."""

    stretches: int  # where both hold
    together: float
    first: float
    second: float


def combined(
    model: RelationEnergy,
    unseen: Labelled,
    pairs: Sequence[tuple[str, str]],
    shots: int,
    tasks: int,
    inference: InferenceConfig,
    seed: int,
) -> dict[str, Combination]:
    """Retrieval of stretches in which both of a pair hold, by concepts that were taught apart.

    No demonstration of one is one of the other; in the training of the energy some were.
    """
    generator = torch.Generator().manual_seed(seed)
    every = Tasks(unseen, unseen.names, shots)
    frames = unseen.entities.valid.shape[1]
    shows = unseen.shown()
    found = {}
    for pair in pairs:
        if any(name not in every.of for name in pair):
            continue
        numbers = [unseen.names.index(name) for name in pair]
        both = every.also[:, numbers].all(1)
        either, twice = torch.cat([every.of[name] for name in pair]), both.nonzero()[:, 0]
        labels = torch.cat([_some(each, 2 * POOL_OF_EACH, generator) for each in (either, twice, *every.of.values())])
        labels = labels[~shows[labels]]
        pool, holds = every.about(labels, frames), both[labels]
        if not holds.any():
            continue
        energies = []
        for name in pair:
            alone = every.of[name][shows[every.of[name]] & ~both[every.of[name]]]
            shown = torch.cat([_some(alone, shots, generator) for _ in range(tasks)])
            code = taught(model, every.about(shown, frames), shots, inference)
            energies.append(of_pool(model, code, pool))
        together, first, second = (_auroc(each, holds) for each in (energies[0] + energies[1], *energies))
        found[" + ".join(pair)] = Combination(int(holds.sum()), together, first, second)
    return found


def _auroc(energy: Tensor, holds: Tensor) -> float:
    """Probability that a stretch where it holds lies lower; `energy (task, stretch)`."""
    inside, outside = energy[:, holds], energy[:, ~holds]
    lower = (inside[:, :, None] < outside[:, None]).float() + 0.5 * (inside[:, :, None] == outside[:, None])
    return lower.mean().item()


def _some(values: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return values[torch.randperm(len(values), generator=generator)[:count]]


def _measured(task: Task, of_masks: Tensor, of_stretches: Tensor, holds: Tensor) -> Recognition:
    every = masks(MOST_ENTITIES)
    # who was shown says how many it is about
    count = 1 + (task.about != NOBODY).sum(1)
    allowed = possible_masks(task.query) & (every.sum(1) == count[:, None])
    picked = of_masks.masked_fill(~allowed, NEVER).argmin(1)
    row = torch.arange(len(picked))
    mine, true = every[picked][:, None, 1:], every[None, :, 1:]
    overlap = (mine * true).sum(-1) / (mine + true).clamp_max(1.0).sum(-1)
    iou = overlap.masked_fill(~task.positives, 0.0).amax(1)
    chance = (task.positives & allowed).sum(1) / allowed.sum(1).clamp_min(1)
    return Recognition(
        tasks=len(picked),
        identified=task.positives[row, picked].float().mean().item(),
        iou=iou.mean().item(),
        by_chance=chance.float().mean().item(),
        retrieval=_auroc(of_stretches, holds),
    )
