"""Claims about the statistics by which imagined traffic is compared with the recorded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from recorded_scenes import Track, straight_scene

from drivecast.worldmodel.evaluation.traffic_statistics import TrafficStatistics, traffic_statistics
from drivecast.worldmodel.scene.traffic import TrafficState


def statistics(*tracks: Track, skip: tuple[int, ...] = ()) -> TrafficStatistics:
    scene = straight_scene(list(tracks), frames=41)
    return traffic_statistics(scene.states, scene.road, scene.dt_s, skip)


def test_followers_have_their_gap_and_headway_and_leaders_have_none():
    found = statistics(Track(100, 10.0), Track(70, 10.0), Track(90, 20.0, lane=1))
    assert sorted(set(found.speed_mps.tolist())) == [10.0, 20.0]
    np.testing.assert_allclose(found.gap_m, 25.0, atol=1e-3)
    np.testing.assert_allclose(found.headway_s, 3.0, atol=1e-3)
    assert len(found.gap_m) == 9  # moments 0.5 s apart
    np.testing.assert_allclose(found.acceleration_mps2, 0.0, atol=1e-4)
    assert found.touches.sum() == found.lane_changes_per_min.sum() == 0


def test_who_is_skipped_leads_but_has_no_numbers():
    found = statistics(Track(100, 10.0), Track(70, 12.0), skip=(0,))
    assert set(found.speed_mps.tolist()) == {12.0}
    assert len(found.gap_m) == 9
    assert len(statistics(Track(100, 10.0), Track(70, 12.0), skip=(1,)).gap_m) == 0


def test_overlap_is_a_touch_of_both():
    assert statistics(Track(100, 10.0), Track(96, 10.0)).touches.mean() == 1.0


def test_a_lane_change_is_counted_once_and_by_the_vehicle_s_minute():
    scene = straight_scene([Track(0, 10.0), Track(100, 10.0)], frames=101)
    position = scene.states.position_m.clone()
    position[:, 0, 1] = -4 * torch.linspace(-1, 2, 101).clamp(0, 1)  # to the right, over the marking
    states = TrafficState(position, *(getattr(scene.states, name) for name in REST))
    found = traffic_statistics(states, scene.road, scene.dt_s)
    assert found.lane_changes_per_min.sum() == 120
    minutes = len(found.lane_changes_per_min) * 0.5 / 60
    assert found.lane_changes_per_min.mean() == pytest.approx(1 / minutes)


REST = ("heading_rad", "speed_mps", "length_m", "width_m", "valid")
