"""Pictures show who is where: areas, places, lines, a view that moves, and their gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from traffic_scenes import history_of, scene

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.raster.clips import future_seconds, history_seconds, seen_in, with_whole_history
from drivecast.worldmodel.raster.view import MARKING, Picture, View, draw_road, draw_vehicles
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState

PICTURE = Picture()
NOW = torch.zeros(1)
ROAD = Road.straight(3)


def of(*cars: tuple[float, float, float]) -> tuple[TrafficState, View]:
    """Cars at one moment, `(1, 1, car)`, and the view of the first one."""
    present = scene(*cars)
    return present.map(lambda values: values[:, None]), View.of(present, ROAD)


def middle(picture: torch.Tensor) -> tuple[float, float]:
    """Where what is drawn lies in the view, m ahead and to the left."""
    total = picture.sum()
    ahead = (picture.sum(1) * PICTURE.along_m(picture)).sum() / total
    return float(ahead), float((picture.sum(0) * PICTURE.left_m(picture)).sum() / total)


@pytest.mark.parametrize(("ahead", "left"), [(0.0, 0.0), (20.3, 2.7), (-30.0, -4.0)])
def test_a_car_covers_its_area_about_its_place(ahead, left):
    states, view = of((100.0, -4.0, 20.0), (100.0 + ahead, -4.0 + left, 20.0))
    drawn = draw_vehicles(states[:, :, 1:], view, NOW, PICTURE)[0, 0]
    assert float(drawn.sum()) * PICTURE.row_m * PICTURE.column_m == pytest.approx(5.0 * 2.0, rel=1e-4)
    assert middle(drawn) == pytest.approx((ahead, left), abs=1e-3)


def test_a_turned_car_leans():
    states, view = of((100.0, -4.0, 20.0), (120.0, -4.0, 20.0))
    turned = replace(states, heading_rad=states.heading_rad + 0.2)
    drawn = draw_vehicles(turned[:, :, 1:], view, NOW, PICTURE)[0, 0]
    fore, aft = drawn.clone(), drawn.clone()
    fore[: round(PICTURE.behind_m) + 20], aft[round(PICTURE.behind_m) + 20 :] = 0.0, 0.0
    assert middle(fore)[1] > 0.1 > -0.1 > middle(aft)[1]  # its front is to the left of its rear


def test_who_is_out_of_view_or_not_there_is_not_drawn():
    states, view = of((100.0, -4.0, 20.0), (170.0, -4.0, 20.0), (110.0, -4.0, 20.0))
    states = replace(states, valid=torch.tensor([[[True, True, False]]]))
    assert float(draw_vehicles(states[:, :, 1:], view, NOW, PICTURE).sum()) == 0.0


def test_the_view_goes_with_the_ego():
    present = scene((100.0, -4.0, 20.0), (120.0, -4.0, 20.0), (120.0, 0.0, 25.0))
    view, seconds = View.of(present, ROAD), future_seconds(20, 0.1, present.speed_mps)
    later = present.map(lambda values: values[:, None].repeat(1, 20, *[1] * (values.dim() - 1)))
    later.position_m.add_(later.velocity_mps * seconds[:, None, None])
    drawn = draw_vehicles(later[:, :, 1:2], view, seconds, PICTURE)[0]
    torch.testing.assert_close(drawn, drawn[:1].expand_as(drawn), atol=1e-4, rtol=0)  # as fast as the ego: stands
    faster = draw_vehicles(later[:, :, 2:], view, seconds, PICTURE)[0]
    assert middle(faster[-1])[0] - middle(faster[0])[0] == pytest.approx(5.0 * 1.9, abs=1e-2)


def test_lines_lie_between_lanes_and_all_is_verge_beyond():
    _, view = of((100.0, -4.0, 20.0))  # the middle one of three lanes
    drawn = draw_road(ROAD, view, NOW, PICTURE)[0, 0]
    row, left = drawn[50], PICTURE.left_m(drawn)
    assert float(row[(left.abs() < 1.5)].max()) == 0.0  # nothing where the ego may drive
    on_line = float(row[(left - 2.0).abs() < 0.5].sum()) * PICTURE.column_m
    assert on_line == pytest.approx(MARKING * 0.3, abs=1e-4)
    _, right = of((100.0, -8.0, 20.0))  # the rightmost
    row = draw_road(ROAD, right, NOW, PICTURE)[0, 0, 50]
    assert float(row[left < -2.5].min()) == 1.0
    torch.testing.assert_close(drawn, drawn[:1].expand_as(drawn))  # a straight road looks the same everywhere


def test_the_road_slides_by_where_it_ends():
    road = Road.straight(2, length_m=60.0, start_m=100.0)
    road = replace(road, open_end=torch.tensor([[True, False]]))
    view = View.of(scene((120.0, 0.0, 10.0)), road)
    pictures = draw_road(road, view, torch.tensor([0.0, 1.0]), PICTURE)[0]
    right = (PICTURE.left_m(pictures) + 4.0).abs() < 1.0  # the lane beside, that ends 40 m ahead
    ends = [float((picture[:, right].mean(1) < 0.5).nonzero().max()) - PICTURE.behind_m for picture in pictures]
    assert ends[0] == pytest.approx(40.0, abs=8.0)
    assert ends[0] - ends[1] == pytest.approx(10.0, abs=1.5)


def test_the_picture_of_the_ego_has_a_true_gradient():
    states, view = of((100.0, -4.0, 20.0))
    states, view = states.map(lambda v: v.double() if v.is_floating_point() else v), view.map(torch.Tensor.double)
    weight = torch.rand(PICTURE.rows, PICTURE.columns, dtype=torch.double, generator=torch.Generator().manual_seed(1))

    def weighed(position: torch.Tensor, heading: torch.Tensor) -> torch.Tensor:
        moved = replace(states, position_m=position, heading_rad=heading)
        return (draw_vehicles(moved, view, NOW.double(), PICTURE) * weight).sum()

    position = (states.position_m + torch.tensor([0.37, 0.11])).requires_grad_()
    heading = (states.heading_rad + 0.03).requires_grad_()
    assert torch.autograd.gradcheck(weighed, (position, heading), eps=1e-6, atol=1e-5)


def test_who_was_not_there_yet_came_at_its_speed():
    present = scene((100.0, -4.0, 20.0), (120.0, 0.0, 25.0))
    whole = history_of(present, 20)
    known = whole[:, -3:]
    filled = with_whole_history(known, 20, 0.1)
    torch.testing.assert_close(filled.position_m, whole.position_m, atol=1e-3, rtol=0)
    assert bool(filled.valid.all())
    late = replace(whole, valid=whole.valid.index_fill(1, torch.arange(12), False))
    torch.testing.assert_close(with_whole_history(late, 20, 0.1).position_m, whole.position_m, atol=1e-3, rtol=0)


def test_who_has_left_is_not_drawn_any_more():
    present = scene((100.0, -4.0, 20.0), (120.0, 0.0, 25.0))
    history = history_of(present, 20)
    history.valid[:, 10:, 1] = False
    seen = seen_in(history, ROAD, View.of(present, ROAD), 20, 0.1, PICTURE)
    assert float(seen.others[0, 9].sum()) > 0.0
    assert float(seen.others[0, 10:].sum()) == 0.0


def test_the_present_is_the_last_of_the_past():
    like = torch.zeros(1)
    torch.testing.assert_close(history_seconds(3, 0.1, like), torch.tensor([-0.2, -0.1, 0.0]))
    torch.testing.assert_close(future_seconds(2, 0.1, like), torch.tensor([0.1, 0.2]))


def test_a_picture_that_cannot_be_halved_thrice_is_refused():
    with pytest.raises(InputError, match=r"picture\.columns: expected a multiple of 8, got 20"):
        Picture(columns=20)
