"""The planner as a Driver: it searches manoeuvres in imagination, refines the best by gradient, and drives it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from drivecast.planner.costs.concept import ConceptTerm, concept_terms
from drivecast.planner.costs.energy import PLANNING_ENERGY, Energy, EnergyConfig
from drivecast.planner.imagination.rule_world import RuleWorld
from drivecast.planner.imagination.world import HeldWorld, World
from drivecast.planner.manoeuvres.manoeuvre import LawConfig, Manoeuvre, with_added
from drivecast.planner.planning.knots import Improvement
from drivecast.planner.planning.refinement import Refinement, RefinementConfig
from drivecast.planner.planning.sampling import Sampling, SamplingConfig
from drivecast.planner.planning.search import Found, ManoeuvreSearch, SearchConfig
from drivecast.planner.planning.weighing import weighed
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.draws import LatentDraws
from drivecast.worldmodel.forecaster.model import WorldModel
from drivecast.worldmodel.scene.driver import Imagination, Weighed
from drivecast.worldmodel.scene.lane_neighbours import nearest_indices, pick_agents, pick_attended
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState

# What a search offers where a concept may ask for more than to get on: to follow farther behind, to fall back
SLOWER_MPS, TIME_GAPS_S = (0.0, 3.0), (0.3, 1.2)
STRETCHES_PER_PIECE = 2  # the first one has few plans, and a rollout with its gradient takes as long as two


@dataclass(frozen=True)
class PlannerConfig:
    """The planner.

    Args:
        decide_every_s: Time between two searches, s; in between, the chosen plan is driven by its laws.
        max_agents: Vehicles imagined, the ego and the nearest to it.
        spread: Spread the work of a decision over the steps until the next one, so that none of them waits for all of
            it; until it is done the plan before is driven. If False, each decision is made in one step.
        energy: What plans cost. Its proximity is the room that the planner keeps, not the room that is comfortable.
        law: How manoeuvres are carried out.
        search: The search among manoeuvres.
        refinement: What gradients add to the plan; of the planner that takes them.
        sampling: What samples add to the plan; of the planner that takes those.
        concepts: Taught concepts that plans are to fulfil, each FILE or FILE=WEIGHT. With them, where search.slower_mps
            is not set, plans may also follow at 1.2 s, and keep the present speed or 3 m/s less.
    """

    decide_every_s: float = 0.5
    max_agents: int = 16
    spread: bool = True
    energy: EnergyConfig = field(default_factory=lambda: PLANNING_ENERGY)
    law: LawConfig = field(default_factory=LawConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    refinement: RefinementConfig = field(default_factory=RefinementConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    concepts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.decide_every_s <= 0 or self.max_agents < 2:
            raise InputError("planner: expected decide_every_s above 0 and max_agents of at least 2")


@dataclass(frozen=True)
class _Driven:
    """The plan that is driven, of each episode."""

    plan: Manoeuvre
    lanes: Tensor  # (episode, stretch)
    added: Tensor  # (episode, step, 2), m/s²
    found_at: int  # step from which its stretches count
    refined_at: int  # step from which what is added counts
    found: Found | None = None  # what it was chosen from


class Planner(ABC):
    """Model-predictive control in some world.

    Every `decide_every_s` it searches sequences of manoeuvres in that world's futures (`ManoeuvreSearch`), lowers the
    energy of the best one by gradient (`Refinement`) and goes over to it. Meanwhile it carries the plan before out by
    the same laws, on what it sees; to begin with that is to keep the lane.

    Args:
        config: The planner.
        dt_s: Time step of the world and between two calls, s.
        name: The driver's.
        device: Where it computes.
        concepts: Concepts that plans are to fulfil, beside those that `config` names.
    """

    history_steps = 20

    def __init__(
        self,
        config: PlannerConfig,
        dt_s: float,
        name: str,
        device: torch.device | str = "cpu",
        concepts: Sequence[ConceptTerm] = (),
    ) -> None:
        self.config, self.dt_s, self.name = config, dt_s, name
        self.device = torch.device(device)
        self.concepts = [*concept_terms(config.concepts, str(self.device)), *concepts]
        self.energy = Energy(config.energy, self.concepts)
        search = config.search
        if self.concepts and not search.slower_mps:
            gaps = TIME_GAPS_S if search.time_gaps_s == SearchConfig.time_gaps_s else search.time_gaps_s
            search = replace(search, slower_mps=SLOWER_MPS, time_gaps_s=gaps)
        self.search = ManoeuvreSearch(search, config.law, self.energy, dt_s)
        self.decide_every = max(1, round(config.decide_every_s / dt_s))
        self._steps = 0

    @property
    def chosen_lane(self) -> Tensor:
        """The lane that each ego steers for, `(batch,)`."""
        return self._lane

    @property
    def attended(self) -> Tensor | None:
        """Whom each concept is about, bool `(batch, concept, agent)`, once that is decided; None without concepts."""
        return self._attended

    @property
    def found(self) -> Found | None:
        """What the plan in hand was chosen from; None before the first decision."""
        return self._driven.found

    @abstractmethod
    def world(self, history: TrafficState, road: Road, futures: int, sample: bool) -> World:
        """The present, a row per episode and future, futures innermost; all episodes share the futures' noise.

        With one future and no `sample`, the likeliest.
        """

    @torch.no_grad()
    def searched(self, history: TrafficState, road: Road, goal: Goal, bound: Tensor) -> Found:
        """What a search finds after `history (batch, time, agent)` for egos that are bound for lane `bound (batch,)`.

        Made at once, and nothing is decided by it.
        """
        agents = nearest_indices(history[:, -1], self.config.max_agents - 1)
        futures = self.search.config.futures
        world = self.world(pick_agents(history, agents), road, futures, sample=futures > 1)
        *_, found = self.search.stretch_by_stretch(world, goal, bound)
        assert found is not None
        return found

    def improved_by(self) -> Improvement | None:
        """What lowers the cost of the plans that were found; None: nothing does."""
        return Refinement(self.config.refinement, self.search) if self.config.refinement.iterations else None

    def reset(self, scene: TrafficState, road: Road, goal: Goal) -> None:
        scene, road, goal = scene.to(self.device), road.to(self.device), goal.to(self.device)
        self._lane = road.project(scene.position_m[:, :1]).lane[:, 0]
        self._steps = 0
        self._attended: Tensor | None = None
        if self.concepts:
            shape = len(scene.valid), len(self.concepts), scene.valid.shape[1]
            told = goal.attended
            self._attended = torch.zeros(shape, dtype=torch.bool) if told is None else told.cpu()
        self.improvement = self.improved_by()  # anew, with the noise that it begins with
        self._pieces: Iterator[_Driven | None] = iter(())
        plan = self.search.keeping(goal, road, self._lane)
        self._driven = _Driven(
            plan, self._lane[:, None], torch.zeros_like(plan.wish_mps)[:, None, None].repeat(1, 1, 2), 0, 0
        )

    @torch.no_grad()
    def act(self, history: TrafficState, road: Road, goal: Goal) -> Controls:
        given = history.valid.device
        history, goal, agents = self._nearest(history, goal)
        history, road, goal = history.to(self.device), road.to(self.device), goal.to(self.device)
        self._present, self._agents = (history, road, goal), agents
        self._decide()
        driven, scene = self._driven, history[:, -1]
        controls = self.search.laws(driven.plan, driven.lanes, road, self._steps - driven.found_at)(0, scene)
        since = min(self._steps - driven.refined_at, driven.added.shape[1] - 1)
        self._steps += 1
        controls = with_added(controls, driven.added[:, since], scene, driven.plan, self.config.law)
        before = history.speed_mps[:, -min(2, history.valid.shape[1]), 0]
        return self.config.law.eased(controls, (scene.speed_mps[:, 0] - before) / self.dt_s, self.dt_s).to(given)

    def _nearest(self, history: TrafficState, goal: Goal) -> tuple[TrafficState, Goal, Tensor]:
        """The history of the nearest and of whom concepts are about, the goal that says who they are, and which."""
        attended = self._attended
        if attended is not None:
            attended = attended.to(history.valid.device)
            seen = (history.valid[:, -1, None] | ~attended).all(2, keepdim=True)  # who is lost is looked for anew
            self._attended = attended = attended & seen
        kept = None if attended is None else attended.any(1)
        agents = nearest_indices(history[:, -1], self.config.max_agents - 1, kept)
        told = None if attended is None else pick_attended(attended, agents)
        return pick_agents(history, agents), replace(goal, attended=told), agents

    def _attend(self, found: Found, best: Tensor, agents: Tensor, road: Road) -> None:
        """Where it is not decided yet, each concept is about whom it is lowest of at the end of the `best` plans."""
        assert self._attended is not None
        attended, futures = self._attended, self.search.config.futures
        end = found.stretches[-1].states[best * futures]
        for number, term in enumerate(self.concepts):
            undecided = ~attended[:, number].any(1)
            if bool(undecided.any()):
                about = term.score.judged(end, road, self.dt_s)[1].to(attended.device)
                about = torch.zeros_like(attended[:, number]).scatter(1, agents, about)
                attended[:, number] |= about & undecided[:, None]

    def _decide(self) -> None:
        """This step's share of the decision."""
        since = self._steps % self.decide_every
        if since == 0:
            self._pieces = self._deciding()
        is_last = not self.config.spread or since == self.decide_every - 1
        for piece in self._pieces:
            self._driven = piece or self._driven
            if not is_last:
                break

    def _deciding(self) -> Iterator[_Driven | None]:
        """A decision in pieces that take about as long; the last one is the plan to go over to."""
        begun, before, agents = self._steps, self._driven, self._agents
        history, road, goal = self._present
        futures = self.search.config.futures
        world = self.world(history, road, futures, sample=futures > 1)
        for number, found in enumerate(self.search.stretch_by_stretch(world, goal, self._lane), 1):
            if found is None and number % STRETCHES_PER_PIECE == 0:
                yield None
        assert found is not None
        best = found.best(len(history.valid))
        if self._attended is not None:
            self._attend(found, best, agents, road)
        lanes = torch.stack([part.lane[rows] for part, rows in zip(found.stretches, found.way(best), strict=True)], 1)
        plan, added, refined_at = found.manoeuvre[best], torch.zeros_like(before.added[:, :1]), begun
        if self.improvement is not None:
            if len(found.stretches) > 1:
                yield None
            refined_at = self._steps
            history, road, goal = self._present
            world = self.world(history, road, futures, sample=futures > 1)
            from_here = before.added[:, refined_at - before.refined_at :]
            for reached in self.improvement.pass_by_pass(world, goal, plan, lanes, refined_at - begun, from_here):
                if reached is None:
                    yield None
                else:
                    added = reached[0]
        self._lane = lanes[:, 0]
        yield _Driven(plan, lanes, added, begun, refined_at, found)


class ObservingPlanner(Planner):
    """A planner whose world is made of what it sees alone: it can be asked later what it expected."""

    @torch.no_grad()
    def imagine(self, history: TrafficState, road: Road, goal: Goal, samples: int = 6, steps: int = 30) -> Imagination:
        """The plan under the likeliest future, `samples` futures of the others, mean energy, and what was weighed."""
        given = history.valid.device
        history, road, goal = history.to(self.device), road.to(self.device), goal.to(self.device)
        plan = self._unrolled(history, road, goal, 1, steps, sample=False)[1]
        terms, states = self._unrolled(history, road, goal, samples, steps, sample=True)
        batch = len(history.valid)
        return Imagination(
            plan_m=plan.position_m[:, :, 0].to(given),
            futures_m=states.position_m.view(batch, samples, steps, -1, 2).to(given),
            cost={name: cost.mean(1).to(given) for name, cost in terms.items() if name != "contact"},
            weighed=self._weighed(batch),
        )

    def _weighed(self, batch: int) -> Weighed | None:
        ago = self._steps - 1 - self._driven.found_at
        return weighed(self.found, batch, self.dt_s, ago) if self.found else None

    def _unrolled(
        self, history: TrafficState, road: Road, goal: Goal, futures: int, steps: int, sample: bool
    ) -> tuple[dict[str, Tensor], TrafficState]:
        """What the plan in hand leads to from here: its cost by term `(batch, future, step)`, and the states."""
        batch = len(history.valid)
        world = self.world(history, road, futures, sample)
        driven = self._driven
        since = max(self._steps - 1 - driven.found_at, 0)
        lanes = driven.lanes.repeat_interleave(futures, 0)
        laws = self.search.laws(driven.plan.repeated(futures), lanes, world.road, since)

        def control(step: int) -> Controls:
            return laws(step, world.scene)

        episode = torch.arange(batch, device=self.device)
        return self.search.unroll(world, goal, episode, steps, control, 0)


class GradientPlanner(ObservingPlanner):
    """The planner in the futures that a learned world model imagines.

    Args:
        model: The world model, frozen.
        config: The planner.
        name: The driver's.
        seed: Of the futures.
        concepts: Concepts that plans are to fulfil, beside those that `config` names.
    """

    def __init__(
        self,
        model: WorldModel,
        config: PlannerConfig | None = None,
        name: str = "planner",
        seed: int = 0,
        concepts: Sequence[ConceptTerm] = (),
    ) -> None:
        device = next(model.parameters()).device
        super().__init__(config or PlannerConfig(), model.config.dt_s, name, device, concepts)
        self.model, self.seed = model, seed

    def world(self, history: TrafficState, road: Road, futures: int, sample: bool) -> World:
        rows = torch.arange(len(history.valid), device=self.device).repeat_interleave(futures)
        noise = torch.Generator(self.device).manual_seed(self.seed + self._steps)
        latents = LatentDraws(self.model, sample, noise, futures)
        before = history[:, -min(2, history.valid.shape[1])][rows]
        observed = self.model.observe(history, road)[rows]
        return HeldWorld(self.model, observed, before, road[rows], latents)


class SamplingPlanner(GradientPlanner):
    """The same, but plans are improved by samples (CEM, MPPI) instead of gradients."""

    def improved_by(self) -> Improvement | None:
        """What lowers the cost of the plans that were found."""
        return Sampling(self.config.sampling, self.search)


class RulePlanner(ObservingPlanner):
    """The planner in a world of rules (`RuleWorld`): what planning is worth without a learned model.

    Args:
        follows: The others follow by IDM; if False, they hold their speed.
        config: The planner.
        dt_s: Time step of the world and between two calls, s.
        name: The driver's.
        concepts: Concepts that plans are to fulfil, beside those that `config` names.
    """

    def __init__(
        self,
        follows: bool,
        config: PlannerConfig | None = None,
        dt_s: float = 0.1,
        name: str = "rule-planner",
        concepts: Sequence[ConceptTerm] = (),
    ) -> None:
        super().__init__(config or PlannerConfig(), dt_s, name, concepts=concepts)
        self.follows = follows

    def world(self, history: TrafficState, road: Road, futures: int, sample: bool) -> World:
        rows = torch.arange(len(history.valid), device=self.device).repeat_interleave(futures)
        before = history[:, -min(2, history.valid.shape[1])]
        return RuleWorld.of(history[:, -1][rows], before[rows], road[rows], self.dt_s, self.follows)
