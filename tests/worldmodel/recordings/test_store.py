"""Claims about the window store."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from traffic_files import cruising, recording, straight_lanes, write_tidy

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.recordings.lane import Lane
from drivecast.worldmodel.recordings.recording import Recording
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.recordings.store_writer import write_store
from drivecast.worldmodel.recordings.tidy import read_tidy


def staggered() -> Recording:
    """Vehicle 1 all the time, 2 from 1.0 s, 3 until 0.9 s, and 4 twice, with a gap."""
    tracks = cruising(vehicles=4, seconds=4.0)
    time, vehicle = tracks["time_s"], tracks["vehicle_id"]
    keep = (vehicle == 1) | ((vehicle == 2) & (time >= 0.95)) | ((vehicle == 3) & (time < 0.95))
    keep |= (vehicle == 4) & ((time < 0.95) | (time > 2.95))
    return Recording("staggered", tracks[keep], tuple(straight_lanes()))


@pytest.fixture
def store(tmp_path: Path) -> WindowStore:
    first = recording("first", seconds=3.0)
    splits = {"train": ["first"], "val": ["staggered"], "test": []}
    write_store(tmp_path / "store", [first, staggered()], splits)
    return WindowStore.open(tmp_path / "store")


def test_window_holds_what_the_tables_say(store: WindowStore) -> None:
    rows = store.rows("all", 5, 7)[::4]
    window = store.window(store.frame_of(rows), 5, 7, 3, rows)
    table = pd.read_parquet(store.directory / "tracks.parquet").set_index(["recording", "vehicle_id", "time_s"])
    table.index = table.index.set_levels(table.index.levels[2].round(3), level=2)
    checked = 0
    for b in range(len(rows)):
        name, now = store.recordings[int(window.recording[b])], float(store.time_s(window.frame[b : b + 1]))
        for n in range(window.row.shape[1]):
            if window.row[b, n] < 0:
                continue
            vehicle = int(store.vehicle_id(window.row[b, n]))
            for k, state, at in [(k, window.history, k + 4) for k in range(-4, 1)] + [
                (k, window.future, k - 1) for k in range(1, 8)
            ]:
                key = (name, vehicle, round(now + 0.1 * k, 3))
                valid = bool(state.valid[b, at, n])
                if valid:
                    expected = table.loc[key]
                    got = [*state.position_m[b, at, n].tolist(), float(state.speed_mps[b, at, n])]
                    assert got == pytest.approx([expected.x_m, expected.y_m, expected.speed_mps], abs=1e-4)
                    checked += 1
    assert checked > 500


def test_agent_zero_is_the_ego_and_the_others_come_by_distance(store: WindowStore) -> None:
    rows = store.rows("train", 5, 5)
    window = store.window(store.frame_of(rows), 5, 5, 6, rows)
    assert torch.equal(window.row[:, 0], rows)
    distance = (window.present.position_m - window.present.position_m[:, :1]).norm(dim=-1)
    assert (distance.diff(dim=1) >= -1e-5).all()
    assert window.history.valid[:, :, 0].all()
    assert window.future.valid[:, :, 0].all()


def test_nearest_agents_survive_the_cut(store: WindowStore) -> None:
    rows = store.rows("train", 5, 5)[:4]
    everyone = store.window(store.frame_of(rows), 5, 5, 99, rows)
    few = store.window(store.frame_of(rows), 5, 5, 3, rows)
    assert everyone.row.shape[1] == 6
    assert torch.equal(few.row, everyone.row[:, :3])


def test_values_are_held_where_a_track_has_not_begun_or_has_ended(store: WindowStore) -> None:
    frame = store.frames("val", 10, 20)[0]  # 0.9 s: the last moment of vehicle 3, vehicle 2 is not there yet
    window = store.window(frame[None], 10, 20, 9)
    vehicles = store.vehicle_id(window.row[0]).tolist()
    assert sorted(vehicles) == [1, 3, 4]
    gone = vehicles.index(3)
    assert window.history.valid[0, :, gone].all()
    assert not window.future.valid[0, :, gone].any()
    held = window.future.position_m[0, :, gone]
    assert torch.equal(held, window.present.position_m[0, gone].expand_as(held))
    # vehicle 4 comes back 2 s later, but that is another track
    assert not window.future.valid[0, :, vehicles.index(4)].any()


def test_padding_is_finite_and_marked(store: WindowStore) -> None:
    frames = torch.cat([store.frames("train", 2, 2)[:1], store.frames("val", 2, 2)[:1]])
    window = store.window(frames, 2, 2, 99)
    padding = window.row < 0
    assert padding.any()
    assert not window.history.valid[padding[:, None].expand_as(window.history.valid)].any()
    for values in (window.history.position_m, window.future.heading_rad, window.future.length_m):
        assert torch.isfinite(values).all()
    assert (window.future.length_m > 0).all()


def test_frames_leave_room_for_history_and_future_in_their_own_recording(store: WindowStore) -> None:
    assert len(store.frames("train", 1, 0)) == 30
    frames = store.frames("all", 6, 10)
    window = store.window(frames, 6, 10, 4)
    names = [store.recordings[int(number)] for number in window.recording]
    assert names.count("first") == 30 - 5 - 10
    assert names.count("staggered") == 40 - 5 - 10


def test_ego_of_another_frame_is_refused(store: WindowStore) -> None:
    frames = store.frames("train", 1, 0)[:2]
    with pytest.raises(ValueError, match="not in frame"):
        store.window(frames, 1, 1, 4, torch.tensor([0, 0]))


def test_road_of_a_window_is_the_road_of_its_recording(tmp_path: Path) -> None:
    two = Recording("two", cruising(lanes=2), tuple(straight_lanes(2, 150.0)))
    write_store(tmp_path / "store", [recording("three"), two])
    store = WindowStore.open(tmp_path / "store")
    frames = torch.cat([store.frames("all", 1, 1)[:1], store.frames("all", 1, 1)[-1:]])
    road = store.window(frames, 1, 1, 2).road
    assert road.point_count.tolist() == [[2, 2, 2], [2, 2, 0]]
    assert road.left[0].tolist() == [-1, 0, 1]
    assert road.right[1].tolist()[:2] == [1, -1]


def test_tracks_are_continuous_and_scenes_dense(store: WindowStore) -> None:
    tracks = store.tracks("val")
    assert tracks["vehicle_id"].tolist().count(4) == 2
    scene = store.scene_states("staggered")
    assert scene.states.valid.shape == (40, len(tracks))
    lengths = (tracks["last_frame"] - tracks["first_frame"] + 1).tolist()
    assert sorted(scene.states.valid.sum(0).tolist()) == sorted(lengths)
    assert (scene.last_step - scene.first_step + 1).tolist() == scene.states.valid.sum(0).tolist()
    assert torch.isfinite(scene.states.position_m).all()
    with pytest.raises(InputError, match="no recording 'nobody'"):
        store.scene_states("nobody")


def test_fingerprint_tells_data_apart_and_repeats(tmp_path: Path) -> None:
    one = write_store(tmp_path / "a", [recording("one")])["fingerprint"]
    assert write_store(tmp_path / "b", [recording("one")])["fingerprint"] == one
    assert write_store(tmp_path / "c", [recording("one", speed_mps=12.01)])["fingerprint"] != one
    assert write_store(tmp_path / "d", [recording("two")])["fingerprint"] != one


def test_store_survives_pickling_for_worker_processes(store: WindowStore) -> None:
    again = pickle.loads(pickle.dumps(store))
    assert again.fingerprint == store.fingerprint
    assert torch.equal(again.rows("all", 3, 3), store.rows("all", 3, 3))


def test_missing_store_is_refused_with_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not a recording store.*drivecast ingest") as caught:
        WindowStore.open(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["state", "slot", "frame_row"])
def test_truncated_column_is_refused_with_one_line(store: WindowStore, name: str) -> None:
    file = store.directory / "windows" / f"{name}.npy"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(InputError, match=f"{name}.npy") as caught:
        WindowStore.open(store.directory)
    assert "\n" not in str(caught.value)


def test_column_of_another_length_is_refused(store: WindowStore) -> None:
    file = store.directory / "windows" / "frame.npy"
    np.save(file, np.load(file)[:-1])
    with pytest.raises(InputError, match="expected int64 of shape"):
        WindowStore.open(store.directory)


def test_store_of_another_version_is_refused(store: WindowStore) -> None:
    meta = json.loads((store.directory / "meta.json").read_text())
    (store.directory / "meta.json").write_text(json.dumps(meta | {"schema": 99}))
    with pytest.raises(InputError, match="expected schema 1, got 99"):
        WindowStore.open(store.directory)


def test_failed_write_leaves_the_old_store_and_no_litter(tmp_path: Path) -> None:
    write_store(tmp_path / "store", [recording("old")])

    def broken():
        yield recording("new")
        raise InputError("the second recording is broken")

    with pytest.raises(InputError, match="second recording"):
        write_store(tmp_path / "store", broken())
    assert WindowStore.open(tmp_path / "store").recordings == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


UTM_M = (543_210.4, 4_512_345.6)


def far_away(name: str) -> Recording:
    tracks = cruising(seconds=4.0).assign(heading_rad=0.0)
    lanes = [
        Lane(lane.lane_id, lane.centre_m + np.array(UTM_M), lane.width_m, lane.speed_limit_mps)
        for lane in straight_lanes()
    ]
    moved = tracks.assign(x_m=tracks["x_m"] + UTM_M[0], y_m=tracks["y_m"] + UTM_M[1])
    return Recording(name, moved, tuple(lanes))


def test_traffic_far_from_zero_keeps_its_speeds_and_its_lanes(tmp_path: Path) -> None:
    write_store(tmp_path / "far", [far_away("far")])
    write_store(tmp_path / "near", [recording("far", seconds=4.0)])
    far, near = (WindowStore.open(tmp_path / name) for name in ("far", "near"))
    origin = torch.tensor(far.meta["about"]["far"]["origin_m"], dtype=torch.float64)
    assert "origin_m" not in near.meta["about"]["far"]
    scene, same = far.scene_states("far"), near.scene_states("far")
    steps = scene.states.position_m.diff(dim=0).norm(dim=-1) / far.dt_s
    assert (steps - scene.states.speed_mps[1:]).abs().max() < 0.002  # m/s
    there = scene.states.position_m.double() + origin - torch.tensor(UTM_M, dtype=torch.float64)
    assert (there - same.states.position_m).abs().max() < 1e-3
    across = [one.road.project(one.states.position_m[:1]).across_m for one in (scene, same)]
    assert (across[0] - across[1]).abs().max() < 1e-3
    # and what is written for people is where it was
    table = pd.read_parquet(tmp_path / "far/tracks.parquet")
    assert table["x_m"].min() == pytest.approx(UTM_M[0])
    again, _ = read_tidy(tmp_path / "far")
    write_store(tmp_path / "again", again)
    assert WindowStore.open(tmp_path / "again").fingerprint == far.fingerprint


def test_positions_that_were_rounded_to_float32_far_from_zero_are_refused(tmp_path: Path) -> None:
    tracks = far_away("far").tracks
    rounded = tracks.assign(x_m=tracks["x_m"].astype(np.float32), y_m=tracks["y_m"].astype(np.float32))
    folder = write_tidy(tmp_path / "tidy", rounded)
    with pytest.raises(InputError, match=r"column 'x_m' is float32 with values up to 543,\d+, in steps of 0.0625 m"):
        read_tidy(folder)


def test_a_folder_that_is_no_store_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/tracks.csv").write_text("years of measuring")
    with pytest.raises(InputError, match=r"holds 'tracks\.csv' and is no recording store"):
        write_store(tmp_path / "raw", [recording("one")])
    assert (tmp_path / "raw/tracks.csv").read_text() == "years of measuring"


def test_what_else_lies_in_a_store_is_not_lost_with_it(store: WindowStore) -> None:
    (store.directory / "windows" / "mine.npy").write_bytes(b"1")
    with pytest.raises(InputError, match=r"'windows/mine.npy', which would be lost"):
        write_store(store.directory, [recording("one")])
    assert WindowStore.open(store.directory).fingerprint == store.fingerprint


def test_a_store_that_lost_its_name_is_found_again(store: WindowStore) -> None:
    os.replace(store.directory, store.directory.with_name(".store.0123abcd.old"))
    assert WindowStore.open(store.directory).fingerprint == store.fingerprint


def test_times_off_the_grid_are_refused(tmp_path: Path) -> None:
    tracks = cruising()
    shifted = Recording("off", tracks.assign(time_s=tracks["time_s"] * 1.02), tuple(straight_lanes()))
    with pytest.raises(InputError, match=r"'time_s'.*not on the grid"):
        write_store(tmp_path / "store", [shifted])


def test_splits_must_hold_every_recording_once(tmp_path: Path) -> None:
    both = [recording("a"), recording("b")]
    for splits, message in (
        ({"train": ["a"]}, "leave out recording 'b'"),
        ({"train": ["a", "b"], "test": ["a"]}, "'a' more than once"),
        ({"train": ["a", "b", "c"]}, "'c', which the tracks do not hold"),
    ):
        with pytest.raises(InputError, match=message):
            write_store(tmp_path / "store", both, splits)
    assert not (tmp_path / "store").exists()


def test_constant_velocity_errors_are_those_published_for_the_recordings(ngsim_data: Path, tmp_path: Path) -> None:
    recordings, splits = read_tidy(ngsim_data / "us101")
    write_store(tmp_path / "store", recordings, splits)
    store = WindowStore.open(tmp_path / "store")
    published = {10: 0.74, 20: 1.82, 30: 3.28, 40: 5.15, 50: 7.56}
    for steps, expected in published.items():
        rows = store.rows("test", 30, steps)
        window = store.window(store.frame_of(rows), 30, steps, 1, rows)
        velocity = (window.history.position_m[:, -1, 0] - window.history.position_m[:, -6, 0]) / 0.5
        forecast = window.present.position_m[:, 0] + velocity * steps * store.dt_s
        error = (window.future.position_m[:, -1, 0] - forecast).square().sum(-1).mean().sqrt()
        assert float(error) == pytest.approx(expected, abs=0.006)
