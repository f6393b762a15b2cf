"""Claims about whom a vehicle watches."""

from dataclasses import replace

import torch
from traffic_scenes import scene

from drivecast.worldmodel.scene.neighbours import SLOTS, find_neighbours
from drivecast.worldmodel.scene.road import Road

ROAD = Road.straight(3)


def around(state):
    return find_neighbours(state, ROAD.project(state.position_m))


def test_each_direction_holds_its_nearest():
    state = scene(
        (0, -4, 20),  # the ego, in the middle lane
        (20, -4, 18),  # leader
        (45, -4, 18),  # second leader
        (-15, -4, 25),  # follower
        (12, 0, 22),
        (3, 0, 22),  # left ahead: this one is nearer
        (-9, 0, 22),
        (30, -8, 22),
        (-30, -8, 22),
    )
    found = around(state)
    assert found.present[0, 0].all()
    assert dict(zip(SLOTS, found.index[0, 0].tolist(), strict=True)) == {
        "leader": 1,
        "second_leader": 2,
        "follower": 3,
        "left_ahead": 5,
        "left_behind": 6,
        "right_ahead": 7,
        "right_behind": 8,
    }
    assert found.gap_m[0, 0, 0].item() == 15.0  # bumper to bumper
    assert found.closing_mps[0, 0, 0].item() == 2.0
    assert found.gap_m[0, 0, 2].item() == 10.0
    assert found.closing_mps[0, 0, 2].item() == 5.0


def test_padding_and_oneself_are_never_neighbours():
    state = scene((0, -4, 20), (20, -4, 18))
    state = replace(state, valid=torch.tensor([[True, False]]))
    assert not around(state).present[0, 0].any()


def test_a_lone_vehicle_has_no_neighbours():
    assert not around(scene((0, 0, 20))).present.any()


def test_a_straddling_car_is_in_the_way():
    found = around(scene((0, -4, 20), (20, -2.0, 18)))  # half in the left lane: bodies would touch
    assert found.index[0, 0, 0].item() == 1
    assert found.present[0, 0, 0]


def test_features_of_empty_slots_are_zero_and_all_are_finite():
    features = around(scene((0, -4, 20), (2.0, -4, 18), (0, 0, 0))).features()
    assert features.isfinite().all()
    empty = ~around(scene((0, -4, 20), (2.0, -4, 18), (0, 0, 0))).present
    assert (features[empty] == 0).all()


def test_leader_gap_has_a_gradient_in_both_positions():
    state = scene((0, -4, 20), (20, -4, 18))
    position = state.position_m.clone().requires_grad_()
    found = around(replace(state, position_m=position))
    found.gap_m[0, 0, 0].backward()
    assert position.grad is not None
    assert position.grad[0, :, 0].tolist() == [-1.0, 1.0]
