"""What a joint embedding is given: what the ego sees every half a second, and how it moves in between."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from drivecast.worldmodel.recordings.window import Window
from drivecast.worldmodel.scene.kinematics import knot_weights
from drivecast.worldmodel.scene.neighbours import find_neighbours
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.sight import sight
from drivecast.worldmodel.scene.traffic import TrafficState, _TensorRecord, along_and_left

MOVE_FEATURES = 4
HARDEST_MPS2, STRONGEST_MPS2, USUAL_MPS2 = 7.0, 2.5, 2.5  # of ways that nobody drove
CHANGE_S, CHANGES_ASIDE = 3.0, 0.5  # a lane change takes so long; share of the ways that try one
ASIDE_M, SLOWEST_TURN_MPS = 4.0, 3.0
KNOTS = 4


@dataclass(frozen=True)
class SceneFrames(_TensorRecord):
    """Moments `(batch, time)`, a frame apart.

    Attributes:
        seen: What the ego sees, `(batch, time, feature)`; see `drivecast.worldmodel.scene.sight.sight`.
        valid: Whether the ego is there, bool `(batch, time)`.
        moves: What it does from each frame to the next, `(batch, time, 4)`, of order one; see `moves_of`. The last one
            is zero.
    """

    seen: Tensor
    valid: Tensor
    moves: Tensor

    def frames(self, first: int, count: int) -> SceneFrames:
        """`count` frames from `first` on."""
        return self.map(lambda values: values[:, first : first + count])


def moves_of(ego: TrafficState, road: Road, frame_s: float) -> Tensor:
    """What an ego `(batch, time)` does from each moment to the next, `(batch, time - 1, 4)`; differentiable.

    Its change of speed, its way along the lane and to its left, and its heading against the lane's in the end.
    """
    there = road.project(ego.position_m)
    tangent = torch.stack([there.heading_rad.cos(), there.heading_rad.sin()], -1)[:, :-1]
    along, left = along_and_left(ego.position_m[:, 1:] - ego.position_m[:, :-1], tangent)
    error = (ego.heading_rad - there.heading_rad).sin()
    changes = [
        (ego.speed_mps[:, 1:] - ego.speed_mps[:, :-1]) / frame_s / 2.0,
        along / frame_s / 20.0,
        left / frame_s,
        error[:, 1:] / 0.05,
    ]
    return torch.stack(changes, -1).clamp(-5.0, 5.0)


def frames_of(states: TrafficState, road: Road, dt_s: float, stride: int) -> SceneFrames:
    """Frames at every `stride`-th moment of `states (batch, time, agent)`, the last one among them.

    Differentiable in the states.
    """
    states = states[:, (states.valid.shape[1] - 1) % stride :: stride]
    batch, time, _ = states.valid.shape
    frame_s = stride * dt_s
    scenes = states.map(lambda values: values.flatten(0, 1))
    earlier = torch.arange(time, device=states.valid.device).sub(1).clamp_min(0)
    before = states[:, earlier, :1].map(lambda values: values.flatten(0, 1))
    repeated = road[torch.arange(batch, device=states.valid.device).repeat_interleave(time)]
    on_lane = repeated.project(scenes.position_m[:, :1])
    found = sight(scenes[:, :1], before, on_lane, repeated, find_neighbours(scenes, on_lane, watchers=1), frame_s)
    ego = states[:, :, 0]
    moves = moves_of(ego, road, frame_s)
    moves = torch.cat([moves, moves.new_zeros(batch, 1, MOVE_FEATURES)], 1)
    return SceneFrames(found.view(batch, time, -1).clamp(-5.0, 5.0), ego.valid, moves)


def window_frames(window: Window, dt_s: float, stride: int) -> tuple[SceneFrames, int]:
    """Frames of a window's history and future, and how many of them are history; the present is one of these."""
    past = window.history.valid.shape[1]
    future = window.future[:, : window.future.valid.shape[1] // stride * stride]
    states = TrafficState.cat([window.history, future], 1)
    return frames_of(states, window.road, dt_s, stride), (past - 1) // stride + 1


def with_another_way(window: Window, dt_s: float, who: Tensor, generator: torch.Generator) -> Window:
    """The same traffic, but in windows `who (batch,)` the ego goes a way that it did not go; the others do as they did.

    Its acceleration is linear between random knots; half of them swing a lane's width to a side within 3 s from a
    random moment on. `generator` lives on the CPU, as does the window.
    """
    batch, steps = window.future.valid.shape[:2]
    knots = torch.randn(batch, KNOTS, generator=generator) * USUAL_MPS2 - 0.5
    acceleration = (knots @ knot_weights(steps, KNOTS).T).clamp(-HARDEST_MPS2, STRONGEST_MPS2)
    side = torch.randint(0, 2, (batch,), generator=generator) * 2.0 - 1.0
    side = side * (torch.rand(batch, generator=generator) < CHANGES_ASIDE)
    begins = torch.rand(batch, generator=generator) * max(steps * dt_s - CHANGE_S, dt_s)
    phase = ((torch.arange(steps) * dt_s - begins[:, None]) / CHANGE_S).clamp(0.0, 1.0)
    # sideways acceleration a sin(2 pi t / T), twice integrated over T, is a T² / (2 pi)
    swing = 2 * torch.pi * ASIDE_M / CHANGE_S**2 * side[:, None] * (2 * torch.pi * phase).sin()
    ego = window.present[:, 0]
    speed = (ego.speed_mps[:, None] + (acceleration * dt_s).cumsum(1)).clamp_min(0.0)
    turn = swing / speed.clamp_min(SLOWEST_TURN_MPS) * (speed > SLOWEST_TURN_MPS)
    heading = ego.heading_rad[:, None] + (turn * dt_s).cumsum(1)
    way = recorded = window.future[:, :, 0]
    way = replace(way, speed_mps=speed, heading_rad=heading, valid=torch.ones_like(recorded.valid))
    position = ego.position_m[:, None] + (way.velocity_mps * dt_s).cumsum(1)
    way = replace(way, position_m=position)
    chosen = way.where(who[:, None], recorded)
    future = TrafficState.cat([chosen.map(lambda values: values[:, :, None]), window.future[:, :, 1:]], 2)
    return replace(window, future=future)
