"""Where vehicles enter imagined traffic, how many and how fast, as the recording shows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from imagined_scenes import EVERY_S, SPEED_MPS, flowing_scene
from recorded_scenes import Track, straight_scene

from drivecast.envs.imagined.section import find_sections


def test_the_flow_is_that_of_a_point_on_the_road():
    sections, _ = find_sections([flowing_scene(300)], 2)
    torch.testing.assert_close(sections.flow_per_s, torch.full((1, 2), 1 / EVERY_S), rtol=0.1, atol=0)
    assert (sections.speed_mps == SPEED_MPS).all()
    torch.testing.assert_close(sections.enter_m[0], torch.tensor([[0.0, 0.0], [0.0, -4.0]]))
    torch.testing.assert_close(sections.exit_along_m, torch.full((1, 2), 300.0))


def test_the_flow_does_not_shrink_where_less_of_the_road_is_seen():
    scene = flowing_scene(300)
    seen = scene.states.valid.clone()
    seen[150:] &= scene.states.position_m[150:, :, 0] < 120
    part = replace(scene, states=replace(scene.states, valid=seen))
    flows = [find_sections([each], 2)[0].flow_per_s for each in (scene, part)]
    torch.testing.assert_close(flows[0], flows[1], rtol=0.15, atol=0)


def test_headways_keep_their_distribution_about_a_mean_of_one():
    # behind each other by 1 s and 3 s in turn
    x = [300 - sum((10, 30)[k % 2] for k in range(n)) for n in range(11)]
    _, headways = find_sections([straight_scene([Track(x_m, 10.0) for x_m in x])], 2)
    assert headways.mean() == pytest.approx(1.0)
    assert headways.min() == pytest.approx(0.5, abs=0.05)
    assert headways.max() == pytest.approx(1.5, abs=0.05)


def test_nobody_enters_where_nobody_was_recorded():
    sections, _ = find_sections([straight_scene([Track(10, 10.0), Track(60, 10.0)])], 3)  # a lane of padding, too
    assert sections.flow_per_s[0, 0] > 0
    assert (sections.flow_per_s[0, 1:] == 0).all()
