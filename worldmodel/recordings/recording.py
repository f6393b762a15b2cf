"""A recording in memory: a table of vehicle states, the lanes they drove on, and where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.recordings.lane import Lane, completed

DT_S = 0.1  # every stored recording has 10 frames a second

REQUIRED_COLUMNS = (
    "vehicle_id",
    "time_s",
    "x_m",
    "y_m",
    "heading_rad",
    "length_m",
    "width_m",
    "speed_mps",
    "accel_mps2",
)
OPTIONAL_COLUMNS = {"class": "car", "lane_id": 0}
COLUMNS = (
    "recording",
    "vehicle_id",
    "time_s",
    "x_m",
    "y_m",
    "heading_rad",
    "length_m",
    "width_m",
    "class",
    "speed_mps",
    "accel_mps2",
    "lane_id",
)

# What no road vehicle exceeds; beyond it a unit is wrong.
LIMITS: Mapping[str, tuple[float, float, str]] = {
    "speed_mps": (-1.0, 75.0, "metres per second (75 m/s is 270 km/h)"),
    "length_m": (0.3, 30.0, "metres"),
    "width_m": (0.2, 4.5, "metres"),
    "heading_rad": (-2 * np.pi - 0.01, 2 * np.pi + 0.01, "radians, counter-clockwise from +x"),
    "accel_mps2": (-60.0, 60.0, "metres per second squared"),
}


@dataclass(frozen=True, eq=False)
class Recording:
    """Tracks, lanes and origin of one uninterrupted observation of a road section.

    Attributes:
        name: unique name of the recording.
        tracks: one row per vehicle and moment; columns `vehicle_id, time_s, x_m, y_m, heading_rad, length_m, width_m,
            speed_mps, accel_mps2`, and optionally `class` ("car") and `lane_id` (0: in no lane). `x_m, y_m` is the
            centre of the vehicle, +x along the traffic, +y to the left; 10 rows per vehicle and second.
        lanes: the lanes, `lane_id` 1 leftmost. Their optional fields are filled (see `lane.completed`).
        metadata: anything worth keeping about its origin, as JSON values.

    Raises:
        InputError: when a column is missing, holds NaN or a value that no vehicle reaches, when a vehicle stands twice
            in a moment, or when there is no row or no lane.
    """

    name: str
    tracks: pd.DataFrame
    lanes: tuple[Lane, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        source = f"recording '{self.name}'"
        tracks = check_tracks(self.tracks, source)
        if not self.lanes:
            raise InputError(f"{source}: has no lanes; give at least one lane with its centre line and width")
        tracks = tracks.assign(recording=self.name)[list(COLUMNS)]
        object.__setattr__(self, "tracks", tracks)
        object.__setattr__(self, "lanes", completed(self.lanes))


def check_tracks(tracks: pd.DataFrame, source: str, key: tuple[str, ...] = ("vehicle_id", "time_s")) -> pd.DataFrame:
    """Check a table of tracks and fill its optional columns.

    Args:
        tracks: the table; its index is the row number that errors name.
        source: file or recording that errors name.
        key: the columns that no two rows may share.

    Returns:
        The table with `class` and `lane_id` present and numeric columns as numbers.

    Raises:
        InputError: one line that names source, column and row, and what to do.
    """
    for column in (*REQUIRED_COLUMNS, *key):
        if column not in tracks.columns:
            raise InputError(f"{source}: column '{column}' is missing; found {list(tracks.columns)}; add or rename it")
    if len(tracks) == 0:
        raise InputError(f"{source}: has no rows; record or export the tracks again")
    tracks = tracks.assign(**{c: v for c, v in OPTIONAL_COLUMNS.items() if c not in tracks.columns})
    for column in (*REQUIRED_COLUMNS, "lane_id"):
        values = tracks[column]
        if not pd.api.types.is_numeric_dtype(values):
            number = pd.to_numeric(values, errors="coerce")
            bad = number.isna() & values.notna()
            if bad.any():
                row = bad.idxmax()
                raise InputError(
                    f"{source}: column '{column}', row {row}: expected a number, got {values[row]!r}; mend it"
                )
            tracks = tracks.assign(**{column: number})
            values = number
        finite = np.isfinite(values.to_numpy(np.float64, na_value=np.nan))
        if not finite.all():
            row = tracks.index[int((~finite).argmax())]
            raise InputError(f"{source}: column '{column}', row {row}: is not a finite number; fill it or drop the row")
    for column, (low, high, unit) in LIMITS.items():
        numbers = tracks[column].to_numpy(np.float64)
        outside = (numbers < low) | (numbers > high)
        if outside.any():
            at = int(outside.argmax())
            raise InputError(
                f"{source}: column '{column}', row {tracks.index[at]}: {numbers[at]:g} is not within "
                f"[{low:.4g}, {high:.4g}]; expected {unit}: convert the column"
            )
    repeated = tracks.duplicated(list(key)).to_numpy()
    if repeated.any():
        at = int(repeated.argmax())
        what = ", ".join(f"{column} {tracks[column].iloc[at]}" for column in key)
        raise InputError(
            f"{source}: column '{key[-1]}', row {tracks.index[at]}: ({what}) stands twice; "
            "keep one row per vehicle and moment"
        )
    return tracks
