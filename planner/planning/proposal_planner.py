"""Model-predictive control by proposals: the same open-loop plans, judged by whatever world model there is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from drivecast.planner.costs.energy import PLANNING_ENERGY, Energy, EnergyConfig
from drivecast.planner.costs.readout import CostReadout
from drivecast.planner.manoeuvres.manoeuvre import LawConfig
from drivecast.planner.planning.plan_cost import EmbeddedCost, GenerativeCost, PlanCost, Situation
from drivecast.planner.planning.proposals import Plans, ProposalConfig, driven_ego, proposed
from drivecast.planner.planning.search import ManoeuvreSearch, SearchConfig, least_of_each
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.model import WorldModel
from drivecast.worldmodel.joint_embedding.network import JointEmbedding
from drivecast.worldmodel.scene.driver import Imagination
from drivecast.worldmodel.scene.kinematics import MAX_BRAKING_MPS2, knot_weights, steering_for
from drivecast.worldmodel.scene.lane_neighbours import nearest_indices, pick_agents
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState


@dataclass(frozen=True)
class ProposalPlannerConfig:
    """The planner.

    Args:
        decide_every_s: Time between two decisions, s; in between, the chosen plan is driven as it is.
        max_agents: Vehicles that are looked at, the ego and the nearest to it.
        energy: What plans cost.
        law: How proposals are driven.
        search: What contacts, ends and changes of plans cost; its horizon is that of the proposals.
        proposals: Which plans are judged.
        refined: So many of the best plans of each episode are lowered by gradient; 0: none.
        iterations: Gradients taken one after the other.
        knots: Moments at which accelerations are added, linear in between.
        steps_mps2: So far down the gradient plans are tried, m/s² at the knot where it is steepest.
    """

    decide_every_s: float = 0.5
    max_agents: int = 12
    energy: EnergyConfig = field(default_factory=lambda: PLANNING_ENERGY)
    law: LawConfig = field(default_factory=LawConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    proposals: ProposalConfig = field(default_factory=ProposalConfig)
    refined: int = 2
    iterations: int = 1
    knots: int = 5
    steps_mps2: tuple[float, ...] = (0.25, 0.5, 1.0)

    def __post_init__(self) -> None:
        if self.decide_every_s <= 0 or self.max_agents < 2:
            raise InputError("planner: expected decide_every_s above 0 and max_agents of at least 2")
        if self.refined < 0 or self.iterations < 0 or self.knots < 2 or not self.steps_mps2:
            raise InputError("planner: expected refined and iterations of at least 0, 2 knots and one of steps_mps2")


class ProposalPlanner:
    """Judges proposals, lowers the best by gradient through the model, and drives the best of all.

    Args:
        model: The world model, frozen: a generative one, or a joint embedding.
        readout: Of the joint embedding's costs.
        config: The planner.
        name: The driver's.
    """

    history_steps = 20

    def __init__(
        self,
        model: WorldModel | JointEmbedding,
        readout: CostReadout | None = None,
        config: ProposalPlannerConfig | None = None,
        name: str = "proposal-planner",
    ) -> None:
        self.config, self.dt_s, self.name = config or ProposalPlannerConfig(), model.config.dt_s, name
        self.device = next(model.parameters()).device
        search = replace(self.config.search, horizon_s=self.config.proposals.horizon_s, futures=1)
        self.energy = Energy(self.config.energy)
        self.search = ManoeuvreSearch(search, self.config.law, self.energy, self.dt_s)
        self.cost: PlanCost
        self.stride = model.config.stride if isinstance(model, JointEmbedding) else 1
        if isinstance(model, JointEmbedding):
            if readout is None:
                raise ValueError("readout: expected one that reads the joint embedding")
            self.cost = EmbeddedCost(model, readout, self.search)
        else:
            self.cost = GenerativeCost(model, self.search)
        self.decide_every = max(1, round(self.config.decide_every_s / self.dt_s))
        self._steps = 0

    @property
    def chosen_lane(self) -> Tensor:
        """The lane that each ego steers for, `(batch,)`."""
        return self._lane

    def reset(self, scene: TrafficState, road: Road, goal: Goal) -> None:
        scene, road = scene.to(self.device), road.to(self.device)
        self._lane = road.project(scene.position_m[:, :1]).lane[:, 0]
        self._steps = 0

    @torch.no_grad()
    def act(self, history: TrafficState, road: Road, goal: Goal) -> Controls:
        given = history.valid.device
        since = self._steps % self.decide_every
        if since == 0:
            self._decide(self._situation(history, road, goal))
        self._steps += 1
        return self._plan.controls.map(lambda values: values[:, since]).to(given)

    @torch.no_grad()
    def imagine(self, history: TrafficState, road: Road, goal: Goal, samples: int = 6, steps: int = 30) -> Imagination:
        """What is left of the plan in hand, and what it costs by the model that it was judged by.

        No futures of the others: plans are judged by the likeliest alone, or by embeddings that show none.
        """
        since, stride = (self._steps - 1) % self.decide_every, self.stride
        count = min(steps, self._plan.acceleration_mps2.shape[1] - since) // stride * stride
        plan = self._plan.steps(since, count)
        situation = self._situation(history, road, goal)
        cost = self.cost.terms(situation, self.cost.begun(situation), plan)
        given, shape = history.valid.device, history.position_m.shape
        return Imagination(
            plan_m=plan.states.position_m.to(given),
            futures_m=history.position_m.new_zeros(shape[0], 0, count, shape[2], 2),
            cost={name: values.to(given) for name, values in cost.items() if name != "contact"},
        )

    def _situation(self, history: TrafficState, road: Road, goal: Goal) -> Situation:
        """Of the nearest vehicles."""
        near = pick_agents(history, nearest_indices(history[:, -1], self.config.max_agents - 1))
        return Situation(near.to(self.device), road.to(self.device), goal.to(self.device))

    def _decide(self, situation: Situation) -> None:
        self._plan = self.decided(situation, self._lane)
        self._lane = self._plan.lane

    def decided(self, situation: Situation, bound: Tensor) -> Plans:
        """The plan of each episode, `(episode,)`, for egos that steer for lane `bound (episode,)`."""
        config, history = self.config, situation.history
        before = history[:, -min(2, history.valid.shape[1])]
        plans = proposed(
            history[:, -1], before, situation.road, situation.goal, bound, config.proposals, config.law, self.dt_s
        )
        begun = self.cost.begun(situation)
        cost = self.judged(situation, begun, plans, bound)
        order = cost.argsort(stable=True)
        order = order[plans.episode[order].argsort(stable=True)]
        begins = torch.searchsorted(plans.episode[order], plans.episode[order])
        rank = torch.arange(len(order), device=order.device) - begins
        best = order[rank < max(config.refined, 1)]
        if not config.refined or not config.iterations:
            return plans[best]
        refined, cost = self.refined(situation, begun, plans[best], cost[best], bound)
        return refined[least_of_each(refined.episode, cost, len(bound))]

    def judged(self, situation: Situation, begun: object, plans: Plans, bound: Tensor) -> Tensor:
        """Cost of each plan, `(plan,)`, with that of a lane other than `bound`."""
        changes = (plans.lane != bound[plans.episode]).to(plans.acceleration_mps2)
        return self.cost(situation, begun, plans) + self.search.config.change_cost * changes

    def refined(
        self, situation: Situation, begun: object, plans: Plans, cost: Tensor, bound: Tensor
    ) -> tuple[Plans, Tensor]:
        """`plans` with what gradients add to them where that lowers their `cost (plan,)`; and what they cost then."""
        config, ego = self.config, situation.history[plans.episode, -1, 0]
        added = plans.acceleration_mps2.new_zeros(len(plans.episode), config.knots, 2)
        steps = added.new_tensor(config.steps_mps2)
        for _ in range(config.iterations):
            with torch.enable_grad():
                tried = added.clone().requires_grad_()
                total = self.judged(situation, begun, self._with_added(plans, ego, tried), bound).sum()
                gradient = torch.autograd.grad(total, [tried])[0]
            downhill = -gradient / gradient.abs().amax((1, 2), keepdim=True).clamp_min(1e-9)
            for step in steps:
                there = added + step * downhill
                found = self.judged(situation, begun, self._with_added(plans, ego, there), bound)
                better = found < cost
                added = torch.where(better[:, None, None], there, added)
                cost = torch.where(better, found, cost)
        return self._with_added(plans, ego, added), cost

    def _with_added(self, plans: Plans, ego: TrafficState, knots: Tensor) -> Plans:
        """Plans with accelerations along and across at `knots (plan, knot, 2)`, m/s², linear in between."""
        steps = plans.acceleration_mps2.shape[1]
        added = torch.einsum("tk,pkc->ptc", knot_weights(steps, knots.shape[1]).to(knots), knots)
        most = self.config.law.acceleration_mps2
        acceleration = (plans.acceleration_mps2 + added[..., 0]).clamp(-MAX_BRAKING_MPS2, most)
        acceleration = acceleration.where(plans.acceleration_mps2 > -MAX_BRAKING_MPS2, plans.acceleration_mps2)
        length = plans.states.length_m
        steering = plans.steering_rad + steering_for(added[..., 1], plans.states.speed_mps.detach(), length)
        states = driven_ego(ego, Controls(acceleration, steering), self.dt_s)
        return Plans(plans.episode, plans.lane, acceleration, steering, states)
