"""What open-loop plans cost: by a generative world model's imagined scenes, or by a joint embedding's predictions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from drivecast.planner.costs.readout import CostReadout
from drivecast.planner.costs.trajectory import Trajectory
from drivecast.planner.imagination.world import HeldWorld
from drivecast.planner.planning.proposals import Plans
from drivecast.planner.planning.search import ManoeuvreSearch
from drivecast.worldmodel.forecaster.draws import LatentDraws
from drivecast.worldmodel.forecaster.model import WorldModel
from drivecast.worldmodel.joint_embedding.frames import frames_of, moves_of
from drivecast.worldmodel.joint_embedding.network import JointEmbedding
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState


@dataclass(frozen=True)
class Situation:
    """What is to be planned in: `history (episode, time, agent)`, the present last; its road and goal."""

    history: TrafficState
    road: Road
    goal: Goal


class PlanCost(ABC):
    """Judges plans in a situation.

    Args:
        search: Whose energy, costs of contacts and of ends these are.
    """

    def __init__(self, search: ManoeuvreSearch) -> None:
        self.search = search

    @abstractmethod
    def begun(self, situation: Situation) -> Any:
        """All that is computed once of a situation, whatever the plans; handed to `terms`."""

    @abstractmethod
    def terms(self, situation: Situation, begun: Any, plans: Plans) -> dict[str, Tensor]:
        """Weighted costs by name, `(plan, time)`; differentiable in the plans' controls and states."""

    def __call__(self, situation: Situation, begun: Any, plans: Plans) -> Tensor:
        """Cost of each plan, `(plan,)`, its end included. The less, the better."""
        summed = torch.stack(list(self.terms(situation, begun, plans).values())).sum(0).sum(1) * self.search.dt_s
        last = plans.states[:, -1:]
        return summed + self.search.terminal_of(last, situation.road[plans.episode], situation.goal[plans.episode])


class GenerativeCost(PlanCost):
    """The driving energy of scenes that a generative world model imagines beside a plan, the others' likeliest answers.

    Contacts are told by exact boxes; they have no gradient, the room that is kept has.
    """

    def __init__(self, model: WorldModel, search: ManoeuvreSearch) -> None:
        super().__init__(search)
        self.model = model

    def begun(self, situation: Situation) -> Any:
        """The model's memory of the past."""
        with torch.no_grad():
            return self.model.observe(situation.history, situation.road)

    def terms(self, situation: Situation, begun: Any, plans: Plans) -> dict[str, Tensor]:
        rows, steps = plans.episode, plans.acceleration_mps2.shape[1]
        before = situation.history[:, -min(2, situation.history.valid.shape[1])]
        world = HeldWorld(
            self.model, begun[rows], before[rows], situation.road[rows], LatentDraws(self.model, sample=False)
        )
        acceleration, steering = plans.acceleration_mps2, plans.steering_rad

        def control(step: int) -> Controls:
            return Controls(acceleration[:, step], steering[:, step])

        terms, _ = self.search.unroll(world, situation.goal, rows, steps, control, 0)
        return {name: cost[:, 0] for name, cost in terms.items()}


class EmbeddedCost(PlanCost):
    """The same energy, but what depends on the others is read from embeddings that are predicted beside the plan.

    No scene is imagined: the ego's own terms (speed, lane, road, comfort) follow from its motion, which is known.

    Args:
        model: The joint embedding, frozen.
        readout: Reads the rest from its embeddings.
        search: Whose energy, costs of contacts and of ends these are.
    """

    def __init__(self, model: JointEmbedding, readout: CostReadout, search: ManoeuvreSearch) -> None:
        super().__init__(search)
        self.model, self.readout = model, readout

    def begun(self, situation: Situation) -> Any:
        """What is known at present of each episode."""
        config = self.model.config
        with torch.no_grad():
            frames = frames_of(situation.history, situation.road, config.dt_s, config.stride)
            return self.model.observe(frames)

    def terms(self, situation: Situation, begun: Any, plans: Plans) -> dict[str, Tensor]:
        rows, config, search = plans.episode, self.model.config, self.search
        road, goal = situation.road[rows], situation.goal[rows]
        alone = plans.states.map(lambda values: values[:, :, None])
        whole = TrafficState.cat([situation.history[rows, -1:, 0], plans.states], 1)
        moves = moves_of(whole[:, :: config.stride], road, config.frame_s)
        read = self.readout(self.model.unroll(begun[rows], moves))
        speed = situation.history.speed_mps[rows, :, 0]
        before = (speed[:, -1] - speed[:, -min(2, speed.shape[1])]) / search.dt_s
        terms = search.energy.terms(Trajectory(alone, plans.controls, before, road, goal, search.dt_s))
        weights, seconds = search.energy.config.weights, torch.arange(1, moves.shape[1] + 1) * config.frame_s
        soon = (1.0 - 0.5 * seconds / search.config.horizon_s).clamp_min(0.0).to(moves)
        others = {
            "proximity": weights.proximity * read["proximity"],
            "imposed": weights.imposed * read["imposed"],
            "contact": search.config.contact_cost * soon * read["contact"],
        }
        return terms | {name: cost.repeat_interleave(config.stride, 1) for name, cost in others.items()}
