"""Whoever can still stop behind its leader does, whatever the network says."""

from dataclasses import replace

import pytest
import torch
from traffic_scenes import history_of, scene

from drivecast.worldmodel.forecaster.forecast import forecast
from drivecast.worldmodel.forecaster.keeping_clear import (
    BRAKING_MPS2,
    GAP_M,
    HARDEST_MPS2,
    ROOM_M,
    SIDEWAYS_MPS2,
    bounds,
)
from drivecast.worldmodel.forecaster.model import WorldModel, WorldModelConfig
from drivecast.worldmodel.scene.neighbours import find_neighbours
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState

ROAD = Road.straight(2)


def bound_of(state: TrafficState, interval_s: float = 0.2) -> torch.Tensor:
    on_lane = ROAD.project(state.position_m)
    return bounds(state, on_lane, find_neighbours(state, on_lane), interval_s)


def most(*vehicles: tuple[float, float, float], interval_s: float = 0.2) -> float:
    """Of the last vehicle."""
    state = scene(*vehicles)
    return float(bound_of(state, interval_s)[0, -1, 0])


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


def test_who_will_have_drifted_into_the_way_within_a_second_is_a_leader():
    def bound(heading_rad: float) -> float:
        return float(bound_of(drifting((9, 2.8, 8, heading_rad), (0, 0, 20, 0)))[0, -1, 0])

    assert bound(-0.2) == -HARDEST_MPS2  # 1.6 m/s towards it, 0.8 m away
    assert bound(-0.05) == bound(0.2) == torch.inf


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

    def nearest_m(keeps_clear: bool) -> torch.Tensor:
        config = WorldModelConfig(hidden=8, keeps_clear=keeps_clear, decide_steps=decide_steps)
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
        bound_of(moved)[0, 1, 0].backward()
        assert torch.isfinite(position.grad).all()
        assert torch.isfinite(speeds.grad).all()
    moving = scene((20, 0, 8), (0, 0, 10))
    speeds = moving.speed_mps.clone().requires_grad_()
    state = TrafficState(moving.position_m, moving.heading_rad, speeds, moving.length_m, moving.width_m, moving.valid)
    bound_of(state)[0, 1, 0].backward()
    assert float(speeds.grad[0, 0]) > 0.0


def drifting(*vehicles: tuple[float, float, float, float]) -> TrafficState:
    """Cars at `(x_m, y_m, speed_mps, heading_rad)`."""
    state = scene(*((x, y, speed) for x, y, speed, _ in vehicles))
    return replace(state, heading_rad=torch.tensor([[heading for *_, heading in vehicles]]))


def test_nobody_turns_towards_who_is_beside_it_faster_than_it_can_stop_to():
    least, most_turn = bound_of(drifting((0, -2.6, 15, 0), (0, 0, 15, 0)))[0, -1, 1:].tolist()
    towards = (2 * SIDEWAYS_MPS2 * (0.6 - ROOM_M)) ** 0.5  # 0.6 m from side to side
    assert least == pytest.approx(-towards / (15**2 * 0.2), rel=1e-3)
    assert most_turn == torch.inf
    least, _ = bound_of(drifting((0, -2.6, 15, 0), (0, 0, 15, -0.1)))[0, -1, 1:].tolist()
    assert least > 0.0  # too fast already


@pytest.mark.parametrize(("x_m", "faster_mps", "binds"), [(7, 0, False), (7, 3, True), (-7, 3, False), (-7, -3, True)])
def test_beside_is_also_who_will_be_there_soon(x_m: float, faster_mps: float, binds: bool):
    least = bound_of(drifting((x_m, -2.6, 15, 0), (0, 0, 15 + faster_mps, 0)))[0, -1, 1]
    assert bool(least.isfinite()) == binds


def test_who_is_squeezed_from_both_sides_goes_between():
    state = drifting((0, -2.05, 15, 0), (0, 2.05, 15, -0.02), (0, 0, 15, 0))
    least, most_turn = bound_of(state)[0, -1, 1:].tolist()
    assert least == pytest.approx(most_turn)
    assert -0.02 * 15 / (15**2 * 0.2) < least < 0.0


@pytest.mark.parametrize("decide_steps", [1, 2])
def test_a_network_that_drifts_into_who_is_beside_it_touches_nobody(decide_steps: int):
    present = scene((0, -4, 15), (1, 0, 15))
    steering = replace(present, heading_rad=torch.tensor([[0.03, 0.0]]))  # 0.45 m/s to the left, for ever

    def nearest_m(keeps_clear: bool) -> float:
        config = WorldModelConfig(hidden=8, keeps_clear=keeps_clear, decide_steps=decide_steps)
        net = WorldModel(config).eval().requires_grad_(False)
        future = forecast(net, net.observe(history_of(steering, 5), ROAD), ROAD, 80)
        return float((future.position_m[0, :, 0, 1] - future.position_m[0, :, 1, 1]).abs().amin() - 2.0)

    assert nearest_m(False) < 0.0
    assert nearest_m(True) > 0.0


def test_bounds_of_the_drift_have_finite_gradients():
    state = drifting((0, -2.6, 15, 0), (0, 0, 15, -0.1), (0, 2.1, 0, 0))
    leaves = [values.clone().requires_grad_() for values in (state.position_m, state.heading_rad, state.speed_mps)]
    bound = bound_of(TrafficState(*leaves, state.length_m, state.width_m, state.valid))
    bound[bound.isfinite()].sum().backward()
    assert all(torch.isfinite(leaf.grad).all() for leaf in leaves)
