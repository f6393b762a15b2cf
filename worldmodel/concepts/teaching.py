"""Teaching a concept: the code, and whom it is about where nobody says so, from a few demonstrations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from drivecast.worldmodel.concepts.inference import inferred_code, masks
from drivecast.worldmodel.concepts.loading import ConceptModel, TaughtConcept
from drivecast.worldmodel.concepts.objective import possible_masks, redriven
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.entities import FRAME_S, Entities, entities_of, frame_stride
from drivecast.worldmodel.scene.relations import ego_relations
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState

LEAST_FRAMES = 6
MOST_FRAMES = 31
FARTHEST_M = 100.0  # beyond it nothing is told apart
KEPT = 16  # ways to choose whom the first demonstrations are about


@dataclass(frozen=True)
class Demonstration:
    """A stretch in which the ego does what is meant.

    Attributes:
        states: `(1, time, agent)`, the ego first, all of them there throughout.
        road: Of it.
        dt_s: Between two moments, s.
        about: Agents that it is about; empty: that is to be inferred.
    """

    states: TrafficState
    road: Road
    dt_s: float
    about: tuple[int, ...] = ()

    def entities(self) -> Entities:
        """What is seen of it.

        Raises:
            InputError: It is too short, too long, or about somebody far away.
        """
        stride = frame_stride(self.dt_s)
        found = entities_of(self.states[:, ::stride], self.road, self.dt_s * stride)
        if not LEAST_FRAMES <= found.valid.shape[1] <= MOST_FRAMES:
            given = (found.valid.shape[1] - 1) * FRAME_S
            raise InputError(f"demonstration: expected a stretch of 1 to 6 s, best of 3; got {given:g} s")
        for vehicle in self.about:
            apart = float((found.along_m[0, :, vehicle] - found.along_m[0, :, 0]).abs().max())
            if apart > FARTHEST_M:
                raise InputError(f"demonstration: whom it is about is {apart:.0f} m away; give somebody within 100 m")
        return redriven(found)


@dataclass(frozen=True)
class Fit:
    """How well a demonstration fits a concept: its energy, about whom, and how many other choices lie higher."""

    energy: float
    about: tuple[int, ...]
    higher: float


def taught_concept(
    model: ConceptModel, demonstrations: Sequence[Demonstration], name: str, words: Sequence[str], attends_to: int = 1
) -> tuple[TaughtConcept, list[Fit]]:
    """The concept that `demonstrations` have in common, and how well each fits it.

    Where some do not say whom they are about, code and attention are inferred together: those choices are kept under
    whose code the demonstrations lie lowest, compared with everybody else.

    Raises:
        InputError: They are about different numbers of vehicles, or show too few.
    """
    counts = {len(each.about) for each in demonstrations if each.about}
    if len(counts) > 1:
        raise InputError("demonstration: expected all of them to be about as many vehicles")
    attends_to = counts.pop() if counts else attends_to
    seen = [_Seen.of(each, attends_to) for each in demonstrations]
    code, choices = _searched(model, seen)
    fits = [one.fit(model, code, choice) for one, choice in zip(seen, choices, strict=True)]
    mean = sum(fit.energy for fit in fits) / len(fits)
    concept = TaughtConcept(name, code.cpu(), attends_to, model.reference, model.digest, tuple(words), round(mean, 6))
    return concept, fits


@dataclass(frozen=True)
class _Seen:
    """A demonstration as the energy sees it."""

    pairs: Tensor  # (1, frame, 1, entity, feature)
    counts: Tensor
    masks: Tensor  # (mask, entity), of all whom it could be about
    choices: tuple[int, ...]  # numbers of the masks that are not ruled out

    @staticmethod
    def of(shown: Demonstration, attends_to: int) -> _Seen:
        entities = shown.entities()
        pairs, counts = ego_relations(entities)
        agents = entities.valid.shape[2]
        if agents <= attends_to:
            raise InputError(f"demonstration: expected at least {attends_to} other vehicles near the ego")
        every = masks(agents, (attends_to,))
        if shown.about:
            wanted = torch.zeros(every.shape[1])
            wanted[[0, *shown.about]] = 1.0
            choices = (every == wanted).all(1).nonzero()[:, 0]
        else:
            choices = possible_masks(entities, every)[0].nonzero()[:, 0]
        return _Seen(pairs, counts, every, tuple(choices.tolist()))

    def energies(self, model: ConceptModel, code: Tensor) -> Tensor:
        """Under every mask, `(code, mask)`."""
        size = len(code)
        relations = model.energy.relations(
            self.pairs.expand(size, *self.pairs.shape[1:]), self.counts.expand(size, *self.counts.shape[1:]), code
        )
        return model.energy.judged(relations, self.masks.to(code).expand(size, -1, -1), code)

    @torch.no_grad()
    def fit(self, model: ConceptModel, code: Tensor, choice: int) -> Fit:
        energy = self.energies(model, code[None])[0]
        about = tuple(int(each) for each in self.masks[choice].nonzero()[:, 0] if each > 0)
        others = torch.cat([energy[:choice], energy[choice + 1 :]])
        higher = float((others > energy[choice]).float().mean()) if len(others) else 1.0
        return Fit(float(energy[choice]), about, higher)


def _searched(model: ConceptModel, seen: Sequence[_Seen]) -> tuple[Tensor, tuple[int, ...]]:
    """The code, and whom each demonstration is about: of one demonstration more at a time, the best ways are kept."""
    ways: list[tuple[int, ...]] = [()]
    code = model.energy.log_code_step[:0]
    for number, one in enumerate(seen):
        ways = [(*way, choice) for way in ways for choice in one.choices]
        codes, score = _codes(model, seen[: number + 1], ways)
        order = score.argsort()[:KEPT].tolist()
        ways, code = [ways[each] for each in order], codes[order[0]]
    return code, ways[0]


def _codes(model: ConceptModel, seen: Sequence[_Seen], choices: Sequence[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
    """The code of each way to choose whom the demonstrations are about, and its score: low where they stand out."""
    picked = torch.tensor(choices)  # (choice, demonstration)

    def of_all(code: Tensor) -> list[Tensor]:
        return [one.energies(model, code) for one in seen]

    def energy(code: Tensor) -> Tensor:
        found = [one.gather(1, picked[:, n : n + 1])[:, 0] for n, one in enumerate(of_all(code))]
        return torch.stack(found).mean(0)

    code = inferred_code(model.energy, energy, len(choices), model.inference)
    with torch.no_grad():
        stands_out = [
            one.gather(1, picked[:, n : n + 1])[:, 0] + torch.logsumexp(-one, 1) for n, one in enumerate(of_all(code))
        ]
    return code, torch.stack(stands_out).mean(0)
