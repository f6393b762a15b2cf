"""Scenes that went on as none does, beside an ego whose way is known: what a surprised model is to notice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from drivecast.worldmodel.recordings.window import Window
from drivecast.worldmodel.scene.traffic import TrafficState, along_and_left

JUMP_M, BRAKES_MPS2 = 10.0, 7.0
SEEN_M, BESIDE_M = 60.0, 6.0
MOVING_MPS = 5.0


@dataclass(frozen=True)
class SceneCorruption:
    """One way to spoil a scene half-way through its future.

    Attributes:
        name: Of it.
        spoilt: From `(window, dt_s)` to the spoilt future `(batch, time, agent)`, and to which windows it can be
            applied, bool `(batch,)`.
    """

    name: str
    spoilt: Callable[[Window, float], tuple[TrafficState, Tensor]]


def _teleport(window: Window, dt_s: float) -> tuple[TrafficState, Tensor]:
    """The nearest ahead jumps 10 m on."""
    who, exists = _nearest_ahead(window)
    later = _later(window)
    jump = JUMP_M * (later[None, :, None] & who[:, None]).to(window.future.speed_mps)
    future = window.future
    return replace(future, position_m=future.position_m + jump[..., None] * future.direction), exists


def _phantom_brake(window: Window, dt_s: float) -> tuple[TrafficState, Tensor]:
    """The nearest ahead brakes to a stand, at 7 m/s², whatever is before it."""
    who, exists = _nearest_ahead(window)
    future, later = window.future, _later(window)
    begins = int(later.nonzero()[0])
    since = (torch.arange(len(later), device=later.device) - begins + 1).clamp_min(0) * dt_s
    start_speed = future.speed_mps[:, begins]
    speed = (start_speed[:, None] - BRAKES_MPS2 * since[None, :, None]).clamp_min(0.0)
    way = (speed * dt_s)[:, begins:].cumsum(1)
    start = future[:, max(begins - 1, 0)]
    position = future.position_m.clone()
    position[:, begins:] = start.position_m[:, None] + way[..., None] * start.direction[:, None]
    brakes = who[:, None] & later[None, :, None]
    return replace(
        future,
        position_m=torch.where(brakes[..., None], position, future.position_m),
        speed_mps=torch.where(brakes, speed, future.speed_mps),
        heading_rad=torch.where(brakes, start.heading_rad[:, None], future.heading_rad),
    ), exists & (start_speed * who).sum(1).gt(MOVING_MPS)


def _swapped_controls(window: Window, dt_s: float) -> tuple[TrafficState, Tensor]:
    """The ego goes the way of another window's ego, of all the nearest in speed; the others do as they did."""
    future, now = window.future, window.present
    order = now.speed_mps[:, 0].argsort()
    other = torch.empty_like(order)
    other[order] = order.roll(1)
    other[order[0]] = order[min(1, len(order) - 1)]
    way = future.position_m[other, :, 0] - now.position_m[other, None, 0]
    along, left = along_and_left(way, now.direction[other, None, 0])
    direction = now.direction[:, None, 0]
    sideways = torch.stack([-direction[..., 1], direction[..., 0]], -1)
    position = now.position_m[:, None, 0] + along[..., None] * direction + left[..., None] * sideways
    turned = future.heading_rad[other, :, 0] - now.heading_rad[other, None, 0]
    own = {
        "position_m": position,
        "speed_mps": future.speed_mps[other, :, 0],
        "heading_rad": now.heading_rad[:, None, 0] + turned,
    }
    changed = {
        name: torch.cat([values[:, :, None], getattr(future, name)[:, :, 1:]], 2) for name, values in own.items()
    }
    whole = future.valid[:, :, 0].all(1)
    return replace(future, **changed), whole & whole[other] & (other != torch.arange(len(other), device=other.device))


def _removed_neighbour(window: Window, dt_s: float) -> tuple[TrafficState, Tensor]:
    """The nearest ahead is gone."""
    who, exists = _nearest_ahead(window)
    gone = who[:, None] & _later(window)[None, :, None]
    return replace(window.future, valid=window.future.valid & ~gone), exists


SCENE_CORRUPTIONS = (
    SceneCorruption("teleport", _teleport),
    SceneCorruption("phantom brake", _phantom_brake),
    SceneCorruption("swapped controls", _swapped_controls),
    SceneCorruption("removed neighbour", _removed_neighbour),
)


def _later(window: Window) -> Tensor:
    """Bool `(time,)`: the second half of the future."""
    steps = window.future.valid.shape[1]
    return torch.arange(steps, device=window.future.valid.device) >= steps // 2


def _nearest_ahead(window: Window) -> tuple[Tensor, Tensor]:
    """Who is nearest ahead of the ego, on its lane or one beside, and there throughout: bool `(batch, agent)`."""
    now = window.present
    along, left = along_and_left(now.position_m - now.position_m[:, :1], now.direction[:, :1])
    counts = now.valid & window.future.valid.all(1) & (along > 0) & (along < SEEN_M) & (left.abs() < BESIDE_M)
    counts[:, 0] = False
    distance = along.masked_fill(~counts, torch.inf)
    nearest = torch.zeros_like(counts).scatter(1, distance.argmin(1, keepdim=True), True)
    exists = counts.any(1) & window.future.valid[:, :, 0].all(1) & now.valid[:, 0]
    return nearest & counts, exists
