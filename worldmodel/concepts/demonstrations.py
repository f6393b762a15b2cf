"""Stretches of recorded traffic in which a concept holds, and of whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from drivecast.worldmodel.concepts.rules import NOBODY, RULES, Rule, Standing
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.scene.entities import MOST_ENTITIES, Entities, entities_of, frame_stride

STRETCH_S = 3.0
AT_ONCE, VEHICLES = 512, 1_000_000
FASTEST_MPS, SLOWEST_MPS = 35.0, 2.0


@dataclass(frozen=True)
class Labelled:
    """Stretches with what holds in them.

    Attributes:
        entities: `(stretch, frame, entity)`.
        stretch: Long `(label,)`. Of which each label is.
        concept: Long `(label,)`. Its number among `names`.
        about: Long `(label, 2)`. The entities that it is about; `NOBODY` for none.
        names: Of the concepts.
    """

    entities: Entities
    stretch: Tensor
    concept: Tensor
    about: Tensor
    names: tuple[str, ...]

    def of(self, name: str) -> Tensor:
        """Numbers of the labels of one concept."""
        return (self.concept == self.names.index(name)).nonzero()[:, 0]

    def counts(self) -> dict[str, int]:
        """How many labels each concept has."""
        return {name: int((self.concept == number).sum()) for number, name in enumerate(self.names)}

    def shown(self) -> Tensor:
        """Bool `(label,)`: of an ego of the half that demonstrates; those of the other half are judged.

        By the ego's track, so that no moment is in both. Everybody, where tracks are not known.
        """
        if self.entities.track is None:
            return torch.ones_like(self.stretch, dtype=torch.bool)
        return ((self.entities.track * 7919) // 8 % 2 == 0)[self.stretch]


def labelled(entities: Entities, rules: Sequence[Rule] = RULES) -> Labelled:
    """What holds in `entities (stretch, frame, entity)`."""
    standing = Standing.of(entities)
    stretches, concepts, about = [], [], []
    for number, rule in enumerate(rules):
        holds = rule.holds(standing)
        partner = rule.partner(standing)
        if rule.pair:
            holds = holds & (partner != NOBODY)[:, None]
        stretch, entity = holds.nonzero(as_tuple=True)
        stretches.append(stretch)
        concepts.append(torch.full_like(stretch, number))
        about.append(torch.stack([entity, partner[stretch]], 1))
    names = tuple(rule.name for rule in rules)
    return Labelled(entities, torch.cat(stretches), torch.cat(concepts), torch.cat(about), names)


def with_other_speeds(entities: Entities, most: float, generator: torch.Generator) -> Entities:
    """Each stretch twice: as it is, and with lengths along the road and speeds up to `most` times as large or small.

    Speeds stay possible ones. Rules are applied afterwards, so that labels stay true.
    """
    exponent = 2.0 * torch.rand(len(entities.valid), generator=generator) - 1.0
    factor = most**exponent
    speed = entities.speed_mps[:, :, 0].amax(1).clamp_min(0.1)
    low, high = (SLOWEST_MPS / speed).clamp_max(1.0), (FASTEST_MPS / speed).clamp_min(1.0)
    return Entities.cat([entities, entities.scaled(factor.clamp_min(low).clamp_max(high))])


def stretches(
    stores: Sequence[WindowStore], split: str, most: int, generator: torch.Generator, duration_s: float = STRETCH_S
) -> Entities:
    """About `most` stretches of `split`, as many of each store, drawn evenly from where its vehicles are.

    Raises:
        InputError: No track lasts so long.
    """
    found = []
    available = []
    for store in stores:
        steps = round(duration_s / store.dt_s)
        available.append(store.rows(split, 1, steps))
    total = sum(len(rows) for rows in available)
    if not total:
        raise InputError(f"split '{split}' holds no track of {duration_s:g} s; record longer, or give another store")
    for number, (store, rows) in enumerate(zip(stores, available, strict=True)):
        if not len(rows):
            continue
        stride, steps = frame_stride(store.dt_s), round(duration_s / store.dt_s)
        share = min(max(1, round(most / len(stores))), len(rows))
        picked = rows[torch.randperm(len(rows), generator=generator)[:share]]
        for part in picked.split(AT_ONCE):
            window = store.window(store.frame_of(part), 1, steps, MOST_ENTITIES, part)
            states = type(window.future).cat([window.history, window.future], 1)
            if states.valid.shape[2] < MOST_ENTITIES:
                short = MOST_ENTITIES - states.valid.shape[2]
                padding = states[:, :, :1].map(lambda values, n=short: values.expand(-1, -1, n, *values.shape[3:]))
                padding = replace(padding, valid=torch.zeros_like(padding.valid))
                states = type(states).cat([states, padding], 2)
            entities = entities_of(states[:, ::stride], window.road, store.dt_s * stride)
            vehicle = store.recording_of(part) * VEHICLES + store.vehicle_id(part) % VEHICLES
            found.append(replace(entities, track=(number * VEHICLES * VEHICLES + vehicle).long()))
    return Entities.cat(found)
