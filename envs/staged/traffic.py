"""A problem as closed-loop traffic."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from drivecast.envs.lockstep import LockstepStart, LockstepStep
from drivecast.envs.staged.problems import LANE_WIDTH_M, Car, Problem
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.contact import ego_contacts
from drivecast.worldmodel.scene.kinematics import drive, within_limits
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState

PAST_S = 1.0  # that is known when it begins


class StagedTraffic:
    """The same scene for each seed; the others keep to their scripts.

    Args:
        problem: What happens.
        dt_s: Time step, s.
    """

    def __init__(self, problem: Problem, dt_s: float = 0.1) -> None:
        self.problem, self.dt_s = problem, dt_s
        self.name = f"staged-{problem.name.replace(' ', '-').replace(',', '')}"

    def reset(self, seeds: Sequence[int]) -> LockstepStart:
        problem, batch = self.problem, len(seeds)
        road = Road.cat([problem.road] * batch)
        self._time_s, self._road = 0.0, road
        self._ended = torch.zeros(batch, dtype=torch.bool)
        self._state = TrafficState.cat([_scene((problem.ego, *problem.others))] * batch)
        steps = round(PAST_S / self.dt_s)
        past = [self._earlier((steps - step) * self.dt_s) for step in range(steps + 1)]
        desired = torch.full((batch,), problem.desired_speed_mps)
        goal = Goal(desired, torch.full((batch,), NO_LANE))
        return LockstepStart(TrafficState.stack(past, 1), road, goal, tuple({"problem": problem.name} for _ in seeds))

    def step(self, controls: Controls | None) -> LockstepStep:
        if controls is None:
            raise InputError(f"driver 'human': {self.name} has no recorded ego; drive it with another driver")
        before = self._state
        held = within_limits(controls, before.speed_mps[:, 0], self.dt_s)
        acceleration = torch.tensor([_pressed(car, self._time_s) for car in (self.problem.ego, *self.problem.others)])
        speed = (before.speed_mps + acceleration * self.dt_s).clamp_min(0.0)
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
        completed = torch.full_like(running, self._time_s >= self.problem.duration_s - 1e-6) & running
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


def _scene(cars: Sequence[Car]) -> TrafficState:
    """`(1, agent)`."""

    def of(values: list[float]) -> torch.Tensor:
        return torch.tensor([values], dtype=torch.get_default_dtype())

    nothing = of([0.0] * len(cars))
    return TrafficState(
        position_m=torch.stack([of([car.x_m for car in cars]), of([-LANE_WIDTH_M * car.lane for car in cars])], -1),
        heading_rad=nothing,
        speed_mps=of([car.speed_mps for car in cars]),
        length_m=of([car.length_m for car in cars]),
        width_m=nothing + 2.0,
        valid=torch.ones_like(nothing, dtype=torch.bool),
    )


def _pressed(car: Car, time_s: float) -> float:
    return sum(mps2 for begins_s, ends_s, mps2 in car.pedals if begins_s <= time_s < ends_s)
