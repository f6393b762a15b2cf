"""Claims about lanes and the roads they make."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.recordings.lane import Lane, completed, read_lanes, road_of


def line(*points: tuple[float, float]) -> np.ndarray:
    return np.array(points)


def section() -> list[Lane]:
    """Two lanes of 300 m, an on-ramp that joins at 120 m and runs out at 200 m, and the ramp that leads into it."""
    return [
        Lane(1, line((0, 0), (300, 0)), 3.6),
        Lane(2, line((0, -3.6), (150, -3.6), (300, -3.6)), 3.6),
        Lane(3, line((120, -7.2), (200, -7.2)), 3.6),
        Lane(4, line((40, -17.0), (119, -7.4)), 3.6),
    ]


def test_neighbours_are_the_lanes_alongside() -> None:
    lanes = completed(section())
    assert [lane.left for lane in lanes] == [0, 1, 2, 0]
    assert [lane.right for lane in lanes] == [2, 3, 0, 0]


def test_ramp_is_closed_where_it_begins_late_and_ends_early() -> None:
    lanes = completed(section())
    assert [lane.open_start for lane in lanes] == [True, True, False, False]
    assert [lane.open_end for lane in lanes] == [True, True, False, False]


def test_what_the_file_says_is_kept() -> None:
    lanes = completed([Lane(1, line((0, 0), (300, 0)), 3.6, 20.0, 0, 0, False, False), section()[1]], 29.0)
    assert (lanes[0].speed_limit_mps, lanes[0].right, lanes[0].open_start, lanes[0].open_end) == (20.0, 0, False, False)
    assert (lanes[1].speed_limit_mps, lanes[1].left) == (29.0, 1)


def test_width_of_another_length_than_the_centre_is_refused() -> None:
    with pytest.raises(InputError, match="lane 1: expected a width for each of its 2 points, got 3"):
        Lane(1, line((0, 0), (9, 0)), np.ones(3))


def test_road_projects_on_the_lanes() -> None:
    road = road_of(section())
    there = road.project(torch.tensor([[[160.0, -7.0], [50.0, 0.5], [350.0, -3.0]]]))
    assert there.lane.tolist() == [[2, 0, 1]]
    assert there.across_m[0].tolist() == pytest.approx([0.2, 0.5, 0.6], abs=1e-4)
    assert road.off_road_m(torch.tensor([[[350.0, -3.0]]])).item() == 0.0


def test_simplified_lane_keeps_centre_and_edges_within_a_decimetre() -> None:
    x = np.arange(0, 400, 5.0)
    lane = Lane(1, np.stack([x, 3 * np.sin(x / 60)], 1), 3.6 + 0.8 * (x > 200))
    simple = lane.simplified()
    assert len(simple.centre_m) < len(x) / 2
    assert np.abs(np.interp(x, simple.centre_m[:, 0], simple.centre_m[:, 1]) - lane.centre_m[:, 1]).max() < 0.11
    assert np.abs(np.interp(x, simple.centre_m[:, 0], simple.width_m) - lane.width_m).max() < 0.21
    assert len(Lane(1, np.stack([x, 0 * x], 1), 3.6).simplified().centre_m) == 2


def test_lane_survives_json(tmp_path) -> None:
    import json

    (tmp_path / "lanes.json").write_text(json.dumps([lane.as_json("r") for lane in completed(section())]))
    again = read_lanes(tmp_path / "lanes.json")["r"]
    for one, two in zip(completed(section()), again, strict=True):
        assert one.as_json("r") == two.as_json("r")


@pytest.mark.parametrize(
    ("centre", "width"),
    [(line((0, 0)), 3.6), (line((0, 0), (0, 0)), 3.6), (line((0, 0), (9, np.nan)), 3.6), (line((0, 0), (9, 0)), -1.0)],
)
def test_impossible_lane_is_refused(centre: np.ndarray, width: float) -> None:
    with pytest.raises(InputError, match="lane 7"):
        Lane(7, centre, width)
