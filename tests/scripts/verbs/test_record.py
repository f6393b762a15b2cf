"""`drivecast record`."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from policies import write_policy

from drivecast.envs.recording import batched_episodes as batched_recording
from drivecast.envs.recording import highway_episodes as highway_recording
from drivecast.envs.recording import recorder
from drivecast.envs.recording.cast import BEHAVIOURS, RecordingPlan
from drivecast.envs.recording.highway_episodes import record_episode
from drivecast.scripts.tracking.run import ConsoleRun
from drivecast.scripts.verbs.record import RecordConfig, run
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.scene.kinematics import bicycle_step


def config(output, **values) -> RecordConfig:
    small = {"episodes": 4, "vehicles": (4, 8), "duration_s": 2.0, "workers": 1, "seed": 3}
    return RecordConfig(output=output, **{**small, **values})


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("record") / "highway"
    run(config(folder, episodes=10, duration_s=4.0), ConsoleRun())
    return folder


def recorded(folder) -> tuple[dict, pd.DataFrame]:
    return json.loads((folder / "meta.json").read_text()), pd.read_parquet(folder / "drives.parquet")


@pytest.mark.parametrize("simulator", ["highway-env", "batched"])
def test_the_store_is_the_same_with_one_process_and_with_two(tmp_path, monkeypatch, capfd, simulator):
    monkeypatch.setattr(recorder, "WORTH_A_PROCESS", 1)
    for name, workers in (("one", 1), ("two", 2)):
        run(config(tmp_path / name, workers=workers, simulator=simulator), ConsoleRun())
    assert "by 2 processes" in "".join(capfd.readouterr())
    (one, drive), (two, other) = recorded(tmp_path / "one"), recorded(tmp_path / "two")
    assert one == two
    pd.testing.assert_frame_equal(drive, other)


def test_both_simulators_give_the_same_store(tmp_path):
    for simulator in ("highway-env", "batched"):
        run(config(tmp_path / simulator, simulator=simulator, episodes=6), ConsoleRun())
    (one, drive), (two, other) = recorded(tmp_path / "highway-env"), recorded(tmp_path / "batched")
    assert one == two
    pd.testing.assert_frame_equal(drive, other)


def test_another_seed_gives_another_store(tmp_path):
    for seed in (0, 1):
        run(config(tmp_path / str(seed), seed=seed, episodes=1), ConsoleRun())
    first, second = (json.loads((tmp_path / str(seed) / "meta.json").read_text()) for seed in (0, 1))
    assert first["fingerprint"] != second["fingerprint"]


def test_a_recording_opens_as_a_store_with_splits_by_recording(store):
    opened = WindowStore.open(store)
    assert len(opened.recordings) == 10
    splits = json.loads((store / "splits.json").read_text())
    assert [len(splits[part]) for part in ("train", "val", "test")] == [8, 1, 1]
    source = json.loads((store / "meta.json").read_text())["source"]
    assert source["environment"] == "highway-v0"
    assert source["vehicles"] == [4, 8]


def test_vehicles_follow_their_lanes_without_jumps(store):
    tracks = pd.read_parquet(store / "tracks.parquet").sort_values(["recording", "vehicle_id", "time_s"])
    lanes = {(e["recording"], e["lane_id"]): e["centre"][0][1] for e in json.loads((store / "lanes.json").read_text())}
    centre = [lanes[key] for key in zip(tracks["recording"], tracks["lane_id"], strict=True)]
    assert (tracks["y_m"] - centre).abs().max() <= 2.0 + 1e-6
    assert max(y for y in lanes.values()) == 0.0  # lane 1 is the leftmost, the others lie to its right
    before = tracks.groupby(["recording", "vehicle_id"])[["x_m", "y_m", "speed_mps"]].shift()
    moved = np.hypot(tracks["x_m"] - before["x_m"], tracks["y_m"] - before["y_m"])
    jump = (moved - 0.1 * before["speed_mps"]).abs()
    about = json.loads((store / "meta.json").read_text())["about"]
    last = tracks["time_s"] == tracks.groupby("recording")["time_s"].transform("max")
    crash = last & tracks["recording"].map(lambda name: about[name]["ended"] == "collision")
    assert jump[~crash].max() < 1e-6
    assert jump[crash].max() < 1.0  # highway-env pushes two cars that crash apart
    assert tracks["speed_mps"].min() >= 0


def test_our_bicycle_drives_the_recorded_controls_to_the_recorded_states(store):
    drives = pd.read_parquet(store / "drives.parquet")
    tracks = pd.read_parquet(store / "tracks.parquet")
    checked = 0
    for name, drive in drives.groupby("recording"):
        ego = tracks[(tracks["recording"] == name) & (tracks["vehicle_id"] == 0)].sort_values("time_s")
        columns = ego[["x_m", "y_m", "heading_rad", "speed_mps", "length_m"]].to_numpy()
        now, after = torch.from_numpy(columns[:-1].copy()), columns[1:]
        control = torch.from_numpy(drive[["acceleration_mps2", "steering_rad"]].to_numpy().copy())
        position, heading, speed = bicycle_step(now[:, :2], now[:, 2], now[:, 3], now[:, 4], *control.unbind(-1), 0.1)
        reached = np.column_stack([position, heading, speed])
        whole = slice(None) if len(drive) == 40 else slice(None, -1)  # a crash pushes the car in its last step
        np.testing.assert_allclose(reached[whole], after[whole, :4], atol=1e-9)
        checked += len(reached)
    assert checked > 300


def test_every_behaviour_is_recorded():
    plan = RecordingPlan("highway-v0", 0, 0.1, (3, 3), (3, 3), (1.2, 1.2), (1.0, 1.0), (15.0, 32.0))
    seen = {record_episode(plan, index).behaviour for index in range(40)}
    assert seen == {name for name, share in BEHAVIOURS.items() if share}
    bullied = replace(plan, behaviour="bully")
    assert {record_episode(bullied, index).behaviour for index in range(10)} == {"bully"}


def test_the_ego_acceleration_tells_nothing_of_the_next_frame():
    plan = RecordingPlan("highway-v0", 0, 1.0, (3, 3), (3, 3), (1.0, 1.0), (1.0, 1.0), (15.0, 32.0))
    tracks = pd.DataFrame(record_episode(plan, 0).tracks)
    ego = tracks[tracks["vehicle_id"] == 0]
    speed = ego["speed_mps"].to_numpy()
    np.testing.assert_allclose(ego["accel_mps2"].to_numpy()[1:], np.diff(speed) / 0.1, atol=1e-9)
    assert ego["accel_mps2"].iloc[0] == 0


@pytest.mark.parametrize("environment", ["highway-fast-v0", "merge-v1", "merge-generic-v1", "exit-v0", "roundabout-v1"])
def test_other_environments_are_recorded_too(tmp_path, environment):
    run(config(tmp_path / "store", environment=environment, episodes=2), ConsoleRun())
    assert len(WindowStore.open(tmp_path / "store").recordings) == 2


@pytest.mark.parametrize(
    ("simulator", "module", "name"),
    [("highway-env", highway_recording, "record_episode"), ("batched", batched_recording, "record_part")],
)
def test_an_interrupt_leaves_nothing_half_written(tmp_path, monkeypatch, simulator, module, name):
    record, calls = getattr(module, name), []

    def interrupted(plan, what, **more):
        calls.append(what)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return record(plan, what, **more)

    monkeypatch.setattr(module, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(config(tmp_path / "store", simulator=simulator, episodes=8, duration_s=0.5), ConsoleRun())
    assert len(calls) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"episodes": 0}, "episodes: expected 1 or more, got 0"),
        ({"vehicles": (9, 3)}, r"vehicles: expected \[least, greatest\]"),
        ({"density": (0.0, 1.0)}, "density: expected"),
        ({"duration_s": -1.0}, "duration_s: expected a number above zero, got -1.0"),
        ({"simulator": "both"}, "simulator: expected batched or highway-env, got 'both'"),
        ({"environment": "motorway"}, "environment: expected one of highway-v0"),
    ],
)
def test_bad_values_are_refused_in_one_line(tmp_path, values, message):
    with pytest.raises(InputError, match=message) as caught:
        config(tmp_path, **values)
    assert "\n" not in str(caught.value)


def test_a_policy_is_recorded_where_it_drives(tmp_path):
    driver = write_policy(tmp_path / "policy", 0)
    run(config(tmp_path / "driven", driver=driver), ConsoleRun())
    meta, drives = recorded(tmp_path / "driven")
    assert meta["source"]["driver"] == driver
    assert {about["behaviour"] for about in meta["about"].values()} == {"driven"}
    # a policy without training keeps its speed and its heading
    assert np.abs(drives[["acceleration_mps2", "steering_rad"]].to_numpy()).max() < 1e-5
    assert len(WindowStore.open(tmp_path / "driven").rows("train", 5, 5))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"driver": "policy:nowhere"}, "no file or folder"),
        ({"driver": "ceiling"}, "looks into"),
        ({"driver": "idm", "behaviour": "bully"}, "leave one of them out"),
        ({"driver": "wizard"}, "expected one of"),
    ],
)
def test_a_driver_that_cannot_be_recorded_is_refused(tmp_path, values, message):
    with pytest.raises(InputError, match=message):
        run(config(tmp_path / "driven", **values), ConsoleRun())
    assert not (tmp_path / "driven").exists()
