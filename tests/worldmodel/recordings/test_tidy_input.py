"""Claims about reading the tidy schema: good input arrives unchanged, bad input gets one line that says what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from traffic_files import cruising, write_tidy

from drivecast.scripts.tracking.run import ConsoleRun
from drivecast.scripts.verbs.ingest import IngestConfig, run
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.recordings.store_writer import write_store
from drivecast.worldmodel.recordings.tidy import read_tidy


def ingest(folder: Path, output: Path, **options) -> WindowStore:
    run(IngestConfig(input=folder, output=output, **options), ConsoleRun())
    return WindowStore.open(output)


def three(seconds: float = 6.0) -> pd.DataFrame:
    return pd.concat([cruising(seconds=seconds).assign(recording=name) for name in "abc"], ignore_index=True)


def refused(folder: Path, output: Path, *words: str) -> None:
    """Ingest fails with one line that holds all words, and leaves nothing behind."""
    before = sorted(path.name for path in output.parent.iterdir())
    with pytest.raises(InputError) as caught:
        ingest(folder, output)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message
    assert sorted(path.name for path in output.parent.iterdir()) == before


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_tables_arrive_unchanged_with_their_splits(tmp_path: Path, suffix: str) -> None:
    splits = {"train": ["a"], "val": ["c"], "test": ["b"]}
    store = ingest(write_tidy(tmp_path / "in", three(), splits, suffix), tmp_path / "out")
    assert store.splits == splits
    written = pd.read_parquet(tmp_path / "out" / "tracks.parquet")
    keys = ["recording", "vehicle_id", "time_s"]
    expected = three().sort_values(keys)[written.columns].reset_index(drop=True)
    pd.testing.assert_frame_equal(written.sort_values(keys).reset_index(drop=True), expected, check_dtype=False)
    assert (tmp_path / "out" / "tracks.png").stat().st_size > 10_000


def test_parquet_and_csv_give_the_same_fingerprint(tmp_path: Path) -> None:
    one = ingest(write_tidy(tmp_path / "p", three()), tmp_path / "one")
    two = ingest(write_tidy(tmp_path / "c", three(), suffix="csv"), tmp_path / "two")
    assert one.fingerprint == two.fingerprint


def test_recordings_without_splits_are_split_whole(tmp_path: Path) -> None:
    store = ingest(write_tidy(tmp_path / "in", three()), tmp_path / "out")
    assert sorted(name for names in store.splits.values() for name in names) == ["a", "b", "c"]
    assert all(len(names) == 1 for names in store.splits.values())


def test_one_recording_is_split_in_time_with_a_gap(tmp_path: Path) -> None:
    tracks = cruising(seconds=60.0, speed_mps=5.0).assign(recording="only")
    store = ingest(write_tidy(tmp_path / "in", tracks), tmp_path / "out", split_gap_s=4.0)
    times = {
        split: pd.read_parquet(tmp_path / "out" / "tracks.parquet").query("recording in @names")["time_s"]
        for split, names in store.splits.items()
    }
    assert times["train"].max() + 4.0 <= times["val"].min() + 0.11
    assert times["val"].max() + 4.0 <= times["test"].min() + 0.11
    assert len(times["train"]) > 2 * len(times["test"]) > 0


def test_long_recordings_are_cut_into_pieces_of_one_split(tmp_path: Path) -> None:
    splits = {"train": ["a"], "val": ["b"], "test": ["c"]}
    store = ingest(write_tidy(tmp_path / "in", three(25.0), splits), tmp_path / "out", longest_recording_s=10.0)
    assert store.splits["test"] == ["c-p01", "c-p02", "c-p03"]
    assert sum(store.meta["about"][name]["rows"] for name in store.splits["test"]) == 6 * 250


def test_25_hz_input_is_interpolated_to_10_hz(tmp_path: Path) -> None:
    tracks = three(10.0)
    tracks["time_s"] *= 0.4  # 25 rows a second, and 2.5 times as fast
    tracks["speed_mps"] *= 2.5
    store = ingest(write_tidy(tmp_path / "in", tracks), tmp_path / "out")
    scene = store.scene_states("a")
    assert scene.states.valid.shape[0] == 40
    moved = (scene.states.position_m[-1, :, 0] - scene.states.position_m[0, :, 0]) / 3.9
    assert np.allclose(moved, scene.states.speed_mps[5], atol=1e-3)


Spoil = Callable[[pd.DataFrame], pd.DataFrame]


def at(column: str, row: int, value: float) -> Spoil:
    def spoil(tracks: pd.DataFrame) -> pd.DataFrame:
        tracks.loc[row, column] = value
        return tracks

    return spoil


SPOILED: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    "a missing column": (
        lambda tracks: tracks.drop(columns="speed_mps"),
        ("tracks.parquet", "'speed_mps' is missing", "found", "add or rename"),
    ),
    "no column that names the recording": (
        lambda tracks: tracks.drop(columns="recording"),
        ("tracks.parquet", "'recording' is missing"),
    ),
    "a car at 300 km/h": (
        at("speed_mps", 77, 300 / 3.6),
        ("tracks.parquet", "'speed_mps'", "row 77", "metres per second", "convert"),
    ),
    "speeds in km/h": (
        lambda tracks: tracks.assign(speed_mps=tracks["speed_mps"] * 3.6),
        ("tracks.parquet", "'speed_mps'", "km/h", "convert"),
    ),
    "positions in feet": (
        lambda tracks: tracks.assign(x_m=tracks["x_m"] / 0.3048),
        ("tracks.parquet", "'speed_mps'", "positions", "convert"),
    ),
    "heading in degrees": (at("heading_rad", 5, 90.0), ("tracks.parquet", "'heading_rad'", "row 5", "radians")),
    "a length in feet": (at("length_m", 8, 65.0), ("tracks.parquet", "'length_m'", "row 8", "metres")),
    "a NaN": (at("y_m", 12, np.nan), ("tracks.parquet", "'y_m'", "row 12", "finite", "drop the row")),
    "an infinity": (at("x_m", 13, np.inf), ("tracks.parquet", "'x_m'", "row 13", "finite")),
    "a car twice in a moment": (
        lambda tracks: pd.concat([tracks, tracks.iloc[[40]]], ignore_index=True),
        ("tracks.parquet", "'time_s'", "stands twice", "keep one row"),
    ),
    "a car that jumps": (at("x_m", 30, 250.0), ("tracks.parquet", "'x_m'", "row 30", "another vehicle_id")),
    "no rows": (lambda tracks: tracks.iloc[:0], ("tracks.parquet", "no rows")),
    "words where numbers belong": (
        lambda tracks: tracks.assign(width_m=tracks["width_m"].astype(str).where(tracks.index != 3, "wide")),
        ("tracks.parquet", "'width_m'", "row 3", "'wide'"),
    ),
}


@pytest.mark.parametrize("what", SPOILED)
def test_bad_table_is_refused_with_one_line(tmp_path: Path, what: str) -> None:
    spoil, words = SPOILED[what]
    folder = write_tidy(tmp_path / "in", three())
    spoil(three()).to_parquet(folder / "tracks.parquet", index=False)
    refused(folder, tmp_path / "out", *words)


def test_row_of_a_csv_is_its_line(tmp_path: Path) -> None:
    folder = write_tidy(tmp_path / "in", at("speed_mps", 0, 300.0)(three()), suffix="csv")
    refused(folder, tmp_path / "out", "tracks.csv", "row 2")


def test_empty_file_is_refused(tmp_path: Path) -> None:
    folder = write_tidy(tmp_path / "in", three())
    (folder / "tracks.parquet").write_bytes(b"")
    refused(folder, tmp_path / "out", "tracks.parquet", "is empty", "export it again")


@pytest.mark.parametrize("part", [0.3, 0.95])
def test_truncated_parquet_is_refused(tmp_path: Path, part: float) -> None:
    folder = write_tidy(tmp_path / "in", three())
    data = (folder / "tracks.parquet").read_bytes()
    (folder / "tracks.parquet").write_bytes(data[: int(part * len(data))])
    refused(folder, tmp_path / "out", "tracks.parquet", "truncated")


def test_damaged_page_of_a_parquet_is_refused(tmp_path: Path) -> None:
    folder = write_tidy(tmp_path / "in", three())
    data = bytearray((folder / "tracks.parquet").read_bytes())
    data[2000:6000] = bytes(4000)
    (folder / "tracks.parquet").write_bytes(data)
    refused(folder, tmp_path / "out", "tracks.parquet")


def test_missing_lanes_are_refused(tmp_path: Path) -> None:
    folder = write_tidy(tmp_path / "in", three())
    lanes = json.loads((folder / "lanes.json").read_text())
    (folder / "lanes.json").write_text(json.dumps([lane for lane in lanes if lane["recording"] != "b"]))
    refused(folder, tmp_path / "out", "lanes.json", "recording 'b'")
    (folder / "lanes.json").write_text(json.dumps([{**lanes[0], "centre": [[0, 0]]}]))
    refused(folder, tmp_path / "out", "lanes.json", "lane 0", "two or more")
    (folder / "lanes.json").write_text("[{")
    refused(folder, tmp_path / "out", "lanes.json", "not valid JSON")
    (folder / "lanes.json").unlink()
    refused(folder, tmp_path / "out", "lanes.json", "not found")


def test_splits_that_leak_are_refused(tmp_path: Path) -> None:
    folder = write_tidy(tmp_path / "in", three(), {"train": ["a", "b", "c"], "test": ["a"]})
    refused(folder, tmp_path / "out", "splits.json", "'a' more than once")


def test_refused_input_leaves_an_older_store_as_it_was(tmp_path: Path) -> None:
    old = ingest(write_tidy(tmp_path / "in", three()), tmp_path / "out").fingerprint
    folder = write_tidy(tmp_path / "bad", three().drop(columns="x_m"))
    with pytest.raises(InputError):
        ingest(folder, tmp_path / "out")
    assert WindowStore.open(tmp_path / "out").fingerprint == old


def test_us101_is_read_whole(ngsim_data: Path, tmp_path: Path) -> None:
    recordings, splits = read_tidy(ngsim_data / "us101")
    write_store(tmp_path / "out", recordings, splits)
    store = WindowStore.open(tmp_path / "out")
    assert store.meta["counts"] == {"rows": 52_111, "frames": 1_440, "vehicles": 773, "tracks": 773}
    assert store.splits == json.loads((ngsim_data / "us101" / "splits.json").read_text())


def test_speeds_that_are_off_by_a_factor_are_scaled_to_the_positions(tmp_path):
    from collections import Counter

    from traffic_scenes import platoon_recording

    from drivecast.worldmodel.recordings.tidy import _with_speeds_of_the_positions

    tracks = platoon_recording("one", seed=0).tracks
    noticed: Counter[str] = Counter()
    assert _with_speeds_of_the_positions(tracks, "one", noticed) is tracks
    off = tracks.assign(speed_mps=tracks["speed_mps"] * 1.025, accel_mps2=tracks["accel_mps2"] * 1.025)
    mended = _with_speeds_of_the_positions(off, "one", noticed)
    assert abs(mended["speed_mps"] / tracks["speed_mps"] - 1).max() < 0.002
    assert sum(noticed.values()) == len(tracks)
