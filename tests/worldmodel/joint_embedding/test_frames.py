"""What a joint embedding sees does not depend on where on the road it happens, and other ways are ways."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from moving_entities import moving

from drivecast.worldmodel.joint_embedding.frames import frames_of, moves_of, window_frames, with_another_way
from drivecast.worldmodel.recordings.window import Window
from drivecast.worldmodel.scene.entities import FRAME_S
from drivecast.worldmodel.scene.traffic import TrafficState

SCENE = ((0.0, 0.0, 20.0, 0.0), (30.0, 0.0, 18.0, 0.0), (-20.0, 4.0, 25.0, 0.0))
PAST = 6


def window(batch: int = 1, past: int = PAST) -> Window:
    states, road = moving(*SCENE)
    states = states.map(lambda values: values.expand(batch, *values.shape[1:]))
    nothing = torch.zeros(batch, dtype=torch.long)
    rows = nothing[:, None].expand(-1, len(SCENE))
    return Window(states[:, :past], states[:, past:], road[nothing], rows, nothing, nothing)


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
def test_the_last_moment_is_a_frame_whatever_the_stride(stride: int):
    states, road = moving(*SCENE)
    frames = frames_of(states, road, FRAME_S, stride)
    assert frames.valid.shape[1] == -(-states.valid.shape[1] // stride)
    last = frames_of(states[:, -1 - stride :], road, FRAME_S, stride)
    torch.testing.assert_close(frames.seen[:, -1], last.seen[:, -1])


def test_a_shift_along_the_road_changes_nothing():
    states, road = moving(*SCENE)
    moved = replace(states, position_m=states.position_m + torch.tensor([200.0, 0.0]))
    one, two = (frames_of(each, road, FRAME_S, 2) for each in (states, moved))
    torch.testing.assert_close(one.seen, two.seen, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one.moves, two.moves, atol=1e-4, rtol=1e-4)


def test_a_turned_road_changes_nothing():
    states, road = moving(*SCENE)
    one, two = frames_of(states, road, FRAME_S, 2), frames_of(*moving(*SCENE, turned=0.7), FRAME_S, 2)
    torch.testing.assert_close(one.seen, two.seen, atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(one.moves, two.moves, atol=2e-3, rtol=2e-3)


def test_a_car_that_is_gone_is_not_seen():
    states, road = moving(*SCENE)
    gone = states.valid.clone()
    gone[:, :, 1] = False
    away = replace(states, valid=gone, position_m=states.position_m + 50.0 * ~gone[..., None])
    two = moving(SCENE[0], SCENE[2])[0]
    found = [frames_of(each, road, FRAME_S, 2).seen for each in (away, two)]
    torch.testing.assert_close(found[0], found[1])


def test_moves_of_a_steady_drive_are_what_was_driven():
    states, road = moving((0.0, 0.0, 20.0, 0.0))
    moves = moves_of(states[:, :, 0], road, FRAME_S)
    torch.testing.assert_close(moves[0, 3], torch.tensor([0.0, 1.0, 0.0, 0.0]), atol=1e-4, rtol=0.0)


def test_moves_follow_a_lane_change_and_its_side():
    left, road = moving((0.0, 0.0, 20.0, 4.0))
    right, _ = moving((0.0, 0.0, 20.0, -4.0))
    one, two = (moves_of(each[:, :, 0], road, FRAME_S)[0, :, 2] for each in (left, right))
    assert (one > 0.5).all()
    torch.testing.assert_close(one, -two)


def test_moves_are_differentiable_in_the_ego_and_in_nobody_else():
    states, road = moving(*SCENE)
    speed = states.speed_mps.clone().requires_grad_()
    frames_of(replace(states, speed_mps=speed), road, FRAME_S, 5).moves.sum().backward()
    assert speed.grad is not None
    assert speed.grad[0, -1, 0] != 0.0
    assert speed.grad[0, :, 1:].abs().max() == 0.0


def test_frames_of_a_window_begin_anew_at_the_present():
    frames, past = window_frames(window(), FRAME_S, 2)
    assert past == 3
    at_present = frames_of(window().history, window().road, FRAME_S, 2)
    torch.testing.assert_close(frames.seen[:, past - 1], at_present.seen[:, -1])


def test_another_way_changes_the_ego_after_the_present_and_nobody_else():
    given = window(64)
    who = torch.arange(64) < 32
    other = with_another_way(given, FRAME_S, who, torch.Generator().manual_seed(0))
    torch.testing.assert_close(other.history.position_m, given.history.position_m)
    torch.testing.assert_close(other.future.position_m[:, :, 1:], given.future.position_m[:, :, 1:])
    torch.testing.assert_close(other.future.position_m[~who], given.future.position_m[~who])
    apart = (other.future.position_m - given.future.position_m)[who, -1, 0]
    assert apart[:, 0].std() > 1.0
    assert not torch.allclose(apart[0], apart[1])


def test_another_way_is_one_that_a_car_could_go():
    given = window(64)
    other = with_another_way(given, FRAME_S, torch.ones(64).bool(), torch.Generator().manual_seed(0))
    ego = TrafficState.cat([other.history, other.future], 1)[:, PAST - 1 :, 0]
    gained = ego.speed_mps.diff(dim=1) / FRAME_S
    assert gained.max() <= 2.5 + 1e-3
    assert gained.min() >= -7.0 - 1e-3
    moved = ego.position_m.diff(dim=1).norm(dim=-1) / FRAME_S
    torch.testing.assert_close(moved, ego.speed_mps[:, 1:], atol=1e-3, rtol=1e-3)
    lateral = ego.heading_rad.diff(dim=1) / FRAME_S * ego.speed_mps[:, 1:]
    assert lateral.abs().max() < 3.0


def test_a_swing_to_a_side_ends_about_a_lane_further_and_straight():
    states, road = moving((0.0, 0.0, 20.0, 0.0))
    long = states[:, :1].map(lambda values: values.expand(200, 60, *values.shape[2:]))
    nothing = torch.zeros(200, dtype=torch.long)
    given = Window(long[:, :1], long, road[nothing], nothing[:, None], nothing, nothing)
    ego = with_another_way(given, 0.1, torch.ones(200).bool(), torch.Generator().manual_seed(0)).future[:, -1, 0]
    fast = ego.speed_mps > 12.0
    aside = ego.position_m[fast, 1].abs()
    changed = aside > 1.0
    assert 0.2 < changed.float().mean() < 0.8
    assert (aside[changed] - 4.0).abs().median() < 0.7
    assert ego.heading_rad[fast].abs().median() < 0.05
