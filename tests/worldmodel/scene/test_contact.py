"""Boxes that touch, boxes that will, and whose fault it is."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from highway_env.utils import are_polygons_intersecting
from hypothesis import given, settings
from hypothesis import strategies as st

from drivecast.worldmodel.scene.contact import (
    ContactKind,
    at_fault,
    contact_kind,
    ego_contacts,
    ego_separation_m,
    ego_time_to_collision_s,
    nearest_contact,
    separation_m,
    straddles_lanes,
)
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState


def scene(*vehicles: tuple[float, float, float, float], length_m: float = 5.0, width_m: float = 2.0) -> TrafficState:
    """One scene of vehicles (x, y, heading, speed)."""
    values = torch.tensor(vehicles, dtype=torch.float64)[None]
    shape = values.shape[:2]
    return TrafficState(
        position_m=values[..., :2],
        heading_rad=values[..., 2],
        speed_mps=values[..., 3],
        length_m=torch.full(shape, length_m, dtype=torch.float64),
        width_m=torch.full(shape, width_m, dtype=torch.float64),
        valid=torch.ones(shape, dtype=torch.bool),
    )


places = st.tuples(st.floats(-7, 7), st.floats(-7, 7), st.floats(-math.pi, math.pi), st.just(0.0))


@settings(max_examples=200, deadline=None)
@given(places)
def test_overlap_agrees_with_highway_env(place):
    state = scene((0.0, 0.0, 0.3, 0.0), place)
    gap = float(ego_separation_m(state)[0, 1])
    if abs(gap) < 1e-6:
        return  # on the edge
    ego, other = state.corners_m()[0].numpy()
    closed = [np.vstack([corners, corners[:1]]) for corners in (ego, other)]
    assert are_polygons_intersecting(*closed, np.zeros(2), np.zeros(2))[0] == (gap < 0)


def test_crossed_boxes_overlap_though_no_corner_is_inside():
    assert ego_contacts(scene((0, 0, 0, 0), (0, 0, math.pi / 2, 0)))[0].tolist() == [False, True]


def test_separation_of_boxes_in_a_row_is_the_gap_between_bumpers():
    state = scene((0, 0, 0, 0), (12, 0, 0, 0))
    assert separation_m(state[:, 0], state[:, 1]).item() == pytest.approx(7.0)


def test_contact_within_tolerance_is_none():
    state = scene((0, 0, 0, 0), (4.97, 0, 0, 0))
    assert ego_contacts(state)[0, 1]
    assert not ego_contacts(state, tolerance_m=0.05)[0, 1]


def test_absent_vehicles_do_not_touch():
    state = scene((0, 0, 0, 0), (1, 0, 0, 0))
    absent = TrafficState(**{**state.__dict__, "valid": torch.tensor([[True, False]])})
    assert not ego_contacts(absent).any()
    assert nearest_contact(absent).tolist() == [-1]
    assert ego_time_to_collision_s(absent).isinf().all()


def test_time_to_collision_is_gap_over_closing_speed():
    ttc = ego_time_to_collision_s(scene((0, 0, 0, 20), (25, 0, 0, 10), (25, 4, 0, 0), (-25, 0, 0, 30)))
    assert ttc[0, 1].item() == pytest.approx(2.0)
    assert ttc[0, 2:].isinf().all()  # beside, and behind: not the ego's to watch
    assert ttc[0, 0].isinf()


@settings(max_examples=60, deadline=None)
@given(st.floats(5, 30), st.floats(-6, 6), st.floats(-1, 1), st.floats(0, 20))
def test_time_to_collision_is_when_stepped_boxes_first_overlap(x, y, heading, speed):
    state = scene((0, 0, 0.0, 15), (x, y, heading, speed))
    ttc = ego_time_to_collision_s(state)[0, 1].item()
    if abs(math.atan2(y, x)) >= math.radians(29) or separation_m(state[:, 0], state[:, 1]).item() < 0.05:
        return
    times = torch.arange(0, 8, 0.005, dtype=torch.float64)
    moved = state.position_m + state.velocity_mps * times[:, None, None]
    boxes = TrafficState(
        moved,
        *(getattr(state, name).expand(len(times), 2) for name in ("heading_rad", "speed_mps", "length_m")),
        state.width_m.expand(len(times), 2),
        state.valid.expand(len(times), 2),
    )
    overlap = separation_m(boxes[:, 0], boxes[:, 1]) < 0
    first = times[overlap][0].item() if overlap.any() else math.inf
    if math.isinf(first):
        assert ttc > 7.9 or _grazes(boxes)
    else:
        assert ttc == pytest.approx(first, abs=0.01)


def _grazes(boxes: TrafficState) -> bool:
    return bool(separation_m(boxes[:, 0], boxes[:, 1]).min() < 0.05)


@pytest.mark.parametrize(
    ("ego", "other", "kind"),
    [
        ((0, 0, 0, 20), (4.8, 0, 0, 10), ContactKind.FRONT),
        ((0, 0, 0, 10), (-4.8, 0.2, 0, 20), ContactKind.REAR),
        ((0, 0, 0, 10), (-1, 1.9, 0, 12), ContactKind.SIDE),
        ((0, 0, 0, 10), (4.8, 0, 0, 0), ContactKind.STANDING_OTHER),
        ((0, 0, 0, 0), (4.8, 0, 0, 5), ContactKind.STANDING_EGO),
    ],
)
def test_kind_of_contact(ego, other, kind):
    state = scene(ego, other)
    assert contact_kind(state, torch.tensor([1])).tolist() == [kind]
    assert contact_kind(state, torch.tensor([-1])).tolist() == [ContactKind.NONE]


def test_fault_needs_running_into_or_leaving_the_lane():
    kinds = torch.tensor([ContactKind.FRONT, ContactKind.REAR, ContactKind.SIDE, ContactKind.STANDING_EGO])
    keeps, leaves = torch.ones(4, dtype=torch.bool), torch.zeros(4, dtype=torch.bool)
    assert at_fault(kinds, keeps).tolist() == [True, False, False, False]
    assert at_fault(kinds, leaves).tolist() == [True, True, True, False]


def test_straddling_is_reaching_over_the_lane_marking():
    road = Road.straight(2).map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)
    assert straddles_lanes(scene((0, 0.9, 0, 10)), road).tolist() == [False]
    assert straddles_lanes(scene((0, 1.1, 0, 10)), road).tolist() == [True]
    assert straddles_lanes(scene((0, 0.0, 0.6, 10)), road).tolist() == [True]
    assert straddles_lanes(scene((0, 1.1, 0, 10)), road, beyond_m=0.3).tolist() == [False]
    assert straddles_lanes(scene((0, 1.4, 0, 10)), road, beyond_m=0.3).tolist() == [True]
