"""Where rollouts start: scenes in which the ego has to interact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from drivecast.worldmodel.recordings.sampling import WindowRequest, WindowSampler, mirrored, mirrored_road
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.scene.neighbours import SLOTS, find_neighbours
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import Goal, TrafficState


@dataclass(frozen=True)
class InteractionConfig:
    """Which scenes rollouts start from, and what is asked of their egos.

    Args:
        candidates: Scenes drawn for each one used; the most interactive are kept.
        interacting_share: Share of the batch that is chosen for interaction; the rest is taken as it comes.
        leader_within_m: A leader nearer than this makes a scene interactive.
        pulled_share: Share of egos whose speed is pulled towards the desired speed, by a random part of the way.
        desired_speed_mps: Lowest and highest desired speed drawn, in m/s.
        other_lane_share: Share of goals that name a neighbouring lane; half the others name the present lane.
        across_m: Largest lateral displacement of the ego at the start, in metres.
        heading_rad: Largest turn of the ego at the start, in radians.
    """

    candidates: int = 3
    interacting_share: float = 0.75
    leader_within_m: float = 60.0
    pulled_share: float = 0.5
    desired_speed_mps: tuple[float, float] = (20.0, 32.0)
    other_lane_share: float = 0.3
    across_m: float = 0.6
    heading_rad: float = 0.03

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise ValueError(f"candidates must be at least 1, not {self.candidates}")
        low, high = self.desired_speed_mps
        if not 0.0 < low <= high:
            raise ValueError(f"desired_speed_mps must be two rising positive numbers, not {self.desired_speed_mps}")


@dataclass(frozen=True)
class StartConfig(InteractionConfig):
    """Start states of imagined rollouts.

    Args:
        history_steps: Steps of past that the world model sees before it imagines.
        max_agents: Vehicles of a scene at most, the nearest to the ego.
    """

    history_steps: int = 10
    max_agents: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.history_steps < 2 or self.max_agents < 2:
            raise ValueError("history_steps and max_agents must be at least 2")


@dataclass(frozen=True)
class Starts:
    """A batch of start scenes: `history (batch, time, agent)`, the ego at agent 0, and what is asked of it."""

    history: TrafficState
    road: Road
    goal: Goal

    def to(self, device: str) -> Starts:
        return Starts(self.history.to(device), self.road.to(device), self.goal.to(device))


class StartSampler:
    """Draws interactive start scenes from recordings."""

    def __init__(self, stores: Sequence[WindowStore], split: str, config: StartConfig, dt_s: float) -> None:
        self.config, self.dt_s = config, dt_s
        request = WindowRequest(config.history_steps, 1, config.max_agents)
        self.windows = WindowSampler(stores, split, request)

    def draw(self, batch: int, generator: torch.Generator) -> list[Starts]:
        """About `batch` start scenes, one `Starts` per store drawn from."""
        config, result = self.config, []
        for window in self.windows.draw(batch * config.candidates, generator):
            history, road = window.history, window.road
            wanted = max(round(batch * history.valid.shape[0] / (batch * config.candidates)), 1)
            chosen = interacting(history[:, -1], road, wanted, config, generator)
            history, road = history[chosen], road[chosen]
            if torch.rand((), generator=generator) < 0.5:
                history, road = mirrored(history), mirrored_road(road)
            result.append(start_from(history, road, config, self.dt_s, generator))
        return result


def start_from(
    history: TrafficState, road: Road, config: InteractionConfig, dt_s: float, generator: torch.Generator
) -> Starts:
    """A goal for each ego, and the ego disturbed."""
    low, high = config.desired_speed_mps
    desired = low + (high - low) * torch.rand(len(history.valid), generator=generator)
    goal = Goal(desired.to(history.speed_mps), _goal_lane(history[:, -1], road, config, generator))
    return Starts(_disturbed(history, road, goal, config, dt_s, generator), road, goal)


def interacting(
    scene: TrafficState, road: Road, wanted: int, config: InteractionConfig, generator: torch.Generator
) -> Tensor:
    """Which `wanted` of the scenes `(batch, agent)`, in random order already, to start from: `(wanted,)`."""
    around = find_neighbours(scene, road.project(scene.position_m), watchers=1)
    leader = SLOTS.index("leader")
    near = around.present[:, 0, leader] & (around.gap_m[:, 0, leader] < config.leader_within_m)
    score = near.float() + torch.rand(len(near), generator=generator)
    random_part = wanted - round(wanted * config.interacting_share)
    score[:random_part] += 2.0  # the draw is in random order already
    return score.topk(min(wanted, len(score))).indices


def _goal_lane(scene: TrafficState, road: Road, config: InteractionConfig, generator: torch.Generator) -> Tensor:
    nearest = road.project(scene.position_m[:, :1]).lane
    left, right = road.neighbour(nearest, "left")[:, 0], road.neighbour(nearest, "right")[:, 0]
    draw, side = (torch.rand(len(left), generator=generator) for _ in range(2))
    beside = torch.where(side < 0.5, left, right)
    beside = torch.where(beside == NO_LANE, torch.where(side < 0.5, right, left), beside)
    share = config.other_lane_share
    goal = torch.where(draw < share + (1 - share) / 2, nearest[:, 0], torch.full_like(beside, NO_LANE))
    return torch.where(draw < share, beside, goal)


def _disturbed(
    history: TrafficState, road: Road, goal: Goal, config: InteractionConfig, dt_s: float, generator: torch.Generator
) -> TrafficState:
    """The ego displaced, turned, and half the time sped up or slowed down, with a past that fits its present.

    A pull that would leave no way to brake behind the leader (at 5 m/s² with 2 m to spare) is weakened.
    """
    now = history[:, -1]
    batch, steps = history.valid.shape[:2]

    def uniform() -> Tensor:
        return 2.0 * torch.rand(batch, generator=generator) - 1.0

    on_lane = road.project(now.position_m[:, :1])
    across = torch.stack([-on_lane.heading_rad.sin(), on_lane.heading_rad.cos()], -1)[:, 0]
    shift = config.across_m * uniform()
    turn = config.heading_rad * uniform()
    speed = now.speed_mps[:, 0]
    pull = torch.rand(batch, generator=generator) * (torch.rand(batch, generator=generator) < config.pulled_share)
    pulled = speed + pull * (goal.desired_speed_mps - speed)
    around = find_neighbours(now, road.project(now.position_m), watchers=1)
    leader = SLOTS.index("leader")
    room = (around.gap_m[:, 0, leader] - 2.0).clamp_min(0.0)
    fastest = around.speed_mps[:, 0, leader] + (2 * 5.0 * room).sqrt()
    pulled = torch.where(around.present[:, 0, leader], torch.minimum(pulled, torch.maximum(fastest, speed)), pulled)
    changed = pulled != speed
    position = now.position_m[:, 0] + shift[:, None] * across
    heading = now.heading_rad[:, 0] + turn
    ages = dt_s * torch.arange(steps - 1, -1, -1, dtype=speed.dtype)
    direction = torch.stack([heading.cos(), heading.sin()], -1)
    past = position[:, None] - direction[:, None] * (pulled[:, None] * ages)[..., None]
    kept = history.position_m[:, :, 0] + shift[:, None, None] * across[:, None]
    ego_position = torch.where(changed[:, None, None], past, kept)
    ego_heading = torch.where(changed[:, None], heading[:, None], history.heading_rad[:, :, 0] + turn[:, None])
    ego_speed = torch.where(changed[:, None], pulled[:, None], history.speed_mps[:, :, 0])

    def with_ego(values: Tensor, ego: Tensor) -> Tensor:
        return torch.cat([ego[:, :, None], values[:, :, 1:]], 2)

    return replace(
        history,
        position_m=with_ego(history.position_m, ego_position),
        heading_rad=with_ego(history.heading_rad, ego_heading),
        speed_mps=with_ego(history.speed_mps, ego_speed),
    )
