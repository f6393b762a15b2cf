"""Problems as closed-loop traffic."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from drivecast.envs.lockstep import LockstepStart, LockstepStep
from drivecast.envs.staged.problems import LANE_WIDTH_M, Car, Problem
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.contact import ego_contacts
from drivecast.worldmodel.scene.kinematics import drive, within_limits
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState

PAST_S = 1.0  # that is known when it begins


class StagedTraffic:
    """A problem per episode, the first one for seed 0; the others keep to their scripts.

    Args:
        problems: What happens.
        dt_s: Time step, s.
    """

    name = "staged"

    def __init__(self, problems: Sequence[Problem], dt_s: float = 0.1) -> None:
        self.problems, self.dt_s = tuple(problems), dt_s

    def reset(self, seeds: Sequence[int]) -> LockstepStart:
        self._staged = [self.problems[seed % len(self.problems)] for seed in seeds]
        self._duration_s = torch.tensor([problem.duration_s for problem in self._staged])
        self._road = Road.batch([problem.road for problem in self._staged])
        self._time_s = 0.0
        self._ended = torch.zeros(len(seeds), dtype=torch.bool)
        self._agents = max(1 + len(problem.others) for problem in self._staged)
        self._state = TrafficState.cat([_scene((each.ego, *each.others), self._agents) for each in self._staged])
        steps = round(PAST_S / self.dt_s)
        past = [self._earlier((steps - step) * self.dt_s) for step in range(steps + 1)]
        desired = torch.tensor([problem.desired_speed_mps for problem in self._staged])
        goal = Goal(desired, torch.full((len(seeds),), NO_LANE))
        task: tuple[dict[str, str | int | float], ...] = tuple({"problem": each.name} for each in self._staged)
        return LockstepStart(TrafficState.stack(past, 1), self._road, goal, task)

    def step(self, controls: Controls | None) -> LockstepStep:
        if controls is None:
            raise InputError(f"driver 'human': {self.name} has no recorded ego; drive it with another driver")
        before = self._state
        held = within_limits(controls, before.speed_mps[:, 0], self.dt_s)
        speed = (before.speed_mps + self._pressed() * self.dt_s).clamp_min(0.0)
        moved = before.position_m.clone()
        moved[..., 0] += (before.speed_mps + speed) / 2 * self.dt_s
        ahead = TrafficState(moved, before.heading_rad, speed, before.length_m, before.width_m, before.valid).with_ego(
            drive(before[:, 0], held, self.dt_s)
        )
        self._state = before.where(self._ended, ahead)
        self._time_s += self.dt_s
        running = ~self._ended
        hits = ego_contacts(self._state)
        collided = hits.any(1) & running
        off_road = (self._road.off_road_m(self._state.position_m[:, :1]) > 0)[:, 0] & running
        completed = (self._time_s >= self._duration_s - 1e-6) & running
        self._ended = self._ended | collided | off_road | completed
        hit = torch.where(collided, hits.long().argmax(1), -1)
        return LockstepStep(self._state, held, collided, off_road, completed, torch.zeros_like(completed), hit=hit)

    def _earlier(self, ago_s: float) -> TrafficState:
        state = self._state
        return TrafficState(
            state.position_m - state.velocity_mps * ago_s,
            state.heading_rad,
            state.speed_mps,
            state.length_m,
            state.width_m,
            state.valid,
        )

    def _pressed(self) -> Tensor:
        """The pedals of all cars, m/s², `(episode, agent)`."""
        acceleration = torch.zeros_like(self._state.speed_mps)
        for episode, problem in enumerate(self._staged):
            for agent, car in enumerate(problem.others, 1):
                acceleration[episode, agent] = _pressed(car, self._time_s)
        return acceleration


def _scene(cars: Sequence[Car], agents: int) -> TrafficState:
    """`(1, agent)`; the last ones are nobody."""

    def of(values: list[float]) -> Tensor:
        return torch.tensor([values + [0.0] * (agents - len(values))], dtype=torch.get_default_dtype())

    nothing = of([])
    return TrafficState(
        position_m=torch.stack([of([car.x_m for car in cars]), of([-LANE_WIDTH_M * car.lane for car in cars])], -1),
        heading_rad=nothing,
        speed_mps=of([car.speed_mps for car in cars]),
        length_m=of([car.length_m for car in cars]),
        width_m=nothing + 2.0,
        valid=torch.arange(agents)[None] < len(cars),
    )


def _pressed(car: Car, time_s: float) -> float:
    return sum(mps2 for begins_s, ends_s, mps2 in car.pedals if begins_s <= time_s < ends_s)
