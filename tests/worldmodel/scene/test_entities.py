"""What concepts are said of does not depend on where on the road it happens."""

from __future__ import annotations

import pytest
import torch
from moving_entities import entities, moving

from drivecast.worldmodel.concepts.ego_drive import driven, fitted
from drivecast.worldmodel.concepts.rules import BY_NAME, Standing
from drivecast.worldmodel.scene.entities import FRAME_S, entities_of
from drivecast.worldmodel.scene.relations import ego_relations

CARS = ((0.0, 0.0, 20.0, 4.0), (30.0, 4.0, 18.0, 4.0), (-25.0, 0.0, 21.0, 0.0))


def test_entities_are_the_same_on_a_turned_road():
    here, there = entities(*CARS), entities(*CARS, turned=0.7)
    for name in ("along_m", "across_m", "speed_mps", "acceleration_mps2", "length_m"):
        torch.testing.assert_close(getattr(here, name), getattr(there, name), atol=2e-3, rtol=1e-4)


def test_who_changes_lane_is_seen_to_move_to_the_left_of_its_first_lane():
    found = entities(*CARS)
    assert found.across_m[0, -1, 0] == pytest.approx(4.0, abs=1e-3)
    assert found.off_centre_m[0, -1, 0] == pytest.approx(0.0, abs=1e-3)  # on the centre of the next one


def test_a_scaled_world_keeps_time_gaps_and_relations_stay_finite():
    found = entities((0.0, 0.0, 20.0, 0.0), (45.0, 0.0, 20.0, 0.0), lengths=(0.0, 0.0))
    twice = found.scaled(torch.tensor([2.0]))
    one, two = (Standing.of(each).time_gap_s[0, :, 1] for each in (found, twice))
    torch.testing.assert_close(one, two)
    assert twice.speed_mps[0, 0, 1] == 40.0
    assert bool(ego_relations(twice)[0].isfinite().all())


def test_gradient_reaches_where_the_ego_is():
    states, road = moving(*CARS)
    position = states.position_m.clone().requires_grad_(True)
    changed = type(states)(**{**{name: getattr(states, name) for name in vars(states)}, "position_m": position})
    ego_relations(entities_of(changed, road, FRAME_S))[0].sum().backward()
    assert bool((position.grad[0, 1:, 0].abs().sum(-1) > 0).all())


def test_a_drive_by_knots_is_found_again_from_where_it_went():
    found = entities(*CARS)
    start, _ = fitted(found)
    knots = torch.tensor([[[0.5, 0.0], [1.0, 0.3], [0.0, 0.0], [-1.0, -0.3], [0.0, 0.0]]])
    went = driven(found, start, knots)
    again = driven(found, *fitted(went))
    torch.testing.assert_close(again.along_m, went.along_m, atol=0.05, rtol=0)
    torch.testing.assert_close(again.across_m, went.across_m, atol=0.1, rtol=0)


def test_nobody_drives_backward_or_sideways_however_hard_it_brakes():
    found = entities((0.0, 0.0, 4.0, 0.0), (30.0, 0.0, 4.0, 0.0))
    start, knots = fitted(found)
    went = driven(found, start, torch.full_like(knots, -6.0))
    steps = went.along_m[0, :, 0].diff()
    assert bool((steps >= 0).all())
    assert steps[-1] < 1e-3
    assert abs(float(went.across_m[0, -1, 0] - went.across_m[0, -3, 0])) < 0.01


@pytest.mark.parametrize(
    ("name", "yes", "no"),
    [
        ("follow-1.6", [(0, 0, 20, 0), (37, 0, 20, 0)], [(0, 0, 20, 0), (49, 0, 20, 0)]),
        ("left-of-level", [(0, 0, 20, 0), (3, -4, 20, -4)], [(0, 0, 20, 0), (3, 4, 20, 4)]),
        ("right-of-behind", [(0, 0, 20, 0), (15, 4, 20, 4)], [(0, 0, 20, 0), (15, 8, 20, 8)]),
        ("merge-behind", [(0, 0, 20, 4), (30, 4, 20, 4)], [(0, 0, 20, 0), (30, 4, 20, 4)]),
        ("merge-ahead", [(0, 0, 20, 4), (-30, 4, 20, 4)], [(0, 0, 20, 4), (30, 4, 20, 4)]),
        ("open-gap", [(0, 0, 18, 0), (4, 4, 20, 4)], [(0, 0, 20, 0), (4, 4, 20, 4)]),
        ("pass", [(0, 0, 24, 0), (6, 4, 20, 4)], [(0, 0, 20, 0), (6, 4, 20, 4)]),
        ("keep-off-truck", [(0, 0, 20, 0), (5, 8, 20, 8)], [(0, 0, 20, 0), (5, 4, 20, 4)]),
    ],
)
def test_a_rule_holds_where_it_should_and_costs_nothing_more_there(name, yes, no):
    lengths = (5.0, 12.0) if name == "keep-off-truck" else ()
    rule = BY_NAME[name]
    good, bad = (
        Standing.of(entities(*[tuple(map(float, car)) for car in cars], lengths=lengths)) for cars in (yes, no)
    )
    assert bool(rule.holds(good)[0, 1])
    assert not bool(rule.holds(bad)[0, 1])
    assert float(rule.violation(good)[0, -1, 1]) < float(rule.violation(bad)[0, -1, 1])


def test_between_is_about_the_leader_and_who_trails():
    standing = Standing.of(
        entities((0.0, 0.0, 20.0, 0.0), (25.0, 0.0, 20.0, 0.0), (10.0, 4.0, 20.0, 4.0), (-24.0, 0.0, 20.0, 0.0))
    )
    rule = BY_NAME["between"]
    assert rule.holds(standing)[0].tolist() == [False, True, False, False]
    assert rule.partner(standing).tolist() == [3]
