"""How well an estimate of what plans cost ranks them: against their true costs, scene by scene."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from drivecast.envs.evaluation.statistics import Mean
from drivecast.planner.costs.energy import Energy
from drivecast.planner.costs.readout import CostReadout
from drivecast.planner.imagination.rule_world import RuleWorld
from drivecast.planner.imagination.world import HeldWorld, World
from drivecast.planner.manoeuvres.manoeuvre import LawConfig
from drivecast.planner.planning.plan_cost import EmbeddedCost, Situation
from drivecast.planner.planning.proposals import Plans
from drivecast.planner.planning.search import ManoeuvreSearch, SearchConfig
from drivecast.scripts.driving.candidate_plans import CandidatePlans, CandidatePlansConfig, driven
from drivecast.worldmodel.forecaster.draws import LatentDraws
from drivecast.worldmodel.forecaster.model import WorldModel
from drivecast.worldmodel.joint_embedding.network import JointEmbedding
from drivecast.worldmodel.scene.lane_neighbours import nearest_indices, pick_agents
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState

RESAMPLES = 2000
NEAREST = 15  # others that a world goes on with, as a planner's

# (history (scene, time, agent), road (scene,), row -> scene) -> the present, a row each
Worlds = Callable[[TrafficState, Road, Tensor], World]


@dataclass(frozen=True)
class PlanRanking:
    """How an estimate ranks plans; means over scenes with bootstrap intervals.

    Attributes:
        spearman: Rank correlation of estimated and true costs.
        regret: What the plan that the estimate picks costs above the best, in units of what the median plan does: 0
            is the best plan, 1 one like the median.
        picks_contact: Share of scenes in which the picked plan ends in a contact.
    """

    spearman: Mean
    regret: Mean
    picks_contact: float


def spearman(estimated: Tensor, true: Tensor) -> Tensor:
    """Spearman's rank correlation over the plans of each scene, `(scene,)`; both `(scene, plan)`, ties share a rank.

    NaN in a scene where all are equal.
    """
    ranks = [torch.from_numpy(stats.rankdata(each.numpy(), axis=1)) for each in (estimated.double(), true.double())]
    one, two = (each - each.mean(1, keepdim=True) for each in ranks)
    return (one * two).sum(1) / (one.square().sum(1) * two.square().sum(1)).sqrt()


def regret(estimated: Tensor, true: Tensor) -> Tensor:
    """True cost of the plan that is estimated to be the best, `(scene,)`: 0 the best one's, 1 the median one's."""
    picked = true.gather(1, estimated.argmin(1, keepdim=True))[:, 0]
    best = true.amin(1)
    return (picked - best) / (true.median(1).values - best).clamp_min(1e-9)


def ranking(estimated: Tensor, plans: CandidatePlans, seed: int = 0) -> PlanRanking:
    """How `estimated (scene, plan)`, less is better, ranks `plans`."""
    picked = plans.ends_in_contact.gather(1, estimated.argmin(1, keepdim=True))
    return PlanRanking(
        spearman=bootstrap_mean(spearman(estimated, plans.cost), seed),
        regret=bootstrap_mean(regret(estimated, plans.cost), seed),
        picks_contact=float(picked.double().mean()),
    )


def bootstrap_mean(values: Tensor, seed: int = 0) -> Mean:
    """Mean of `values (scene,)` with its 95 % percentile bootstrap interval; scenes with NaN are left out.

    Efron & Tibshirani 1993, *An Introduction to the Bootstrap*, section 13.3.
    """
    known = values[values.isfinite()].double()
    if len(known) < 2:
        value = float(known.mean()) if len(known) else float("nan")
        return Mean(value, float("nan"), float("nan"), len(known))
    picks = torch.randint(len(known), (RESAMPLES, len(known)), generator=torch.Generator().manual_seed(seed))
    low, high = np.quantile(known[picks].mean(1).numpy(), (0.025, 0.975))
    return Mean(float(known.mean()), float(low), float(high), len(known))


def cost_in(worlds: Worlds, plans: CandidatePlans, config: CandidatePlansConfig, futures: int) -> Tensor:
    """Mean cost `(scene, plan)` of the plans over `futures` futures of other worlds, priced like the true one."""
    agents = nearest_indices(plans.history[:, -1], NEAREST)
    history = pick_agents(plans.history, agents)
    found = []
    for scene in range(len(agents)):
        rows = torch.zeros(plans.cost.shape[1] * futures, dtype=torch.long)
        world = worlds(history[scene : scene + 1], plans.road[scene : scene + 1], rows)
        controls = plans.controls[scene].map(lambda values: values.repeat_interleave(futures, 0))
        came = driven(world, controls, plans.goal[scene : scene + 1][rows], config, plans.dt_s)
        found.append(came.cost.view(-1, futures).mean(1))
    return torch.stack(found)


def embedded_cost(
    model: JointEmbedding, readout: CostReadout, plans: CandidatePlans, config: CandidatePlansConfig
) -> Tensor:
    """Cost `(scene, plan)` that is read from the embeddings which `model` predicts beside each plan."""
    agents = nearest_indices(plans.history[:, -1], NEAREST)
    situation = Situation(pick_agents(plans.history, agents), plans.road, plans.goal)
    costs = SearchConfig(horizon_s=config.horizon_s, contact_cost=config.contact_cost, terminal_s=0.0)
    judge = EmbeddedCost(model, readout, ManoeuvreSearch(costs, LawConfig(), Energy(config.energy), plans.dt_s))
    scenes, count = plans.cost.shape
    scene = torch.arange(scenes).repeat_interleave(count)
    own = [values.flatten(0, 1) for values in (plans.controls.acceleration_mps2, plans.controls.steering_rad)]
    ego = plans.ego.map(lambda values: values.flatten(0, 1))
    with torch.no_grad():
        found = judge(situation, judge.begun(situation), Plans(scene, scene, own[0], own[1], ego))
    return found.view(scenes, count)


def imagined_worlds(model: WorldModel, futures: int, seed: int = 0) -> Worlds:
    """What `model` imagines, futures innermost and the same noise for all plans; one future: the likeliest."""

    def worlds(history: TrafficState, road: Road, rows: Tensor) -> World:
        generator = torch.Generator().manual_seed(seed)
        latents = LatentDraws(model, futures > 1, generator, futures)
        with torch.no_grad():
            memory = model.observe(history, road)[rows]
        return HeldWorld(model, memory, history[:, -2][rows], road[rows], latents)

    return worlds


def rule_worlds(follows: bool, dt_s: float) -> Worlds:
    """The others follow by IDM, or hold their speed."""

    def worlds(history: TrafficState, road: Road, rows: Tensor) -> World:
        return RuleWorld.of(history[:, -1][rows], history[:, -2][rows], road[rows], dt_s, follows)

    return worlds
