"""Futures that did not happen, made of some that did: what an energy has to tell from recorded ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from drivecast.worldmodel.recordings.window import Window
from drivecast.worldmodel.scene.lane_neighbours import lane_neighbours
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState

LATE_S = 1.0  # of a time-shifted future
SLOWER, FASTER = 0.7, 1.3
ARRIVES_S = 1.0  # after which an overlapping vehicle is where its leader is
DRIFT_MPS = 3.0  # sideways; people change lanes at about 1 m/s
JUMP_M = 5.0
BRAKES_MPS2 = 1.0
BRAKING_OVER_S = 1.0


@dataclass(frozen=True)
class Corruption:
    """One way to spoil the future of agent 0; the other vehicles do what they did.

    Attributes:
        name: Of it.
        is_gross: Nobody could drive so; the others are possible, but no answer to what happened.
        motion: From `(window, dt_s)` to the spoilt positions `(batch, time, 2)`, and to which windows it can be
            applied, bool `(batch,)`.
    """

    name: str
    is_gross: bool
    motion: Callable[[Window, float], tuple[Tensor, Tensor]]

    def apply(self, window: Window, dt_s: float) -> tuple[TrafficState, Tensor]:
        """The future with agent 0 on its spoilt way, heading as recorded, speed along the new way; who has one."""
        position, applies = self.motion(window, dt_s)
        before = torch.cat([window.present.position_m[:, :1], position[:, :-1]], 1)
        speed = (position - before).norm(dim=-1) / dt_s
        future = window.future
        applies = applies & window.future.valid[:, :, 0].all(1) & window.present.valid[:, 0]
        return replace(
            future,
            position_m=torch.cat([position[:, :, None], future.position_m[:, :, 1:]], 2),
            speed_mps=torch.cat([speed[:, :, None], future.speed_mps[:, :, 1:]], 2),
        ), applies


def _time_shifted(window: Window, dt_s: float) -> tuple[Tensor, Tensor]:
    """Everything one second late: at each moment where it was a second before."""
    late = round(LATE_S / dt_s)
    whole = torch.cat([window.history.position_m[:, :, 0], window.future.position_m[:, :, 0]], 1)
    past, steps = window.history.valid.shape[1], window.future.valid.shape[1]
    if past < late:
        raise ValueError(f"a shift by {LATE_S} s needs as much history, and there are {past} steps of {dt_s} s")
    return whole[:, past - late : past - late + steps], window.history.valid[:, -late:, 0].all(1)


def _speed_scaled(factor: float) -> Callable[[Window, float], tuple[Tensor, Tensor]]:
    """From now on `factor` times as fast, on the same way."""

    def motion(window: Window, dt_s: float) -> tuple[Tensor, Tensor]:
        now = window.present.position_m[:, :1]
        gone = window.future.position_m[:, :, 0] - now
        return now + factor * gone, window.present.valid[:, 0]

    return motion


def _overlapping(window: Window, dt_s: float) -> tuple[Tensor, Tensor]:
    """Within a second into its leader, and with it from then on."""
    leader, exists = _leader(window)
    there = _of(window.future.position_m, leader)
    steps = window.future.valid.shape[1]
    share = (torch.arange(1, steps + 1) * dt_s / ARRIVES_S).clamp_max(1.0).to(there)[:, None]
    own = window.future.position_m[:, :, 0]
    return torch.lerp(own, there, share), exists & _of(window.future.valid, leader).all(1)


def _off_road(window: Window, dt_s: float) -> tuple[Tensor, Tensor]:
    """Drifting towards the nearer edge of the road and on beyond it, 3 m/s sideways."""
    now, road = window.present, window.road
    side = _nearer_edge(road, now.position_m[:, :1])[:, 0]
    there = road.project(now.position_m[:, :1])
    left = torch.stack([-there.heading_rad.sin(), there.heading_rad.cos()], -1)  # (batch, 1, 2)
    time = dt_s * torch.arange(1, window.future.valid.shape[1] + 1).to(left)
    drift = DRIFT_MPS * time[:, None] * (left * side[:, None, None])
    return window.future.position_m[:, :, 0] + drift, now.valid[:, 0]


def _teleport(window: Window, dt_s: float) -> tuple[Tensor, Tensor]:
    """A jump 5 m ahead half-way."""
    future = window.future
    steps = future.valid.shape[1]
    jumped = (torch.arange(1, steps + 1) > steps // 2)[:, None].to(future.position_m)
    return future.position_m[:, :, 0] + JUMP_M * jumped * window.present.direction[:, :1], window.present.valid[:, 0]


def _no_answer(window: Window, dt_s: float) -> tuple[Tensor, Tensor]:
    """Straight on at its present speed, where it and its leader braked: both lost over 1 m/s in some second."""
    leader, exists = _leader(window)
    speed = torch.cat([window.present.speed_mps[:, None], window.future.speed_mps], 1)
    over = min(round(BRAKING_OVER_S / dt_s), speed.shape[1] - 1)
    hardest = ((speed[:, :-over] - speed[:, over:]) / (over * dt_s)).amax(1)  # (batch, agent)
    braked = (hardest[:, 0] > BRAKES_MPS2) & (hardest.gather(1, leader[:, None])[:, 0] > BRAKES_MPS2)
    time = dt_s * torch.arange(1, window.future.valid.shape[1] + 1).to(speed)
    now = window.present
    ahead = now.position_m[:, :1] + now.velocity_mps[:, :1] * time[:, None]
    return ahead, exists & braked & _of(window.future.valid, leader).all(1)


CORRUPTIONS = (
    Corruption("time-shifted", True, _time_shifted),
    Corruption("slower x0.7", True, _speed_scaled(SLOWER)),
    Corruption("faster x1.3", True, _speed_scaled(FASTER)),
    Corruption("overlapping", True, _overlapping),
    Corruption("off-road", True, _off_road),
    Corruption("teleport", True, _teleport),
    Corruption("no answer to braking", False, _no_answer),
)


def _leader(window: Window) -> tuple[Tensor, Tensor]:
    """The vehicle ahead of agent 0 on its lane, `(batch,)`, and whether there is one."""
    lane = window.road.project(window.present.position_m[:, :1]).lane[:, 0]
    leader = lane_neighbours(window.present, window.road, lane, reach=0.5).leader
    return leader.clamp_min(0), leader >= 0


def _of(values: Tensor, agent: Tensor) -> Tensor:
    """`values (batch, time, agent, ...)` of `agent (batch,)`: `(batch, time, ...)`."""
    return values[torch.arange(len(agent), device=agent.device), :, agent]


def _nearer_edge(road: Road, position_m: Tensor) -> Tensor:
    """1 where the road's left edge is nearer to `position_m (batch, agent, 2)`, -1 where the right one is."""
    there = road.project(position_m)
    left = torch.stack([-there.heading_rad.sin(), there.heading_rad.cos()], -1)
    reach = torch.arange(1.0, 41.0).to(position_m)
    sides = []
    for side in (1.0, -1.0):
        tried = position_m[:, :, None] + side * reach[:, None] * left[:, :, None]
        outside = road.off_road_m(tried.flatten(1, 2)).view(*position_m.shape[:2], -1) > 0.0
        sides.append(torch.where(outside, reach, torch.inf).amin(-1))
    return torch.where(sides[0] < sides[1], 1.0, -1.0).to(position_m)
