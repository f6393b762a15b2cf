"""What `drivecast measure-simulator` leaves behind."""

import json
import os

import pytest

from drivecast.scripts.tracking.run import ConsoleRun
from drivecast.scripts.verbs.measure_simulator import MeasureSimulatorConfig, run
from drivecast.worldmodel.errors import InputError


def test_speed_json_has_both_speeds_and_their_ratio(tmp_path):
    config = MeasureSimulatorConfig(
        tmp_path, "highway-fast-v0", episodes=8, turns=1, turn_s=0.3, scaling_vehicles=[5], scaling_episodes=[1, 2]
    )
    run(config, ConsoleRun())
    speed = json.loads((tmp_path / "speed.json").read_text())
    assert speed["environment"] == "highway-fast-v0"
    assert (speed["vehicles"], speed["episodes"], speed["cores"]) == (21, 8, 1)
    assert speed["ratio"] == pytest.approx(speed["batched_steps_per_s"] / speed["highway_env_steps_per_s"])
    assert [(row["vehicles"], row["episodes"]) for row in speed["scaling"]] == [(5, 1), (5, 2)]
    assert all(row["steps_per_s"] > 0 for row in speed["scaling"])


def test_an_unknown_environment_is_refused_with_one_line(tmp_path):
    with pytest.raises(InputError, match="environment: expected one of highway-v0"):
        run(MeasureSimulatorConfig(tmp_path, "racetrack-v0"), ConsoleRun())


def test_an_earlier_speed_is_replaced_and_not_written_over(tmp_path):
    (tmp_path / "speed.json").write_text("before")
    os.link(tmp_path / "speed.json", tmp_path / "earlier.json")
    config = MeasureSimulatorConfig(
        tmp_path, "highway-fast-v0", episodes=1, turns=1, turn_s=0.1, scaling_vehicles=[], scaling_episodes=[1]
    )
    run(config, ConsoleRun())
    assert (tmp_path / "earlier.json").read_text() == "before"
    assert json.loads((tmp_path / "speed.json").read_text())["episodes"] == 1
