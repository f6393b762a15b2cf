"""A taught concept as a term of the energy: the ego is to drive so that it holds of somebody."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from drivecast.planner.costs.energy import Term
from drivecast.planner.costs.trajectory import Trajectory
from drivecast.worldmodel.concepts.inference import masks
from drivecast.worldmodel.concepts.loading import TaughtConcept, load_concepts
from drivecast.worldmodel.concepts.relation_energy import RelationEnergy
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.loading import PRETRAINED
from drivecast.worldmodel.scene.entities import entities_of, frame_stride
from drivecast.worldmodel.scene.relations import ego_relations
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState

LEAST_FRAMES = 2
DEFAULT_WEIGHT = 1.0


class ConceptScore(ABC):
    """A score that is about somebody, of a stretch whose every frame counts alike.

    Args:
        number: Of the concept among those that the goal speaks of (`Goal.attended`).
    """

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, trajectory: Trajectory) -> Tensor | None:
        """`(batch, time)`: about whom the goal says, elsewhere about whom it is lowest of."""
        states, told = trajectory.states, trajectory.goal.attended
        told = None if told is None else told[:, self.number]
        energy, _ = self.judged(states, trajectory.road, trajectory.dt_s, told)
        return energy[:, None].expand(-1, states.valid.shape[1])

    @abstractmethod
    def judged(
        self, states: TrafficState, road: Road, dt_s: float, told: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Energy `(batch,)` of `states (batch, time, agent)`, and whom it is about, bool `(batch, agent)`.

        `told (batch, agent)` says so where any of its row is True.
        """


@dataclass(frozen=True)
class ConceptTerm(Term):
    """A concept with its name and its weight in the sum."""

    score: ConceptScore


def concept_terms(texts: Sequence[str], device: str = "cpu") -> list[ConceptTerm]:
    """The terms of concepts, each `FILE` or `FILE=WEIGHT`: `concept NAME`, or `concept NUMBER NAME`.

    Raises:
        InputError: A file is missing or damaged, a weight no number from 0 on, or the energy that a concept was taught
            under is gone or another one.
    """
    terms: list[ConceptTerm] = []
    for number, text in enumerate(texts):
        path, weight = _file_and_weight(text)
        concept = TaughtConcept.read(path)
        model = _energy_of(concept, path, device)
        if len(concept.code) != model.config.code_dims:
            raise InputError(
                f"{path}: a code of {len(concept.code)} numbers, but its energy takes others; teach it again"
            )
        name = f"concept {concept.name}"  # never the name of a driving cost
        if any(term.name == name for term in terms):
            name = f"concept {number + 1} {concept.name}"
        terms.append(ConceptTerm(name, Concept(model, concept.code.to(device), concept.attends_to, number), weight))
    return terms


def concept_digests(texts: Sequence[str]) -> list[str]:
    """What plans depend on of concepts, each `FILE` or `FILE=WEIGHT`, wherever the files lie.

    Raises:
        InputError: As `concept_terms`.
    """
    found = []
    for text in texts:
        path, weight = _file_and_weight(text)
        concept = TaughtConcept.read(path)
        found.append(f"{concept.digest} {concept.attends_to} {weight} {concept.code.tolist()}")
    return found


def _file_and_weight(text: str) -> tuple[Path, float]:
    path, equals, number = text.rpartition("=")
    if not equals or Path(text).is_file():
        return Path(text), DEFAULT_WEIGHT
    try:
        weight = float(number)
    except ValueError:
        weight = -1.0
    if not 0.0 <= weight < math.inf:
        raise InputError(f"concept '{text}': expected FILE or FILE=WEIGHT with a weight from 0 on")
    return Path(path), weight


def _energy_of(concept: TaughtConcept, path: Path, device: str) -> RelationEnergy:
    """The energy that a concept was taught under: where it was then, or beside the concept's file."""
    if concept.model.startswith(PRETRAINED):
        there: list[Path | str] = [concept.model]
    else:
        places = [Path(concept.model), path.parent / Path(concept.model).name]
        there = [place for place in places if place.is_file()]
    if not there:
        raise InputError(
            f"{path}: the energy that it was taught under, {concept.model}, is gone; put it beside the file"
        )
    for place in there:
        model = load_concepts(place, device)
        if model.digest == concept.digest:
            return model.energy
    raise InputError(f"{path}: {there[0]} has been trained anew since it was taught; teach it again")


class Concept(ConceptScore):
    """The energy of a concept in a driven stretch.

    Where the goal says whom it is about (`Goal.attended`), that is so; elsewhere it is about whom it is lowest of: the
    energy is then the free energy over attention at zero temperature.

    Args:
        model: The energy of concepts, frozen.
        code: Of this concept, `(code,)`.
        attends_to: How many others it is about, one or two.
        number: Of the concept among those that the goal speaks of.
    """

    def __init__(self, model: RelationEnergy, code: Tensor, attends_to: int = 1, number: int = 0) -> None:
        super().__init__(number)
        self.model, self.code, self.attends_to = model, code, attends_to

    def __call__(self, trajectory: Trajectory) -> Tensor | None:
        """`(batch, time)`; None where the stretch is shorter than two frames, or too few are there."""
        time, agents = trajectory.states.valid.shape[1:]
        if len(range(0, time, frame_stride(trajectory.dt_s))) < LEAST_FRAMES or agents <= self.attends_to:
            return None
        return super().__call__(trajectory)

    def judged(
        self, states: TrafficState, road: Road, dt_s: float, told: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `ConceptScore`."""
        stride = frame_stride(dt_s)
        pairs, counts = ego_relations(entities_of(states[:, ::stride], road, dt_s * stride))
        code = self.code.to(pairs).expand(len(pairs), -1)
        relations = self.model.relations(pairs, counts, code)
        told = torch.zeros_like(counts[:, 0, 0]) if told is None else told
        knows = told.any(1)
        energy = self.model.judged(relations, told.to(pairs), code)
        if bool(knows.all()):
            return energy, told
        found, about = self._lowest(relations, counts.any(1)[:, 0], code)
        return torch.where(knows, energy, found), torch.where(knows[:, None], told, about)

    def _lowest(self, relations: Tensor, there: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        """The lowest energy over whom it could be about, of those who are `there (batch, agent)`; and who that is."""
        every = masks(there.shape[1], (self.attends_to,)).to(relations)
        of_all = self.model.judged(relations, every.expand(len(there), -1, -1), code)
        others = every.bool()
        others[:, 0] = False
        possible = (there[:, None] | ~others).all(-1)
        energy, which = torch.where(possible, of_all, torch.inf).min(1)
        someone = possible.any(1)
        return torch.where(someone, energy, 0.0), others[which] & someone[:, None]
