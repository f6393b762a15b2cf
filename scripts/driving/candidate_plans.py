"""Plans that an ego could follow from moments of simulated traffic, and what each of them costs in truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from drivecast.envs.batched.traffic import BatchedHighwayTraffic
from drivecast.envs.batched.world import SimulatedWorld
from drivecast.envs.drivers.idm import IDMDriver
from drivecast.planner.costs.energy import PLANNING_ENERGY, Energy, EnergyConfig
from drivecast.planner.costs.trajectory import Trajectory
from drivecast.planner.imagination.world import World
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.rules.steering import lane_keeping_steering
from drivecast.worldmodel.scene.contact import ego_separation_m
from drivecast.worldmodel.scene.kinematics import drive, steering_for, within_limits
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState

FIRST_SEED = 9_000_000  # of the episodes: neither recordings nor evaluations have these
HISTORY_S = 2.0
LANES = ("keep", "left", "right")
SPEEDS = ((-6.0, 2.0), (-2.0, 3.0), (0.0, 0.0), (1.5, 10.0))  # m/s², and for how long, s
STARTS_S = (0.0, 1.0, 2.0)  # both the lane and the speed are changed from then on
KNOT_S = 1.0  # of random controls
RANDOM_ALONG_MPS2, RANDOM_ACROSS_MPS2 = 2.5, 0.5  # their spread
SCENES_AT_ONCE = 8
LONGEST_S = 1000.0  # of an episode: the clock ends none


@dataclass(frozen=True)
class CandidatePlansConfig:
    """Which moments, and how many plans.

    Args:
        scenes: Moments, each of an episode of its own.
        plans: Of each: 34 combinations of lane, speed and start, the rest random smooth controls.
        horizon_s: Length of a plan, s.
        settling_s: The moments are spread over these seconds of their episodes; IDM drives the ego up to there.
        vehicles: Cars beside the ego.
        density: Of the traffic at the start, highway-env's measure.
        desired_speed_mps: What the ego is asked for, m/s.
        contact_cost: Cost of a contact at once; at the horizon's end it costs half of it.
        energy: What plans cost beside.
    """

    scenes: int = 50
    plans: int = 64
    horizon_s: float = 5.0
    settling_s: tuple[float, float] = (8.0, 18.0)
    vehicles: int = 20
    density: float = 1.0
    desired_speed_mps: float = 30.0
    contact_cost: float = 50.0
    energy: EnergyConfig = PLANNING_ENERGY

    def __post_init__(self) -> None:
        if self.scenes < 1 or self.horizon_s < 1.0:
            raise InputError(f"expected 1 scene and 1 s or more, got {self.scenes} and {self.horizon_s:g} s")
        if self.plans < self.combinations:
            raise InputError(f"plans: expected {self.combinations} or more, got {self.plans}")
        if not HISTORY_S <= self.settling_s[0] <= self.settling_s[1]:
            raise InputError(f"settling_s: expected [least, greatest], {HISTORY_S:g} s or more; got {self.settling_s}")

    @property
    def combinations(self) -> int:
        """Plans that are no random controls: who keeps lane and speed does so whenever it starts."""
        return len(LANES) * len(SPEEDS) * len(STARTS_S) - len(STARTS_S) + 1


@dataclass(frozen=True)
class CandidatePlans:
    """Plans `(scene, plan)` of the ego, agent 0, and what came of them.

    Attributes:
        history: `(scene, time, agent)`, the present last, 2 s.
        road: `(scene,)`.
        goal: `(scene,)`.
        controls: `(scene, plan, time)`.
        ego: After each step, `(scene, plan, time)`, by the kinematic bicycle.
        future: The true scenes `(scene, plan, time, agent)`; after a contact they mean nothing.
        contact_step: Long `(scene, plan)`. The first step in contact, by boxes or because the simulator says so; the
            number of steps where there is none.
        cost: `(scene, plan)`. True: the terms up to a contact, summed, times `dt_s`, and the contact.
        terms: Its parts, `(scene, plan)` by name, `contact` among them.
        dt_s: Time step, s.
    """

    history: TrafficState
    road: Road
    goal: Goal
    controls: Controls
    ego: TrafficState
    future: TrafficState
    contact_step: Tensor
    cost: Tensor
    terms: dict[str, Tensor]
    dt_s: float

    @property
    def ends_in_contact(self) -> Tensor:
        """Bool `(scene, plan)`."""
        return self.contact_step < self.controls.steering_rad.shape[-1]


@dataclass(frozen=True)
class Driven:
    """What comes of plans in one world, `(row,)`: cost, its parts by name, states `(row, time, agent)`, contact."""

    cost: Tensor
    terms: dict[str, Tensor]
    states: TrafficState
    contact_step: Tensor


@torch.no_grad()
def driven(world: World, controls: Controls, goal: Goal, config: CandidatePlansConfig, dt_s: float) -> Driven:
    """What following `controls (row, time)` comes to in `world`, with nobody looking again."""
    before, scenes, touches = world.first_acceleration, [], []
    for step in range(controls.steering_rad.shape[1]):
        scenes.append(world.advance(controls[:, step]))
        boxes = ego_separation_m(scenes[-1]).amin(-1) < 0.0
        touches.append(boxes | world.crashed if isinstance(world, SimulatedWorld) else boxes)
    states, touched = TrafficState.stack(scenes, 1), torch.stack(touches, 1)
    terms = Energy(config.energy).terms(Trajectory(states, controls, before, world.road, goal, dt_s))
    steps = len(scenes)
    contact_step = torch.where(touched.any(1), touched.int().argmax(1), steps)
    counts = torch.arange(steps, device=touched.device) <= contact_step[:, None]
    summed = {name: (values * counts).sum(1) * dt_s for name, values in terms.items()}
    share = 1.0 - 0.5 * (contact_step + 1) / steps
    summed["contact"] = config.contact_cost * torch.where(contact_step < steps, share, torch.zeros_like(share))
    return Driven(sum(summed.values(), torch.zeros_like(share)), summed, states, contact_step)


def candidate_plans(config: CandidatePlansConfig | None = None, seed: int = 0) -> CandidatePlans:
    """Moments of simulated highway traffic, plans for each, and their true costs: the simulator goes on under each.

    `seed` chooses the episodes and the random controls.
    """
    config = config or CandidatePlansConfig()
    generator = torch.Generator().manual_seed(seed)
    parts = [_followed(*moment, config, generator) for moment in _moments(config, seed)]
    first = parts[0]
    return CandidatePlans(
        history=TrafficState.cat([part.history for part in parts]),
        road=Road.cat([part.road for part in parts]),
        goal=Goal.cat([part.goal for part in parts]),
        controls=Controls.cat([part.controls for part in parts]),
        ego=TrafficState.cat([part.ego for part in parts]),
        future=TrafficState.cat([part.future for part in parts]),
        contact_step=torch.cat([part.contact_step for part in parts]),
        cost=torch.cat([part.cost for part in parts]),
        terms={name: torch.cat([part.terms[name] for part in parts]) for name in first.terms},
        dt_s=first.dt_s,
    )


def _moments(
    config: CandidatePlansConfig, seed: int
) -> Iterator[tuple[BatchedHighwayTraffic, TrafficState, Road, Goal]]:
    """Episodes, a few at a time, at the moments to plan from; the history `(scene, time, agent)` of each."""
    first_s, last_s = config.settling_s
    groups = -(-config.scenes // SCENES_AT_ONCE)
    for group in range(groups):
        begun = group * SCENES_AT_ONCE
        episodes = range(begun, min(begun + SCENES_AT_ONCE, config.scenes))
        traffic = BatchedHighwayTraffic(
            "highway-v0",
            config.vehicles,
            density=config.density,
            duration_s=LONGEST_S,
            desired_speed_mps=config.desired_speed_mps,
        )
        start = traffic.reset([FIRST_SEED + 100_003 * seed + episode for episode in episodes])
        driver, scenes = IDMDriver(), [start.history[:, -1]]
        driver.reset(scenes[-1], start.road, start.goal)
        settled_s = first_s + (last_s - first_s) * (group + 0.5) / groups
        for _ in range(round(settled_s / traffic.dt_s)):
            controls = driver.act(scenes[-1][:, None], start.road, start.goal)
            scenes.append(traffic.step(controls).state)
        history = TrafficState.stack(scenes[-round(HISTORY_S / traffic.dt_s) - 1 :], 1)
        yield traffic, history, start.road, start.goal


def _followed(
    traffic: BatchedHighwayTraffic,
    history: TrafficState,
    road: Road,
    goal: Goal,
    config: CandidatePlansConfig,
    generator: torch.Generator,
) -> CandidatePlans:
    """The plans for the present of `traffic`, each followed in a copy of it."""
    scenes, dt_s = len(history.valid), traffic.dt_s
    rows = torch.arange(scenes).repeat_interleave(config.plans)
    controls, ego = _plans(history[:, -1, 0][rows], road[rows], config, dt_s, generator)
    world = SimulatedWorld.of(traffic, rows, road)
    world.before = history[:, -2][rows]  # so that jerk counts from the first step on
    came = driven(world, controls, goal[rows], config, dt_s)

    def by_plan(values: Tensor) -> Tensor:
        return values.view(scenes, config.plans, *values.shape[1:])

    return CandidatePlans(
        history=history,
        road=road,
        goal=goal,
        controls=controls.map(by_plan),
        ego=ego.map(by_plan),
        future=came.states.map(by_plan),
        contact_step=by_plan(came.contact_step),
        cost=by_plan(came.cost),
        terms={name: by_plan(values) for name, values in came.terms.items()},
        dt_s=dt_s,
    )


def _plans(
    ego: TrafficState, road: Road, config: CandidatePlansConfig, dt_s: float, generator: torch.Generator
) -> tuple[Controls, TrafficState]:
    """Controls `(row, time)` and the states that they lead `ego (row,)` to; rows are scenes times plans."""
    steps, scenes = round(config.horizon_s / dt_s), len(ego.valid) // config.plans
    lane, along, start = (values.repeat(scenes) for values in _combinations())
    lane, along, start = (_filled(values, scenes, config) for values in (lane, along, start))
    own = road.project(ego.position_m[:, None]).lane
    wanted = _lane_towards(road, own, lane)
    profile = torch.tensor(SPEEDS)[along]
    noise = torch.randn(len(lane), int(config.horizon_s / KNOT_S) + 2, 2, generator=generator)
    states, chosen = [], []
    for step in range(steps):
        time_s = step * dt_s
        begun = time_s >= start - 1e-6
        acts = begun & (time_s < start + profile[:, 1] - 1e-6)
        acceleration = torch.where(acts, profile[:, 0], torch.zeros_like(start))
        steering = lane_keeping_steering(ego, road, torch.where(begun, wanted, own[:, 0]))
        knot, share = int(time_s / KNOT_S), time_s / KNOT_S % 1.0
        random = torch.lerp(noise[:, knot], noise[:, knot + 1], share)
        is_random = lane < 0
        acceleration = torch.where(is_random, RANDOM_ALONG_MPS2 * random[:, 0], acceleration)
        swerve = steering_for(RANDOM_ACROSS_MPS2 * random[:, 1], ego.speed_mps, ego.length_m)
        controls = Controls(acceleration, torch.where(is_random, swerve, steering))
        controls = within_limits(controls, ego.speed_mps, dt_s)
        ego = drive(ego, controls, dt_s)
        states.append(ego)
        chosen.append(controls)
    return Controls.stack(chosen, 1), TrafficState.stack(states, 1)


def _combinations() -> tuple[Tensor, Tensor, Tensor]:
    """Numbers of lane and speed, and the start in s, of every plan that is no random one."""
    idle = SPEEDS.index((0.0, 0.0))
    every = [
        (lane, speed, start)
        for lane in range(len(LANES))
        for speed in range(len(SPEEDS))
        for start in STARTS_S
        if (lane, speed) != (0, idle) or start == 0.0
    ]
    lane, speed, start = zip(*every, strict=True)
    return torch.tensor(lane), torch.tensor(speed), torch.tensor(start)


def _filled(values: Tensor, scenes: int, config: CandidatePlansConfig) -> Tensor:
    """The same with -1 (of starts and speeds: anything) for the random plans that follow, `(scene · plan,)`."""
    more = values.new_full((scenes, config.plans - config.combinations), -1)
    return torch.cat([values.view(scenes, -1), more], 1).flatten()


def _lane_towards(road: Road, own: Tensor, choice: Tensor) -> Tensor:
    """The lane `(row,)` that each steers for; where there is none on that side, the second one on the other."""
    wanted = own[:, 0]
    for number, (side, other) in enumerate((("left", "right"), ("right", "left")), 1):
        beside = road.neighbour(own, side)
        across = road.neighbour(own, other)
        second = torch.where(across == NO_LANE, NO_LANE, road.neighbour(across.clamp_min(0), other))
        chosen = torch.where(beside == NO_LANE, torch.where(second == NO_LANE, own, second), beside)[:, 0]
        wanted = torch.where(choice == number, chosen, wanted)
    return wanted
