"""Costs read from pictures: they are where they should be, agree with those of scenes, and have true gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from traffic_scenes import scene

from drivecast.planner.costs.terms import ProximityConfig
from drivecast.planner.pictures.costs import lane, off_road, proximity
from drivecast.planner.pictures.sight import LAGS, about_ego
from drivecast.planner.pictures.trajectory import PictureTrajectory
from drivecast.worldmodel.raster.clips import clip_of, seen_in
from drivecast.worldmodel.raster.view import Picture, View
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState

PICTURE, SHAPE = Picture(), ProximityConfig()
ROAD = Road.straight(3)


def trajectory(*cars: tuple[float, float, float], aside_m: float = 0.0) -> PictureTrajectory:
    """One moment: the ego first, moved `aside_m` to the left after the view was taken."""
    present = scene(*cars)
    view, now = View.of(present.map(torch.clone), ROAD), torch.zeros(1)
    present.position_m[:, 0, 1] += aside_m
    states = present.map(lambda values: values[:, None])
    nothing = torch.zeros(1, 1)
    goal = Goal(torch.full((1,), 30.0), torch.full((1,), -1))
    return PictureTrajectory(
        states[:, :, :1],
        Controls(nothing, nothing),
        torch.zeros(1),
        ROAD,
        goal,
        0.1,
        clip=clip_of(states, ROAD, view, now, PICTURE),
        view=view,
        seconds=now,
    )


def nearness(ahead_m: float, left_m: float = 0.0, speed: float = 20.0) -> float:
    return float(proximity(trajectory((100.0, -4.0, speed), (100.0 + ahead_m, -4.0 + left_m, speed)), SHAPE, PICTURE))


def test_the_nearer_the_leader_the_dearer():
    costs = [nearness(ahead) for ahead in (40.0, 20.0, 14.0, 8.0)]
    assert costs == sorted(costs)
    assert costs[0] == 0.0
    assert costs[-1] > 0.4


def test_it_is_the_ramp_of_the_gap():
    gap, wanted = 10.0, SHAPE.standstill_m + SHAPE.headway_s * 20.0
    assert nearness(5.0 + gap) == pytest.approx((1.0 - gap / wanted) ** 2, abs=0.06)  # of pixels of a metre


def test_who_is_behind_counts_less_and_who_is_in_the_next_lane_not_at_all():
    assert nearness(-12.0) == pytest.approx(SHAPE.behind * nearness(12.0), rel=0.1)
    assert nearness(12.0, left_m=4.0) == 0.0
    assert 0.0 < nearness(12.0, left_m=2.2) < nearness(12.0)


def test_a_blurred_car_costs_as_much_as_there_is_of_it():
    sharp = trajectory((100.0, -4.0, 20.0), (112.0, -4.0, 20.0))
    blurred = replace(sharp, clip=replace(sharp.clip, others=0.4 * sharp.clip.others))
    assert float(proximity(blurred, SHAPE, PICTURE)) == pytest.approx(0.4 * float(proximity(sharp, SHAPE, PICTURE)))


def test_the_middle_of_a_lane_costs_nothing_a_line_one():
    costs = [float(lane(trajectory((100.0, -4.0, 20.0), aside_m=aside), PICTURE)) for aside in (0.0, 0.5, 1.0, 2.0)]
    assert costs == sorted(costs)
    assert costs[0] < 0.05
    assert costs[-1] == pytest.approx(1.0, abs=0.2)


def test_off_the_road_is_what_is_beyond_its_edge():
    over = [
        float(off_road(trajectory((100.0, -8.0, 20.0), aside_m=aside), PICTURE)) for aside in (0.5, 0.0, -1.5, -3.5)
    ]
    assert over[:2] == [0.0, 0.0]
    assert over[2:] == pytest.approx([0.5, 2.0], abs=0.1)  # of 2 m of width


@pytest.mark.parametrize(
    "score", [lambda t: proximity(t, SHAPE, PICTURE), lambda t: lane(t, PICTURE), lambda t: off_road(t, PICTURE)]
)
def test_gradients_in_the_egos_place_are_true(score):
    at = trajectory((100.0, -8.0, 20.0), (109.3, -7.7, 18.0), aside_m=-1.3)

    def double(record):
        return record.map(lambda values: values.double() if values.is_floating_point() else values)

    at = replace(at, clip=double(at.clip), view=double(at.view), states=double(at.states), seconds=at.seconds.double())

    def of(position: torch.Tensor) -> torch.Tensor:
        return score(replace(at, states=replace(at.states, position_m=position)))

    position = at.states.position_m.clone().requires_grad_()
    assert torch.autograd.gradcheck(of, (position,), eps=1e-6, atol=1e-5)


def moved_view(history: TrafficState, along: float, left: float, slower: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The same history about the ego: drawn there, and shifted from a view that lies and moves elsewhere."""
    own = View.of(history[:, -1], ROAD)
    direct = seen_in(history, ROAD, own, 20, 0.1, PICTURE)
    other = replace(own, origin_m=own.origin_m - torch.tensor([along, left]), speed_mps=own.speed_mps - slower)
    there = seen_in(history, ROAD, other, 20, 0.1, PICTURE)
    lagged = [-1 - lag for lag in LAGS]
    shifted = about_ego(
        there.others[:, lagged],
        there.road,
        torch.full((1,), along),
        torch.full((1,), left),
        torch.full((1,), slower),
        PICTURE,
        0.1,
    )
    return torch.cat([direct.others[:, lagged], direct.road[:, None]], 1), shifted


def test_what_a_policy_sees_does_not_depend_on_where_a_rollouts_view_has_gone():
    from traffic_scenes import history_of

    history = history_of(scene((100.0, -4.0, 20.0), (120.0, -4.0, 17.0), (110.0, 0.0, 24.0)), 20)
    direct, shifted = moved_view(history, along=6.0, left=1.0, slower=-2.5)
    inside = slice(8, 80), slice(3, -3)
    for one, two in zip(direct[0], shifted[0], strict=True):
        torch.testing.assert_close(one[inside], two[inside], atol=0.02, rtol=0)
    direct, shifted = moved_view(history, along=0.0, left=0.0, slower=0.0)
    torch.testing.assert_close(direct, shifted, atol=1e-4, rtol=0)
