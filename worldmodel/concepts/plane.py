"""A small world: points of three colours in a square, and events in which a concept holds (Mordatch 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations

import torch
from torch import Tensor

from drivecast.worldmodel.concepts.plane_rules import BY_NAME, CONCEPTS, PlaneConcept, uniform
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.traffic import _TensorRecord

NOBODY = -1
FEWEST, MOST = 5, 8  # entities of a scene
FEWEST_ATTENDED, MOST_ATTENDED = 2, 4


@dataclass(frozen=True)
class Scenes(_TensorRecord):
    """Entities in the square [-1, 1]².

    Attributes:
        position: `(batch, time, entity, 2)`.
        colour: Long `(batch, entity)`; `NOBODY` where there is none.
    """

    position: Tensor
    colour: Tensor

    def of(self, index: Tensor) -> Scenes:
        """The entities `index (batch, n)` alone, `NOBODY`: none."""
        at = index.clamp_min(0)
        position = self.position.gather(2, at[:, None, :, None].expand(-1, self.position.shape[1], -1, 2))
        return Scenes(position, torch.where(index >= 0, self.colour.gather(1, at), NOBODY))


@dataclass(frozen=True)
class Events(_TensorRecord):
    """Scenes in which a concept holds.

    Attributes:
        position: `(event, time, MOST, 2)`.
        colour: Long `(event, MOST)`; `NOBODY` where there is none.
        attended: Long `(event, MOST_ATTENDED)`: of whom it holds, role by role, then `NOBODY`.
        moves: Bool `(event, MOST_ATTENDED)`: who of them is moved to make it hold.
        concept: Long `(event,)`, its number among `CONCEPTS`.
        positives: Bool `(event, mask)`, of whom it holds among `attentions()`; it may be several.
        also: Bool `(event, concept)`: which concepts hold of those attended to.
    """

    position: Tensor
    colour: Tensor
    attended: Tensor
    moves: Tensor
    concept: Tensor
    positives: Tensor
    also: Tensor

    @property
    def scenes(self) -> Scenes:
        """All entities."""
        return Scenes(self.position, self.colour)

    @property
    def alone(self) -> Scenes:
        """Those attended to, `MOST_ATTENDED` entities: all that the energy sees of a scene."""
        return self.scenes.of(self.attended)


@lru_cache(maxsize=8)
def attentions(size: int = 0) -> Tensor:
    """Every way to attend to `size` entities, or to 2 to 4 of them: bool `(mask, MOST)`, by size."""
    sizes = [size] if size else range(FEWEST_ATTENDED, MOST_ATTENDED + 1)
    chosen = [some for each in sizes for some in combinations(range(MOST), each)]
    found = torch.zeros(len(chosen), MOST, dtype=torch.bool)
    for row, some in enumerate(chosen):
        found[row, list(some)] = True
    return found


def possible(scenes: Scenes) -> Tensor:
    """Bool `(batch, mask)`: the attention is on entities that are there."""
    return ~(attentions().to(scenes.colour.device) & (scenes.colour < 0)[:, None]).any(-1)


def held(concept: PlaneConcept, scenes: Scenes) -> Tensor:
    """Bool `(batch, mask)`: of whom it holds, among `attentions()`."""
    roles = len(concept.colours)
    own = attentions(roles)
    index = own.nonzero()[:, 1].view(len(own), roles).to(scenes.colour.device)
    position = scenes.position[:, :, index].transpose(1, 2)  # (batch, mask, time, role, 2)
    found = torch.zeros(len(scenes.colour), len(attentions()), dtype=torch.bool, device=scenes.colour.device)
    found[:, attentions().sum(1) == roles] = concept.holds(position, scenes.colour[:, index])
    return found


def draw_events(names: Sequence[str], each: int, generator: torch.Generator) -> Events:
    """`each` events of every concept of `names`, which must have one number of frames.

    Raises:
        InputError: A name is unknown, or their numbers of frames differ.
    """
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        raise InputError(f"concepts of the plane: expected some of {', '.join(BY_NAME)}; got {', '.join(unknown)}")
    numbers = [BY_NAME[name] for name in names]
    if len({CONCEPTS[number].frames for number in numbers}) != 1:
        raise InputError("events of one batch: expected concepts of one number of frames; draw the others apart")
    drawn = Events.cat([_of_concept(number, each, generator) for number in numbers])
    alone, size = drawn.alone, (drawn.attended >= 0).sum(1)
    also = torch.zeros(len(size), len(CONCEPTS), dtype=torch.bool)
    for number, concept in enumerate(CONCEPTS):
        roles = len(concept.colours)
        same = size == roles
        also[same, number] = concept.holds(alone.position[same, :, :roles], alone.colour[same, :roles])
    return replace(drawn, also=also)


def _of_concept(number: int, count: int, generator: torch.Generator) -> Events:
    concept = CONCEPTS[number]
    roles = len(concept.colours)
    position = torch.zeros(0, concept.frames, roles, 2)
    while len(position) < count:
        more = concept.place(4 * count, generator)
        fine = (more.abs() <= 1.0).flatten(1).all(1) & (concept.deviation(more) <= 0.9)
        position = torch.cat([position, more[fine]])
    others = uniform(generator, count, 1, MOST - roles, 2).expand(-1, concept.frames, -1, -1)
    if concept.frames > 1:  # half of the others go somewhere
        share = torch.linspace(0.0, 1.0, concept.frames)[:, None, None]
        goes = (torch.rand(count, 1, MOST - roles, 1, generator=generator) < 0.5).to(others)
        others = others + share * goes * (uniform(generator, count, 1, MOST - roles, 2) - others)
    places = torch.cat([position[:count], others], 2)
    chosen = [torch.tensor(some)[torch.randint(len(some), (count,), generator=generator)] for some in concept.colours]
    colour = torch.cat([torch.stack(chosen, 1), torch.randint(3, (count, MOST - roles), generator=generator)], 1)
    size = torch.randint(max(FEWEST, roles + 1), MOST + 1, (count, 1), generator=generator)
    colour = torch.where(torch.arange(MOST) < size, colour, NOBODY)
    order = torch.rand(count, MOST, generator=generator).argsort(1)  # entity k of a scene is role `order[k]`
    scenes = Scenes(places, colour).of(order)
    attended = torch.full((count, MOST_ATTENDED), NOBODY)
    attended[:, :roles] = order.argsort(1)[:, :roles]
    moves = torch.zeros(count, MOST_ATTENDED, dtype=torch.bool)
    moves[:, :roles] = torch.tensor(concept.moves)
    of = torch.full((count,), number)
    positives, also = held(concept, scenes), torch.zeros(count, len(CONCEPTS), dtype=torch.bool)
    return Events(scenes.position, scenes.colour, attended, moves, of, positives, also)
