"""Writes a recording store: tidy tables for people, memory-mapped columns for training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.recordings.recording import DT_S, Recording
from drivecast.worldmodel.recordings.split import SPLITS, check_splits, split_recordings
from drivecast.worldmodel.storage.files import atomic_directory, recover_directory
from drivecast.worldmodel.storage.lock import held_for_writing

SCHEMA_VERSION = 1
STATE_COLUMNS = ("x_m", "y_m", "heading_rad", "speed_mps", "accel_mps2", "length_m", "width_m")
COLUMN_TYPES: dict[str, tuple[type, tuple[int, ...]]] = {
    # per slot: the rows again, but sorted by (recording, vehicle, frame), so that a track lies in one piece
    "state": (np.float32, (len(STATE_COLUMNS),)),
    "row_of_slot": (np.int64, ()),
    # per row: sorted by (recording, frame, vehicle)
    "slot": (np.int64, ()),
    "frame": (np.int64, ()),
    "vehicle_id": (np.int64, ()),
    "lane_id": (np.int64, ()),
    "steps_before": (np.int64, ()),
    "steps_after": (np.int64, ()),
    # per frame
    "frame_row": (np.int64, ()),
    "frame_recording": (np.int64, ()),
    # per recording
    "recording_frame": (np.int64, ()),
    "recording_time_s": (np.float64, ()),
}
WINDOWS, JOURNAL = "windows", "metrics.jsonl"
STORE_FILES = {
    *("tracks.parquet", "lanes.json", "splits.json", "meta.json", "drives.parquet", WINDOWS),
    *("tracks.png", JOURNAL),  # what the command adds
}
NEAR_M = 2000.0  # beyond this from (0, 0) float32 positions would be off by more than a tenth of a millimetre
TRACKS_SCHEMA = pa.schema(
    [
        ("recording", pa.string()),
        ("vehicle_id", pa.int64()),
        ("time_s", pa.float64()),
        ("x_m", pa.float64()),
        ("y_m", pa.float64()),
        ("heading_rad", pa.float64()),
        ("length_m", pa.float64()),
        ("width_m", pa.float64()),
        ("class", pa.string()),
        ("speed_mps", pa.float64()),
        ("accel_mps2", pa.float64()),
        ("lane_id", pa.int64()),
    ]
)


def write_store(
    directory: Path,
    recordings: Iterable[Recording],
    splits: Mapping[str, Sequence[str]] | None = None,
    source: Mapping[str, Any] | None = None,
    drives: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """Write recordings as a store that `WindowStore.open` reads. Atomic: `directory` is whole, or as it was.

    Args:
        directory: folder of the store; one that is there is replaced, but nothing that is not a store.
        recordings: consumed one at a time, so that a generator keeps the memory at one recording's.
        splits: names of the recordings in "train", "val" and "test"; each recording in exactly one; read after the last
            recording, so that the generator may fill it. `None`: by
            recording (about 80/10/10 %, see `split.split_recordings`).
        source: where the recordings came from and how they were cleaned, as JSON values; kept in `meta.json`; read
            last, too.
        drives: of simulated recordings, the egos and their controls: columns `recording, vehicle_id, time_s,
            acceleration_mps2, steering_rad`.

    Returns:
        The content of `meta.json`.

    Raises:
        InputError: when there is no recording, a name comes twice, times do not lie on a grid of 0.1 s, the splits do
            not fit the recordings, `directory` holds anything else, or another process writes there.
    """
    with held_for_writing(directory, "write_store") as alone:
        if alone:
            recover_directory(directory)
        check_replaceable(directory)
        with atomic_directory(directory, (JOURNAL,), lambda: check_replaceable(directory)) as folder:
            return _write(folder, directory, recordings, splits, source, drives)


def check_replaceable(directory: Path) -> None:
    """Refuse a place for a store that holds anything but a store, which would be lost.

    Raises:
        InputError: one line that names what is there.
    """
    directory = Path(directory)
    if not directory.exists():
        return
    if not directory.is_dir():
        raise InputError(f"{directory}: is a file, and a store is a folder; give another one")
    found = {entry.name for entry in directory.iterdir()}
    if found == {JOURNAL} and (directory / JOURNAL).is_file():  # of a run that has just begun; it is carried over
        with (directory / JOURNAL).open("rb") as file:
            found = set() if file.read(7) in (b"", b'{"run":') else found
    if not found:
        return
    if not is_store(directory):
        raise InputError(
            f"{directory}: holds '{min(found)}' and is no recording store, so it is left as it is; give a new folder"
        )
    windows = directory / WINDOWS
    foreign = found - STORE_FILES
    if windows.is_dir():
        foreign |= {f"{WINDOWS}/{entry.name}" for entry in windows.iterdir() if entry.name not in _window_files()}
    if foreign:
        raise InputError(
            f"{directory}: holds a store and '{min(foreign)}', which would be lost; move it away, or give a new folder"
        )


def is_store(directory: Path) -> bool:
    """Whether `write_store` wrote this folder."""
    try:
        meta = json.loads((Path(directory) / "meta.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(meta, dict) and {"schema", "fingerprint", "recordings"} <= set(meta)


def _window_files() -> set[str]:
    return {f"{name}.npy" for name in COLUMN_TYPES}


def _write(
    folder: Path,
    directory: Path,
    recordings: Iterable[Recording],
    splits: Mapping[str, Sequence[str]] | None,
    source: Mapping[str, Any] | None,
    drives: pd.DataFrame | None,
) -> dict[str, Any]:
    (folder / WINDOWS).mkdir()
    columns = {name: _GrowingArray(folder / WINDOWS / f"{name}.npy", *kind) for name, kind in COLUMN_TYPES.items()}
    digest = hashlib.sha256()
    names: list[str] = []
    lanes: list[dict[str, Any]] = []
    about: dict[str, Any] = {}
    counts = {"rows": 0, "frames": 0, "vehicles": 0, "tracks": 0}
    try:
        with pq.ParquetWriter(folder / "tracks.parquet", TRACKS_SCHEMA) as table:
            for recording in recordings:
                if recording.name in about:
                    raise InputError(f"recording '{recording.name}': the name comes twice; names must be unique")
                before = dict(counts)
                origin = origin_m(recording)
                frames = _append(columns, recording, origin, len(names), counts, digest)
                table.write_table(
                    pa.Table.from_pandas(frames, TRACKS_SCHEMA, preserve_index=False), row_group_size=1 << 18
                )
                names.append(recording.name)
                about[recording.name] = {
                    **{name: counts[name] - before[name] for name in counts},
                    **({"origin_m": list(origin)} if any(origin) else {}),
                    **recording.metadata,
                }
                lanes += [lane.as_json(recording.name) for lane in recording.lanes]
        if not names:
            raise InputError(f"{directory}: no recording to write; nothing was read or all of it was dropped")
        columns["frame_row"].append(np.array([counts["rows"]]))
        columns["recording_frame"].append(np.array([counts["frames"]]))
    finally:
        for column in columns.values():
            column.close()
    parts = {key: list(splits.get(key, [])) for key in SPLITS} if splits is not None else split_recordings(names)
    check_splits(parts, names, str(directory))
    _write_json(folder / "lanes.json", lanes)
    _write_json(folder / "splits.json", parts)
    for text in (json.dumps(names), json.dumps(lanes), json.dumps(parts)):
        digest.update(text.encode())
    if drives is not None:
        drives.to_parquet(folder / "drives.parquet", index=False)
    meta = {
        "schema": SCHEMA_VERSION,
        "dt_s": DT_S,
        "recordings": names,
        "counts": counts,
        "fingerprint": digest.hexdigest(),
        "source": dict(source or {}),
        "about": about,
    }
    _write_json(folder / "meta.json", meta)
    return meta


def origin_m(recording: Recording) -> tuple[float, float]:
    """The point that a recording's windows are relative to: (0, 0), or near its middle where it is far from there.

    Windows hold float32, whose steps are half a metre at UTM's coordinates. A whole number of metres, so that taking it
    off and adding it again is exact.
    """
    tracks = recording.tracks
    low, high = (np.array([getattr(tracks[name], end)() for name in ("x_m", "y_m")]) for end in ("min", "max"))
    if max(np.abs(low).max(), np.abs(high).max()) <= NEAR_M:
        return 0.0, 0.0
    middle = np.rint((low + high) / 2)
    return float(middle[0]), float(middle[1])


def _append(
    columns: dict[str, _GrowingArray],
    recording: Recording,
    origin: tuple[float, float],
    number: int,
    counts: dict[str, int],
    digest: Any,
) -> pd.DataFrame:
    """Append one recording to the columns; returns its table in row order."""
    table = recording.tracks
    time = table["time_s"].to_numpy(np.float64)
    start = time.min()
    frame = np.rint((time - start) / DT_S).astype(np.int64)
    off_grid = np.abs(time - start - frame * DT_S) > 2e-3
    if off_grid.any():
        at = int(off_grid.argmax())
        raise InputError(
            f"recording '{recording.name}': column 'time_s', row {table.index[at]}: {time[at]} is not on the grid of "
            f"{DT_S} s from {start}; resample the recording to 10 Hz"
        )
    vehicle = table["vehicle_id"].to_numpy(np.int64)
    order = np.lexsort((vehicle, frame))
    table, frame, vehicle = table.iloc[order], frame[order], vehicle[order]
    rows = len(table)

    row_of_slot = np.lexsort((frame, vehicle))  # tracks in one piece
    slot = np.empty(rows, np.int64)
    slot[row_of_slot] = np.arange(rows)
    frame_of_slot, vehicle_of_slot = frame[row_of_slot], vehicle[row_of_slot]
    begins = np.ones(rows, bool)
    begins[1:] = (np.diff(vehicle_of_slot) != 0) | (np.diff(frame_of_slot) != 1)
    first = np.flatnonzero(begins)
    last = np.append(first[1:], rows) - 1
    track = begins.cumsum() - 1
    before = np.arange(rows) - first[track]
    after = last[track] - np.arange(rows)

    frames = int(frame[-1]) + 1
    values = table[list(STATE_COLUMNS)].to_numpy(np.float64)[row_of_slot]
    values[:, :2] -= origin
    state = values.astype(np.float32)
    parts = {
        "state": state,
        "row_of_slot": row_of_slot + counts["rows"],
        "slot": slot + counts["rows"],
        "frame": frame + counts["frames"],
        "vehicle_id": vehicle,
        "lane_id": table["lane_id"].to_numpy(np.int64),
        "steps_before": before[slot],
        "steps_after": after[slot],
        "frame_row": np.searchsorted(frame, np.arange(frames)) + counts["rows"],
        "frame_recording": np.full(frames, number),
        "recording_frame": np.array([counts["frames"]]),
        "recording_time_s": np.array([start]),
    }
    for name, values in parts.items():
        digest.update(columns[name].append(values))
    counts["rows"] += rows
    counts["frames"] += frames
    counts["vehicles"] += len(np.unique(vehicle))
    counts["tracks"] += len(first)
    return table


class _GrowingArray:
    """An `.npy` file that is appended to; its header is rewritten with the final length when closed."""

    def __init__(self, path: Path, dtype: type, tail: tuple[int, ...]) -> None:
        self._file = path.open("wb")
        self._dtype, self._tail, self._length = np.dtype(dtype), tail, 0
        self._header_size = self._write_header()

    def append(self, values: np.ndarray) -> bytes:
        data = np.ascontiguousarray(values, dtype=self._dtype).tobytes()
        self._file.write(data)
        self._length += len(values)
        return data

    def close(self) -> None:
        self._file.seek(0)
        if self._write_header() != self._header_size:
            raise RuntimeError("the .npy header changed its size: numpy no longer leaves room for a growing first axis")
        self._file.close()

    def _write_header(self) -> int:
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self._length, *self._tail),
        }
        np.lib.format.write_array_header_1_0(self._file, header)
        return self._file.tell()


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False) + "\n", encoding="utf-8")
