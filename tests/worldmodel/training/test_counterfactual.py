"""Claims about egos that drive otherwise than they did."""

import math

import torch
from traffic_scenes import scene

from drivecast.worldmodel.scene.traffic import TrafficState
from drivecast.worldmodel.training.counterfactual import with_other_speed

STEPS, DT_S = 40, 0.1


def drive(radius_m: float = 0.0, speed_mps: float = 10.0) -> tuple[TrafficState, TrafficState]:
    """An ego that goes along a circle (0: straight on) at constant speed, and another vehicle beside it."""
    present = scene((0, 0, speed_mps), (0, -4, speed_mps))
    frames = []
    for step in range(1, STEPS + 1):
        along = speed_mps * step * DT_S
        if radius_m:
            x, y = radius_m * math.sin(along / radius_m), radius_m * (1 - math.cos(along / radius_m))
        else:
            x, y = along, 0.0
        frames.append(scene((x, y, speed_mps), (along, -4, speed_mps)))
    future = TrafficState.stack(frames, 1)
    if radius_m:
        future.heading_rad[..., 0] = speed_mps * DT_S * torch.arange(1, STEPS + 1) / radius_m
    return present, future


def test_the_same_acceleration_gives_the_recorded_drive_again():
    present, future = drive(radius_m=50.0)
    same = with_other_speed(present, future, torch.zeros(1), DT_S)
    torch.testing.assert_close(same.position_m, future.position_m, atol=0.02, rtol=0)
    torch.testing.assert_close(same.speed_mps, future.speed_mps)


def test_a_braking_ego_stops_on_its_path_and_nobody_else_is_touched():
    present, future = drive(radius_m=50.0)
    braked = with_other_speed(present, future, torch.tensor([-5.0]), DT_S)
    ego = braked.position_m[0, :, 0]
    assert float(braked.speed_mps[0, -1, 0]) == 0.0
    # 10 m of a circle of 50 m
    torch.testing.assert_close(ego[-1], torch.tensor([50 * math.sin(0.2), 50 * (1 - math.cos(0.2))]), atol=0.05, rtol=0)
    torch.testing.assert_close(ego[25:], ego[-1:].expand(15, 2))
    torch.testing.assert_close(braked.position_m[:, :, 1], future.position_m[:, :, 1])


def test_a_faster_ego_goes_straight_on_beyond_what_was_recorded():
    present, future = drive()
    faster = with_other_speed(present, future, torch.tensor([2.0]), DT_S)
    torch.testing.assert_close(faster.position_m[0, -1, 0], torch.tensor([40.0 + 0.5 * 2 * 4**2, 0.0]))


def test_an_ego_that_stood_starts_in_its_heading():
    present, future = drive(speed_mps=0.0)
    off = with_other_speed(present, future, torch.tensor([1.0]), DT_S)
    torch.testing.assert_close(off.position_m[0, -1, 0], torch.tensor([8.0, 0.0]), atol=1e-4, rtol=0)
