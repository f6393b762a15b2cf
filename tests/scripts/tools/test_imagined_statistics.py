"""The tool that compares imagined traffic with the recorded."""

from __future__ import annotations

import numpy as np
import pytest
from imagined_scenes import by_hand, flowing_scene, flowing_tracks, write_world_model
from recorded_scenes import straight_store

from drivecast.envs.imagined.traffic import ImaginedTraffic, ImaginedTrafficConfig
from drivecast.scripts.tools.imagined_statistics import BINS, imagined, likelihood, main, recorded, table


def test_traffic_that_is_imagined_as_it_was_is_near_to_it():
    scene = flowing_scene()
    traffic = ImaginedTraffic({"made": scene}, by_hand(), ImaginedTrafficConfig(duration_s=10.0, near_m=0.0))
    lines = table(imagined(traffic, 4), recorded([scene, scene]))
    values = {line.split()[0]: [float(value) for value in line.split()[1:]] for line in lines[1:]}
    assert values["speed_mps"][1] == 15.0
    assert values["speed_mps"][2] < 1.5
    assert values["headway_s"][2] < 0.6
    assert all(row[3] == 0.0 for row in values.values())  # equal halves


def test_what_was_recorded_is_likelier_where_it_was_imagined_as_often():
    drawn = np.random.default_rng(0)
    truth = drawn.normal(10.0, 2.0, 5000)
    same, wider, shifted = (
        likelihood(drawn.normal(*of, 5000), truth) for of in ((10.0, 2.0), (10.0, 6.0), (14.0, 2.0))
    )
    assert same > wider > shifted
    flat = likelihood(np.linspace(0.0, 1.0, 1000), np.linspace(0.0, 1.0, 1000))
    assert flat == pytest.approx(1 / BINS, rel=0.02)


def test_it_prints_a_line_for_each_measure_or_one_that_says_what_is_wrong(tmp_path, capsys):
    store = straight_store(tmp_path / "data", flowing_tracks())
    model = write_world_model(tmp_path / "wm", 0)
    given = ["--model", str(model), "--data", str(store), "--episodes", "2", "--duration-s", "2"]
    assert main(given) == 0
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()[1:]] == [
        "speed_mps",
        "headway_s",
        "gap_m",
        "acceleration_mps2",
        "touches",
        "lane_changes_per_min",
    ]
    assert main([*given, "--split", "train"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
