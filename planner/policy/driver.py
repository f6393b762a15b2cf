"""The trained policy as a Driver: it reacts at every step and, now and then, imagines which lane is worth it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from drivecast.planner.costs.energy import Energy, EnergyConfig
from drivecast.planner.costs.trajectory import Trajectory
from drivecast.planner.imagination.rollout import imagine
from drivecast.planner.policy.lane_choice import LaneChoiceConfig
from drivecast.planner.policy.lane_energy import least
from drivecast.planner.policy.network import BEFORE_IT_WAS_SAID, Policy, PolicyConfig
from drivecast.planner.policy.training import POLICY_KIND
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.loading import WORLD_MODEL_FILE, load_world_model
from drivecast.worldmodel.forecaster.model import WorldModel
from drivecast.worldmodel.scene.driver import Imagination, Weighed
from drivecast.worldmodel.scene.lane_neighbours import nearest_indices, pick_agents
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState
from drivecast.worldmodel.storage.checkpoint import config_from_dict, load_model

SHOWN_EVERY_S = 0.5


class ReactiveDriver:
    """Drives by the policy alone: it imagines nothing.

    Where the goal names no lane it takes the one of least energy if the policy has learned to foretell that
    (`Policy.lanes`), otherwise it keeps to the nearest.

    Args:
        policy: The policy.
        energy: What it was trained to lower; scores drives.
        name: The driver's.
        chooses: Choose lanes, if the policy can.
    """

    history_steps = 2

    def __init__(self, policy: Policy, energy: Energy, name: str = "policy", chooses: bool = True) -> None:
        self.policy, self.energy, self.name, self.chooses = policy, energy, name, chooses
        self._lane: Tensor | None = None
        self._offered: tuple[Tensor, Tensor] | None = None  # lanes and energies of the last choice
        self._steps = 0

    def reset(self, scene: TrafficState, road: Road, goal: Goal) -> None:
        self._lane, self._offered, self._steps = None, None, 0

    @property
    def chosen_lane(self) -> Tensor | None:
        """The lane that each ego steers for, `(batch,)`; None before it has chosen."""
        return self._lane

    @torch.no_grad()
    def act(self, history: TrafficState, road: Road, goal: Goal) -> Controls:
        given = history.valid.device
        history, road, goal = history.to(self.device), road.to(self.device), goal.to(self.device)
        before = history[:, -min(2, history.valid.shape[1])]
        return self._control(history[:, -1], before, road, self._goal(history, road, goal)).to(given)

    @property
    def device(self) -> torch.device:
        return next(self.policy.parameters()).device

    def _goal(self, history: TrafficState, road: Road, goal: Goal) -> Goal:
        """What is asked of the controls: the goal, with the lane that is chosen where it names none."""
        if not self.chooses:
            return goal
        if self._steps % self._every_steps == 0:
            self._lane = self._choose_lane(history, road, goal)
        self._steps += 1
        if self._lane is None:
            return goal
        return replace(goal, lane=torch.where(goal.lane == NO_LANE, self._lane, goal.lane))

    @property
    def _every_steps(self) -> int:
        return max(1, round(self.policy.config.lane_every_s / self.policy.config.dt_s))

    def _choose_lane(self, history: TrafficState, road: Road, goal: Goal) -> Tensor | None:
        if self.policy.lanes is None:
            return None
        scene, before = history[:, -1], history[:, -min(2, history.valid.shape[1])]
        here = road.project(scene.position_m[:, :1]).lane[:, 0]
        bound = here if self._lane is None else self._lane
        self._offered = self.policy.lanes.offered(scene, before, road, goal, bound, self.policy.config.dt_s)
        return least(*self._offered)

    def _control(self, scene: TrafficState, before: TrafficState, road: Road, goal: Goal) -> Controls:
        return self.policy(scene, before, road, goal)


class PolicyDriver(ReactiveDriver):
    """Drives by the policy, chooses lanes with a world model and shows what it imagines.

    Where the goal names no lane and the policy has not learned to foretell lanes' energies, each decision imagines
    keeping the lane and moving to either neighbour, the policy driving and the others answering by the world model, and
    takes the lane of least mean energy over futures drawn from the prior: the energy of training but for its
    uncertainty, and with no lane preferred. The ego never chooses the others' latent.
    """

    history_steps = 20

    def __init__(
        self,
        policy: Policy,
        energy: Energy,
        world_model: WorldModel,
        lane_choice: LaneChoiceConfig,
        name: str = "policy",
        seed: int = 0,
    ) -> None:
        super().__init__(policy, energy, name, lane_choice.enabled)
        self.world_model, self.lane_choice, self.seed = world_model, lane_choice, seed

    def _noise(self) -> torch.Generator:
        """Noise of this moment: the same whatever was imagined before, and for whichever episodes it was."""
        return torch.Generator(self.device).manual_seed(self.seed + self._steps)

    @property
    def _every_steps(self) -> int:
        return self.lane_choice.every_steps if self.policy.lanes is None else super()._every_steps

    def _choose_lane(self, history: TrafficState, road: Road, goal: Goal) -> Tensor | None:
        if self.policy.lanes is not None:
            return super()._choose_lane(history, road, goal)
        config = self.lane_choice
        history = pick_agents(history, nearest_indices(history[:, -1], config.max_agents - 1))
        here = road.project(history.position_m[:, -1, :1]).lane
        current = here if self._lane is None else self._lane[:, None]
        # a lane is offered when it neighbours the one that the ego is on, or is that one
        options = torch.cat([current, here, road.neighbour(here, "left"), road.neighbour(here, "right")], 1)
        offered = options != NO_LANE
        batch, count = options.shape
        offered[:, 1] = options[:, 1] != options[:, 0]
        offered[:, 2:] &= options[:, 2:] != options[:, :1]
        chosen = torch.where(offered, options, current)
        # only what is offered is imagined
        episode, option = offered.nonzero(as_tuple=True)
        episode, option = (index.repeat_interleave(config.samples) for index in (episode, option))
        wanted = Goal(goal.desired_speed_mps[episode], chosen[episode, option])
        trajectory = self._imagine(history, road, episode, wanted, config.horizon_steps, config.samples)
        # every lane is judged alike: by its own centre line, not by the goal's
        trajectory = replace(trajectory, goal=replace(wanted, lane=torch.full_like(wanted.lane, NO_LANE)))
        energy = self.energy.total(self.energy.terms(trajectory)).view(-1, config.samples).mean(1)
        table = energy.new_full((batch, count), torch.inf)
        table[episode[:: config.samples], option[:: config.samples]] = energy
        table[:, 1:] += config.margin
        return chosen.gather(1, table.argmin(1, keepdim=True))[:, 0]

    def _imagine(
        self, history: TrafficState, road: Road, episode: Tensor, goal: Goal, steps: int, samples: int
    ) -> Trajectory:
        """Unroll one row per entry of `episode` and `goal`, in blocks of `samples`; with 0, the likeliest future."""
        memory = self.world_model.observe(history, road)[episode]  # the past is the same for all that may follow
        road = road[episode]

        def control(step: int, scene: TrafficState, before: TrafficState) -> Controls:
            return self._control(scene, before, road, goal)

        before = history[:, -min(2, history.valid.shape[1])]
        trajectory, _ = imagine(
            self.world_model,
            memory,
            before[episode],
            road,
            goal,
            control,
            steps,
            self._noise(),
            sample=samples > 0,
            noise_period=samples or None,
        )
        return trajectory

    @torch.no_grad()
    def imagine(self, history: TrafficState, road: Road, goal: Goal, samples: int = 6, steps: int = 30) -> Imagination:
        """The plan under the likeliest future, `samples` futures of the others, and the mean energy over them."""
        given = history.valid.device
        history, road, goal = history.to(self.device), road.to(self.device), goal.to(self.device)
        chosen = goal
        if self._lane is not None:
            chosen = replace(goal, lane=torch.where(goal.lane == NO_LANE, self._lane, goal.lane))
        batch = history.valid.shape[0]
        everyone = torch.arange(batch, device=history.valid.device)
        plan = self._imagine(history, road, everyone, chosen, steps, 0)
        many = everyone.repeat_interleave(samples)
        sampled = self._imagine(history, road, many, chosen[many], steps, samples)
        terms = self.energy.terms(replace(sampled, goal=goal[many]))  # as the drive is judged: by the goal given
        return Imagination(
            plan_m=plan.states.position_m[:, :, 0].to(given),
            futures_m=sampled.states.position_m.view(batch, samples, steps, -1, 2).to(given),
            cost={name: values.view(batch, samples, steps).mean(1).to(given) for name, values in terms.items()},
            weighed=self._weighed(history, road, goal, steps),
        )

    def _weighed(self, history: TrafficState, road: Road, goal: Goal, steps: int) -> Weighed | None:
        """The lanes that were offered at the last choice: where each would lead from here, and its foretold energy."""
        if self._offered is None:
            return None
        lanes, energy = self._offered
        order = energy.argsort(dim=1, stable=True)
        lanes, energy = lanes.gather(1, order), energy.gather(1, order)
        offered = energy.isfinite()
        episode, place = offered.nonzero(as_tuple=True)
        wanted = Goal(goal.desired_speed_mps[episode], lanes[episode, place])
        driven = self._imagine(history, road, episode, wanted, steps, 0).states.position_m[:, :, 0]
        every = max(1, round(SHOWN_EVERY_S / self.policy.config.dt_s))
        path = driven.new_full((*lanes.shape, len(range(every - 1, steps, every)), 2), torch.nan)
        path[episode, place] = driven[:, every - 1 :: every]
        above = torch.where(offered, energy - energy[:, :1], torch.nan)  # of foretold energies only differences count
        return Weighed(
            path_m=path,
            energy=above,
            cost={"foretold": above},
            lanes=torch.where(offered, lanes, NO_LANE)[..., None],
            brakes=torch.zeros_like(offered),
            every=every,
            ago=0,
        )


def load_driver(
    path: Path | str, device: str = "cpu", name: str = "", lane_choice: bool | None = None
) -> ReactiveDriver:
    """The driver in `path`: a policy file, or the folder that holds it, with its world model beside it.

    Without one the policy drives alone; then it must not be one that chooses lanes.
    `lane_choice` switches the choice of lanes on or off, whatever the policy was stored with.
    """
    loaded = load_model(path, POLICY_KIND)
    policy = Policy(config_from_dict(PolicyConfig, {**BEFORE_IT_WAS_SAID, **loaded.config}))
    policy.load_state_dict(loaded.state)
    policy = policy.to(device).eval().requires_grad_(False)
    energy = Energy(config_from_dict(EnergyConfig, loaded.extra["energy"]))
    choice = config_from_dict(LaneChoiceConfig, loaded.extra.get("lane_choice", {}))
    if lane_choice is not None:
        choice = replace(choice, enabled=lane_choice)
    beside = loaded.path.with_name(WORLD_MODEL_FILE)
    if beside.is_file():
        return PolicyDriver(policy, energy, load_world_model(beside, device), choice, name or f"policy:{path}")
    if choice.enabled and policy.lanes is None:
        raise InputError(f"{beside}: the policy's world model is missing, and it chooses lanes with it; put it back")
    return ReactiveDriver(policy, energy, name or f"policy:{path}", choice.enabled)
