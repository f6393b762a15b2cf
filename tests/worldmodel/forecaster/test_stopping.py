"""Whoever can still stop behind its leader does, whatever the network says."""

import pytest
import torch
from traffic_scenes import history_of, scene

from drivecast.worldmodel.forecaster.forecast import forecast
from drivecast.worldmodel.forecaster.model import WorldModel, WorldModelConfig
from drivecast.worldmodel.forecaster.stopping import BRAKING_MPS2, GAP_M, HARDEST_MPS2, most_acceleration
from drivecast.worldmodel.scene.neighbours import find_neighbours
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState

ROAD = Road.straight(2)


def most(*vehicles: tuple[float, float, float], interval_s: float = 0.2) -> float:
    """Of the last vehicle."""
    state = scene(*vehicles)
    return float(most_acceleration(state, find_neighbours(state, ROAD.project(state.position_m)), interval_s)[0, -1])


def test_the_bound_is_the_speed_from_which_a_car_stops_behind_a_standing_one():
    gap_m, speed_mps = 30.0, 12.0
    room_m = gap_m - speed_mps * 0.2 - GAP_M  # after the interval
    expected = ((2 * BRAKING_MPS2 * room_m) ** 0.5 - speed_mps) / 0.2
    assert most((gap_m + 5.0, 0, 0), (0, 0, speed_mps)) == pytest.approx(expected, abs=1e-4)


def test_who_cannot_stop_brakes_as_hard_as_it_can():
    assert most((15, 0, 0), (0, 0, 20)) == -HARDEST_MPS2


def test_who_has_no_leader_or_one_that_it_would_pass_is_free():
    assert most((0, 0, 20)) == torch.inf
    assert most((12, 2.2, 0), (0, 0, 20)) == torch.inf


def test_the_second_leader_binds_where_the_first_one_hides_it():
    """The first is beside the corridor by a hand's breadth: it is not in the way, who stands before it is."""
    assert most((14, 0, 0), (8, 2.2, 20), (0, 0, 20)) == -HARDEST_MPS2


@pytest.mark.parametrize("decide_steps", [1, 2])
def test_followers_answer_an_ego_that_brakes_harder_than_any_network_has_seen(decide_steps: int):
    """The untrained network goes on at the same speed: without the bound it runs into the ego."""
    present = scene((0, 0, 20), (-18, 0, 20), (-36, 0, 20))
    time_s = 0.1 * torch.arange(1, 81)
    speed = (20 - 6.0 * time_s).clamp_min(0)
    stop = torch.where(time_s < 20 / 6, 20 * time_s - 3 * time_s**2, 400 / 12)
    known = TrafficState.stack([present] * 80, 1)
    known.position_m[:, :, 0, 0] = stop
    known.speed_mps[:, :, 0] = speed
    who = torch.tensor([[True, False, False]])

    def nearest_m(stops_in_time: bool) -> torch.Tensor:
        config = WorldModelConfig(hidden=8, stops_in_time=stops_in_time, decide_steps=decide_steps)
        net = WorldModel(config).eval().requires_grad_(False)
        x = forecast(net, net.observe(history_of(present, 5), ROAD), ROAD, 80, known, who).position_m[0, :, :, 0]
        return (x[:, :-1] - x[:, 1:]).amin(0) - 5.0  # from bumper to bumper

    assert float(nearest_m(False)[0]) < 0.0
    assert bool((nearest_m(True) > 0.0).all())


def test_the_bound_hands_the_leaders_motion_on_as_a_gradient_also_at_standstill():
    for speed in (0.0, 15.0):
        state = scene((8, 0, 0), (0, 0, speed))
        position = state.position_m.clone().requires_grad_()
        speeds = state.speed_mps.clone().requires_grad_()
        moved = TrafficState(position, state.heading_rad, speeds, state.length_m, state.width_m, state.valid)
        bound = most_acceleration(moved, find_neighbours(moved, ROAD.project(moved.position_m)), 0.2)
        bound[0, 1].backward()
        assert torch.isfinite(position.grad).all()
        assert torch.isfinite(speeds.grad).all()
    moving = scene((20, 0, 8), (0, 0, 10))
    speeds = moving.speed_mps.clone().requires_grad_()
    state = TrafficState(moving.position_m, moving.heading_rad, speeds, moving.length_m, moving.width_m, moving.valid)
    most_acceleration(state, find_neighbours(state, ROAD.project(state.position_m)), 0.2)[0, 1].backward()
    assert float(speeds.grad[0, 0]) > 0.0
