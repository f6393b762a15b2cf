"""Reads traffic in the tidy schema: tracks.parquet or tracks.csv, lanes.json and, where there is one, splits.json."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.recordings.lane import DEFAULT_SPEED_LIMIT_MPS, completed, read_lanes
from drivecast.worldmodel.recordings.recording import DT_S, Recording, check_tracks
from drivecast.worldmodel.recordings.resampling import ResamplingConfig, resample
from drivecast.worldmodel.recordings.split import SPLITS, check_splits

KNOWN_FACTORS = {3.6: "km/h", 2.237: "miles per hour", 3.281: "feet per second"}
FASTEST_MPS = 75.0
COARSEST_M = 0.01  # between two neighbouring numbers of a position
SPEED_TOLERANCE = 0.005  # by which a recording's speeds may differ from its positions before they are scaled


def read_tidy(
    path: Path,
    resampling: ResamplingConfig | None = None,
    speed_limit_mps: float = DEFAULT_SPEED_LIMIT_MPS,
    dropped: Counter[str] | None = None,
) -> tuple[list[Recording], dict[str, list[str]] | None]:
    """Read a folder (or its tracks file) in the tidy schema of docs/recordings.md.

    Tracks with 10 rows a second are taken as they are; others are interpolated to 10 Hz without smoothing.

    Args:
        path: folder, or its tracks file; `lanes.json` and `splits.json` lie beside that.
        resampling: `max_gap_s` and `min_track_s` of tracks that must be interpolated.
        speed_limit_mps: speed limit in m/s of lanes that have none.
        dropped: counts what was left out or mended, by reason.

    Returns:
        The recordings, and the splits of `splits.json` or None.

    Raises:
        InputError: one line that names file, column and row, and what to do.
    """
    tracks_path = _tracks_file(Path(path))
    folder = tracks_path.parent
    table = read_table(tracks_path)
    if "recording" not in table.columns:
        raise InputError(
            f"{tracks_path}: column 'recording' is missing; found {list(table.columns)}; "
            "add it (one name for all is fine)"
        )
    table = check_tracks(table, str(tracks_path), ("recording", "vehicle_id", "time_s"))
    _check_precision(table, str(tracks_path))
    table = table.assign(recording=table["recording"].astype(str))
    _check_motion(table, str(tracks_path))
    lanes = read_lanes(folder / "lanes.json")
    dropped = Counter() if dropped is None else dropped
    recordings = []
    for name, tracks in table.groupby("recording", sort=True):
        if name not in lanes:
            raise InputError(f"{folder / 'lanes.json'}: has no lane of recording '{name}'; add its lanes")
        if not _is_10_hz(tracks):
            tracks = _interpolated(tracks, resampling or ResamplingConfig(), dropped)
            if len(tracks) == 0:
                dropped["recordings without a track left: dropped"] += 1
                continue
        tracks = _with_speeds_of_the_positions(tracks, str(name), dropped)
        recordings.append(Recording(str(name), tracks, completed(lanes[str(name)], speed_limit_mps)))
    if not recordings:
        raise InputError(f"{tracks_path}: no vehicle is seen long enough to make a track; give longer recordings")
    splits = None
    if (folder / "splits.json").is_file():
        splits = read_splits(folder / "splits.json", [recording.name for recording in recordings])
    return recordings, splits


def read_table(path: Path) -> pd.DataFrame:
    """Read Parquet or CSV; the index is the row number: of a Parquet from 0, of a CSV the line of the file."""
    if path.stat().st_size == 0:
        raise InputError(f"{path}: is empty; export it again")
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        table = pd.read_csv(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:120]
        raise InputError(f"{path}: cannot be read, it may be truncated ({reason}); copy or export it again") from None
    table.index = pd.RangeIndex(2, len(table) + 2)
    return table


def _check_precision(table: pd.DataFrame, source: str) -> None:
    """Refuse positions that were rounded to float32 far from (0, 0): their steps say nothing about speeds."""
    for column in ("x_m", "y_m"):
        farthest = table[column].abs().max()
        step = float(np.spacing(np.float32(farthest)))
        if table[column].dtype == np.float32 and step > COARSEST_M:
            raise InputError(
                f"{source}: column '{column}' is float32 with values up to {farthest:,.0f}, in steps of {step:g} m; "
                "export it as float64, or take a constant off before"
            )


def _check_motion(table: pd.DataFrame, source: str) -> None:
    """Compare the recorded speeds with how far the vehicles move, which tells wrong units and mixed-up vehicles."""
    ordered = table.sort_values(["recording", "vehicle_id", "time_s"], kind="stable")
    same = (ordered[["recording", "vehicle_id"]] == ordered[["recording", "vehicle_id"]].shift()).all(axis=1).to_numpy()
    step = ordered["time_s"].diff().to_numpy()
    moved = np.hypot(ordered["x_m"].diff(), ordered["y_m"].diff()).to_numpy()
    near = same & (step < 1.0) & (step > 1e-6)
    apparent = np.divide(moved, step, out=np.zeros(len(step)), where=near)
    too_far = near & (moved > FASTEST_MPS * np.maximum(step, DT_S))
    if too_far.any():
        at = int(too_far.argmax())
        raise InputError(
            f"{source}: column 'x_m', row {ordered.index[at]}: vehicle {ordered['vehicle_id'].iloc[at]} moves "
            f"{moved[at]:.1f} m in {step[at]:.2f} s; expected metres and one vehicle: convert the column, or give "
            "another vehicle_id"
        )
    speed = ordered["speed_mps"].to_numpy()
    fast = near & (apparent > 2.0) & (speed > 2.0)
    if fast.sum() < 20:
        return
    factor = float(np.median(speed[fast] / apparent[fast]))
    if not 0.7 <= factor <= 1.4:
        first = ordered.index[int(fast.argmax())]
        known = [unit for value, unit in KNOWN_FACTORS.items() if abs(factor / value - 1) < 0.05]
        looks = f", which looks like {known[0]}" if known else ""
        raise InputError(
            f"{source}: column 'speed_mps', row {first}: speeds are {factor:.2f} times what the positions say{looks}; "
            f"expected metres, seconds and metres per second: convert the column"
        )


def _with_speeds_of_the_positions(tracks: pd.DataFrame, name: str, dropped: Counter[str]) -> pd.DataFrame:
    """Scale speeds and accelerations of 10 Hz tracks to what the positions say, where they are off by over 0.5 %.

    A whole recording whose speeds are a few per cent off (a rounded unit factor) is consistent in itself, but a car
    that is moved by its speed then drifts through cars that are moved by their positions. Distances are summed over
    chords of one second: noise in the position would lengthen shorter ones, a bend shorten longer ones.
    """
    ordered = tracks.sort_values(["vehicle_id", "time_s"], kind="stable")
    chord = round(1.0 / DT_S)
    vehicle, time = ordered["vehicle_id"].to_numpy(), ordered["time_s"].to_numpy()
    if len(ordered) <= chord:
        return tracks
    same = (vehicle[chord:] == vehicle[:-chord]) & (np.abs(time[chord:] - time[:-chord] - 1.0) < 0.05)
    x, y, speed = (ordered[column].to_numpy() for column in ("x_m", "y_m", "speed_mps"))
    moved = np.hypot(x[chord:] - x[:-chord], y[chord:] - y[:-chord])
    # trapezoidal integral of the speed over each chord
    summed = np.concatenate([[0.0], np.cumsum((speed[1:] + speed[:-1]) / 2 * DT_S)])
    said = summed[chord:] - summed[:-chord]
    counted = same & (moved > 3.0)
    if counted.sum() < 100:
        return tracks
    factor = float(said[counted].sum() / moved[counted].sum())
    if abs(factor - 1.0) <= SPEED_TOLERANCE:
        return tracks
    dropped[f"speeds {100 * (factor - 1):+.1f} % against the positions ({name}): scaled to fit"] += len(tracks)
    return tracks.assign(speed_mps=tracks["speed_mps"] / factor, accel_mps2=tracks["accel_mps2"] / factor)


def _is_10_hz(tracks: pd.DataFrame) -> bool:
    since = (tracks["time_s"] - tracks["time_s"].min()).to_numpy() / DT_S
    if np.abs(since - np.rint(since)).max() > 0.02:
        return False
    step = tracks.sort_values(["vehicle_id", "time_s"]).groupby("vehicle_id")["time_s"].diff().median()
    return bool(np.isnan(step) or step < 1.5 * DT_S)


def _interpolated(tracks: pd.DataFrame, resampling: ResamplingConfig, dropped: Counter[str]) -> pd.DataFrame:
    parts, start = [], float(tracks["time_s"].min())
    next_id = int(tracks["vehicle_id"].max()) + 1
    for vehicle, rows in tracks.sort_values("time_s").groupby("vehicle_id"):
        time = rows["time_s"].to_numpy() - start
        begins = np.flatnonzero(np.diff(time) > resampling.max_gap_s + 1e-6) + 1
        dropped["vehicles unseen for a while: cut"] += len(begins)
        for number, at in enumerate(np.split(np.arange(len(rows)), begins)):
            track = None
            if len(at) > 1 and time[at[-1]] - time[at[0]] >= resampling.min_track_s - 1e-6:
                track = resample(time[at], rows["x_m"].to_numpy()[at], rows["y_m"].to_numpy()[at], None, 0.0)
            if track is None:
                dropped[f"tracks under {resampling.min_track_s:g} s: dropped"] += 1
                continue
            nearest = rows.iloc[at[np.abs(time[at] - track.time_s[:, None]).argmin(1)]]
            identity, next_id = (vehicle, next_id) if number == 0 else (next_id, next_id + 1)
            parts.append(
                pd.DataFrame(
                    {
                        "vehicle_id": identity,
                        "time_s": np.round(track.time_s, 3),
                        "x_m": track.x_m,
                        "y_m": track.y_m,
                        "heading_rad": track.heading_rad,
                        "length_m": nearest["length_m"].to_numpy(),
                        "width_m": nearest["width_m"].to_numpy(),
                        "class": nearest["class"].to_numpy(),
                        "speed_mps": track.speed_mps,
                        "accel_mps2": track.accel_mps2,
                        "lane_id": nearest["lane_id"].to_numpy(),
                    }
                )
            )
    dropped["recordings not at 10 Hz: interpolated"] += 1
    return pd.concat(parts, ignore_index=True) if parts else tracks.iloc[:0]


def read_splits(path: Path, names: list[str]) -> dict[str, list[str]]:
    try:
        splits = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); write it again") from None
    if not isinstance(splits, dict) or not set(splits) <= set(SPLITS):
        raise InputError(f"{path}: expected {{'train': [...], 'val': [...], 'test': [...]}}; mend its keys")
    splits = {key: [str(name) for name in splits.get(key, [])] for key in SPLITS}
    check_splits(splits, names, str(path))
    return splits


def _tracks_file(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise InputError(f"{path}: not found; give a folder with tracks.parquet (or tracks.csv) and lanes.json")
    for name in ("tracks.parquet", "tracks.csv"):
        if (path / name).is_file():
            return path / name
    raise InputError(f"{path}: holds no tracks.parquet and no tracks.csv; see docs/recordings.md for the schema")
