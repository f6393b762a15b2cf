"""Small deterministic episodes to look at: cars that follow the lanes of a road, an ego that imagines."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from drivecast.envs.replay.episode import Episode, EpisodeMetadata, Outcome
from drivecast.worldmodel.scene.driver import Imagination, Weighed
from drivecast.worldmodel.scene.kinematics import bicycle_step
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import Controls, TrafficState

DT_S = 0.1
FUTURE_STEPS = 30


def curved_road(lanes: int = 3, radius_m: float = 180.0, lane_width_m: float = 3.7) -> Road:
    """A straight run-up, then a left-hand bend; the rightmost lane closes half-way round."""
    along = torch.linspace(0, 420, 85)
    bend = (along - 120).clamp_min(0) / radius_m
    x = along.clamp_max(120) + radius_m * bend.sin()
    y = radius_m * (1 - bend.cos())
    normal = torch.stack([-bend.sin(), bend.cos()], -1)
    middle = torch.stack([x, y], -1)
    centre = torch.stack([middle - normal * lane_width_m * lane for lane in range(lanes)])
    count = torch.full((lanes,), 85)
    open_end = torch.ones(lanes, dtype=torch.bool)
    if lanes > 2:
        count[-1], open_end[-1] = 50, False
        centre[-1, 50:] = centre[-1, 49]
    index = torch.arange(lanes)
    return Road(
        centre_m=centre[None],
        width_m=torch.full((1, lanes, 85), lane_width_m),
        point_count=count[None],
        speed_limit_mps=torch.full((1, lanes), 30.0),
        left=(index - 1)[None],
        right=torch.where(index + 1 < lanes, index + 1, NO_LANE)[None],
        open_start=torch.ones(1, lanes, dtype=torch.bool),
        open_end=open_end[None],
    )


def highway_episode(
    steps: int = 60,
    cars: int = 8,
    outcome: Outcome = "completed",
    road: Road | None = None,
    lanes: int = 4,
    every: int = 5,
    samples: int = 6,
    driver: str = "policy:runs/policy",
    seed: int = 7,
) -> Episode:
    """An episode of `cars` vehicles that keep their lanes; with `collision` the ego runs into its leader at the end."""
    random = torch.Generator().manual_seed(seed)
    road = Road.straight(lanes) if road is None else road
    scene, desired = _start(road, cars, random)
    states, controls = [scene], []
    for step in range(steps):
        steering = _lane_keeping(scene, road)
        phase = torch.arange(cars) * 1.7 + step * 0.05
        acceleration = 0.4 * (desired - scene.speed_mps) + 0.5 * phase.sin()
        acceleration[0] = 0.5 * (desired[0] - scene.speed_mps[0])
        moved = bicycle_step(
            scene.position_m, scene.heading_rad, scene.speed_mps, scene.length_m, acceleration, steering, DT_S
        )
        controls.append(Controls(acceleration[0], steering[0]))
        scene = replace(scene, position_m=moved[0], heading_rad=moved[1], speed_mps=moved[2])
        states.append(scene)
    history = TrafficState.stack(states)
    metadata = EpisodeMetadata(
        driver, "highway-v0", seed, DT_S, outcome, "0123456789abcdef", desired_speed_mps=25.0, extras={"note": "a test"}
    )
    if outcome == "collision":
        history = _with_crash(history)
        metadata = replace(metadata, collided_with=1, at_fault=True)
    controls = Controls.stack(controls)
    return Episode(
        states=history,
        controls=controls,
        road=road,
        metadata=metadata,
        costs=_costs(history, controls),
        imaginations={step: _imagine(history[step], samples, random) for step in range(0, steps, every)},
    )


def weighing(episode: Episode) -> Episode:
    """The same, in which the driver weighed three plans two steps before each imagination, and the last one hits."""
    last = episode.road.centre_m.shape[1] - 1

    def with_plans(step: int, imagined: Imagination) -> Imagination:
        now = episode.states.position_m[max(0, step - 2), 0]
        away = torch.tensor([[0.0, 0.0], [0.0, 2.0], [0.0, -2.0]])[:, None] * torch.arange(1, 5)[:, None]
        path = now + torch.tensor([12.0, 0.0]) * torch.arange(1, 5)[:, None] + away
        lane = int(episode.road.project(now[None, None]).lane)
        weighed = Weighed(
            path_m=path[None],
            energy=torch.tensor([[1.0, 1.5, 31.25]]),
            cost={"speed": torch.tensor([[1.0, 0.75, 1.25]]), "contact": torch.tensor([[0.0, 0.75, 30.0]])},
            lanes=torch.tensor([[[lane, lane], [lane, max(lane - 1, 0)], [min(lane + 1, last), lane]]]),
            brakes=torch.tensor([[False, False, False]]),
            every=5,
            ago=min(step, 2),
        )
        return replace(imagined, weighed=weighed)

    return replace(episode, imaginations={step: with_plans(step, each) for step, each in episode.imaginations.items()})


def _start(road: Road, cars: int, random: torch.Generator) -> tuple[TrafficState, Tensor]:
    lanes = road.centre_m.shape[1]
    lane = torch.arange(cars) % lanes
    lane[1:2] = lane[0]
    gap = 26.0 if lanes > 1 else 20.0
    along = 60.0 + (torch.arange(cars) // lanes - cars // lanes // 2) * gap + torch.rand(cars, generator=random) * 9
    along[0] = 60.0
    if cars > 1:
        along[1] = 88.0
    taken = (lane == lane[0]) & ((along - 74).abs() < 28)
    taken[:2] = False
    along = torch.where(taken, along - 70, along)
    start = road.centre_m[0, lane, 0] + 0.0
    tangent = road.centre_m[0, lane, 1] - start
    tangent = tangent / tangent.norm(dim=-1, keepdim=True)
    desired = 19 + 6 * torch.rand(cars, generator=random)
    desired[0] = 25.0
    length = 4.2 + torch.rand(cars, generator=random)
    length[3::9] = 14.0
    width = torch.full((cars,), 1.9)
    width[3::9] = 2.5
    scene = TrafficState(
        position_m=start + tangent * along[:, None],
        heading_rad=torch.atan2(tangent[:, 1], tangent[:, 0]),
        speed_mps=desired.clone(),
        length_m=length,
        width_m=width,
        valid=torch.ones(cars, dtype=torch.bool),
    )
    return scene, desired


def _lane_keeping(scene: TrafficState, road: Road) -> Tensor:
    there = road.project(scene.position_m[None])
    error = scene.heading_rad - there.heading_rad[0]
    error = torch.atan2(error.sin(), error.cos())
    return (-0.6 * error - 0.03 * there.across_m[0]).clamp(-0.3, 0.3)


def _with_crash(history: TrafficState) -> TrafficState:
    """Move the leader so that the ego touches its rear in the last state."""
    ego = history.position_m[-1, 0]
    touching = ego + history.direction[-1, 0] * (history.length_m[-1, :2].sum() / 2 - 0.3)
    share = torch.linspace(0, 1, history.speed_mps.shape[0])[:, None] ** 2
    position = history.position_m.clone()
    position[:, 1] += share * (touching - position[-1, 1])
    return replace(history, position_m=position)


def _costs(history: TrafficState, controls: Controls) -> dict[str, Tensor]:
    gap = (history.position_m[1:, 1:] - history.position_m[1:, :1]).norm(dim=-1).amin(-1)
    return {
        "proximity": (1 - gap / 30).clamp_min(0) ** 2,
        "lane": 0.05 + 0.05 * torch.sin(torch.arange(len(gap)) / 9) ** 2,
        "speed": 0.01 * (25 - history.speed_mps[1:, 0]).abs(),
        "comfort": 0.02 * controls.acceleration_mps2.abs(),
    }


def _imagine(scene: TrafficState, samples: int, random: torch.Generator) -> Imagination:
    time = DT_S * torch.arange(1, FUTURE_STEPS + 1)
    velocity = scene.velocity_mps[None].expand(samples, -1, -1)
    velocity = velocity + torch.tensor([1.2, 0.25]) * torch.randn(velocity.shape, generator=random)
    futures = scene.position_m[None, None] + velocity[:, None] * time[None, :, None, None]
    plan = scene.position_m[0] + scene.velocity_mps[0] * time[:, None]
    cost = {"proximity": 0.1 + 0.02 * time, "lane": 0.01 * time}
    return Imagination(plan[None], futures[None], {term: values[None] for term, values in cost.items()})
