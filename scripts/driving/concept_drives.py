"""Driving by a concept in every way that is compared: one part is one concept, one way, one draw of demonstrations."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from drivecast.envs.batched.traffic import BatchedHighwayTraffic
from drivecast.planner.costs.concept import Concept, ConceptTerm
from drivecast.planner.costs.concept_rule import ConceptByRule
from drivecast.planner.planning.driver import GradientPlanner, PlannerConfig
from drivecast.scripts.driving.concept_trials import Outcome, drive, trials
from drivecast.worldmodel.concepts.demonstrations import STRETCH_S, Labelled, labelled, stretches
from drivecast.worldmodel.concepts.ego_drive import KNOTS
from drivecast.worldmodel.concepts.loading import load_concepts
from drivecast.worldmodel.concepts.objective import Tasks, taught
from drivecast.worldmodel.concepts.rivals import NearestDrive, Regressor
from drivecast.worldmodel.concepts.rules import BY_NAME, NOBODY
from drivecast.worldmodel.forecaster.loading import load_world_model
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.scene.driver import Driver
from drivecast.worldmodel.scene.entities import Entities, entities_of, frame_stride
from drivecast.worldmodel.scene.kinematics import steering_for, within_limits
from drivecast.worldmodel.scene.lane_neighbours import pick_agents
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState, along_and_left

WAYS = ("none", "energy", "rule", "random", "regressor", "nearest")
DECIDE_S = 0.5
DEMONSTRATED = 20_000  # stretches among which demonstrations are looked for
LATERAL_GAIN = 1.5  # 1/s, by which a sideways speed that is wanted is reached


@dataclass(frozen=True)
class ConceptDrive:
    """One concept, asked for in one way.

    Attributes:
        concept: Name of its rule.
        way: One of `WAYS`: the taught energy; the rule as a cost; a random code; no concept at all; what the nearest
            demonstration did; a regressor.
        shots: Demonstrations.
        draw: Which demonstrations.
        concepts: File of the energy.
        regressor: File of its weights; only for that way.
        data: Stores whose `split` shows the demonstrations.
        split: Of the stores.
        world_model: In which is planned.
        weight: Of the concept in the energy of plans.
        count: Trials.
        first_seed: From which on scenes are looked at.
    """

    concept: str
    way: str
    shots: int
    draw: int
    concepts: Path
    regressor: Path
    data: tuple[Path, ...]
    split: str
    world_model: str
    weight: float
    count: int
    first_seed: int

    def run(self) -> Outcome:
        """Drive its trials."""
        torch.set_num_threads(1)
        rule = BY_NAME[self.concept]
        traffic = BatchedHighwayTraffic("highway-v0", vehicles=20, mixed=True)
        return drive(traffic, self._driver(), rule, trials(traffic, rule, self.count, self.first_seed))

    def demonstrations(self) -> Entities:
        """The stretches shown, `(shot, frame, 3)`."""
        tasks = _tasks(self.data, self.split)
        available = tasks.of[self.concept]
        generator = torch.Generator().manual_seed(1000 * self.draw + self.shots)
        label = available[torch.randperm(len(available), generator=generator)[: self.shots]]
        return tasks.about(label, tasks.labelled.entities.valid.shape[1])

    def _driver(self) -> Driver:
        if self.way == "nearest":
            return Imitator(NearestDrive.of(self.demonstrations()))
        if self.way == "regressor":
            network = Regressor()
            network.load_state_dict(torch.load(self.regressor, weights_only=True))
            code = network.shown.of_tasks(self.demonstrations(), self.shots).detach()

            def knots(now: Entities) -> tuple[Tensor, Tensor]:
                found = network(now, code.expand(len(now.valid), -1)).detach()
                return found, torch.full((len(found),), STRETCH_S)

            return Imitator(knots)
        attends_to = 2 if BY_NAME[self.concept].pair else 1
        terms = []
        if self.way in ("rule", "none"):  # without any, the same plans are offered
            weight = self.weight if self.way == "rule" else 0.0
            terms = [ConceptTerm(self.concept, ConceptByRule(BY_NAME[self.concept]), weight)]
        elif self.way in ("energy", "random"):
            model = load_concepts(self.concepts)
            code = taught(model.energy, self.demonstrations(), self.shots, model.inference)[0]
            if self.way == "random":  # as large as the one that is meant
                seed = zlib.crc32(f"{self.concept}/{self.draw}".encode())
                other = torch.randn(code.shape, generator=torch.Generator().manual_seed(seed))
                code = other * code.norm() / other.norm()
            terms = [ConceptTerm(self.concept, Concept(model.energy, code, attends_to), self.weight)]
        return GradientPlanner(load_world_model(self.world_model), PlannerConfig(), concepts=terms)


@lru_cache(maxsize=2)
def _tasks(data: tuple[Path, ...], split: str) -> Tasks:
    stores = [WindowStore.open(folder) for folder in data]
    found: Labelled = labelled(stretches(stores, split, DEMONSTRATED, torch.Generator().manual_seed(0)))
    return Tasks(found, found.names, 5)


class Imitator:
    """Drives by knots that something gives for how those meant stand now; anew every 0.5 s. No planning, no safety.

    Args:
        knots: Of entities `(batch, frame, 3)`, the ego and the two that are meant: `(batch, knot, 2)`, m/s², and over
            how long they are spread, `(batch,)`, s.
    """

    name = "imitator"
    history_steps = 4

    def __init__(self, knots: Callable[[Entities], tuple[Tensor, Tensor]]) -> None:
        self._knots_of = knots

    def reset(self, scene: TrafficState, road: Road, goal: Goal) -> None:
        assert goal.attended is not None
        self._about = _two(goal.attended[:, 0], scene)
        self._steps, self._dt_s = 0, 0.1

    def act(self, history: TrafficState, road: Road, goal: Goal) -> Controls:
        since = self._steps % max(1, round(DECIDE_S / self._dt_s))
        scene = history[:, -1]
        if since == 0:
            knots, self._long_s = self._knots_of(self._now(history, road))
            self._knots = knots.to(scene.speed_mps)
            there = road.project(scene.position_m[:, :1])
            self._sideways = scene.speed_mps[:, 0] * (scene.heading_rad[:, 0] - there.heading_rad[:, 0]).sin()
        self._steps += 1
        place = (since * self._dt_s / self._long_s * (KNOTS - 1)).clamp_max(KNOTS - 1.001).to(scene.speed_mps)
        low = place.floor().long()
        row = torch.arange(len(low))
        added = torch.lerp(self._knots[row, low], self._knots[row, low + 1], (place - low)[:, None])
        self._sideways = self._sideways + added[:, 1] * self._dt_s
        heading = road.project(scene.position_m[:, :1]).heading_rad[:, 0]
        drift = scene.speed_mps[:, 0] * (scene.heading_rad[:, 0] - heading).sin()
        lateral = added[:, 1] + LATERAL_GAIN * (self._sideways - drift)
        steering = steering_for(lateral, scene.speed_mps[:, 0], scene.length_m[:, 0])
        return within_limits(Controls(added[:, 0], steering), scene.speed_mps[:, 0], self._dt_s)

    def _now(self, history: TrafficState, road: Road) -> Entities:
        index = torch.cat([torch.zeros_like(self._about[:, :1]), self._about.clamp_min(0)], 1)
        seen = pick_agents(history, index)
        there = torch.cat([torch.ones_like(self._about[:, :1]), self._about], 1) != NOBODY
        seen = replace(seen, valid=seen.valid & there[:, None])
        stride = frame_stride(self._dt_s)
        frames = seen[:, (seen.valid.shape[1] - 1) % stride :: stride]  # the present last
        return entities_of(frames, road, self._dt_s * stride).map(_single)


def _single(values: Tensor) -> Tensor:
    return values.float() if values.is_floating_point() else values


def _two(attended: Tensor, scene: TrafficState) -> Tensor:
    """Those attended to, the one farther ahead first, long `(batch, 2)`; `NOBODY` where there is none."""
    ahead, _ = along_and_left(scene.position_m - scene.position_m[:, :1], scene.direction[:, :1])
    order = ahead.masked_fill(~attended, -torch.inf).topk(2, 1)
    return torch.where(order.values.isfinite(), order.indices, NOBODY)
