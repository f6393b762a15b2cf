"""Lanes from where vehicles drove: for recordings that come with lane numbers but without a map."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter1d

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.recordings.lane import DEFAULT_SPEED_LIMIT_MPS, Lane, completed

BIN_M = 5.0
SMOOTH_OVER_M = 20.0  # standard deviation of the Gaussian along the road
MIN_SAMPLES = 4  # of a bin
MIN_LANE_M = 30.0
NEAR_END_M = 30.0
DEFAULT_WIDTH_M = 3.66  # 12 ft, a US freeway's lane
WIDTH_RANGE_M = (2.8, 4.6)


def survey_lanes(
    tracks: pd.DataFrame, source: str, speed_limit_mps: float = DEFAULT_SPEED_LIMIT_MPS
) -> tuple[Lane, ...]:
    """Find the lanes of a section whose traffic runs along +x, with `lane_id` 1 the leftmost.

    The centre of a lane is the median of its vehicles' `y_m` in bins of 5 m of `x_m`, smoothed by a Gaussian of 20 m;
    the median ignores the few that change lanes. Its width is the mean distance to the lanes beside it, held within
    2.8 and 4.6 m. A lane runs from its first to its last bin with four samples or more. It is closed at an end where
    half or more of its vehicles there come from or go on in another lane (an on-ramp that runs out), otherwise open.
    Neighbours are found as in `lane.completed`.

    Args:
        tracks: columns `vehicle_id, time_s, x_m, y_m, lane_id`; rows with `lane_id` < 1 are in no lane.
        source: file that errors name.
        speed_limit_mps: speed limit of every lane.

    Raises:
        InputError: when no lane can be made out.
    """
    centres: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    inside = tracks[tracks["lane_id"] >= 1]
    for lane_id, of_lane in inside.groupby("lane_id"):
        number = np.floor(of_lane["x_m"].to_numpy() / BIN_M).astype(np.int64)
        bins = pd.DataFrame({"bin": number, "y": of_lane["y_m"].to_numpy()}).groupby("bin")["y"].agg(["median", "size"])
        bins = bins[bins["size"] >= MIN_SAMPLES]
        if len(bins) < 3 or (bins.index[-1] - bins.index[0]) * BIN_M < MIN_LANE_M:
            continue
        x = np.arange(bins.index[0], bins.index[-1] + 1)
        y = np.interp(x, bins.index.to_numpy(), bins["median"].to_numpy())
        centres[int(lane_id)] = ((x + 0.5) * BIN_M, _smooth(y))
    if not centres:
        raise InputError(f"{source}: column 'Lane_ID': no lane has {MIN_LANE_M:g} m of traffic; record longer")
    lanes = []
    for lane_id, (x, y) in sorted(centres.items()):
        closed_start, closed_end = _closed(tracks, lane_id, x[0], x[-1])
        lanes.append(
            Lane(
                lane_id,
                np.stack([x, y], 1),
                _width(lane_id, x, y, centres),
                speed_limit_mps,
                open_start=not closed_start,
                open_end=not closed_end,
            )
        )
    return completed(lanes)


def _closed(tracks: pd.DataFrame, lane_id: int, start_m: float, end_m: float) -> tuple[bool, bool]:
    """Whether most vehicles near a lane's start came from another lane, and near its end went to another."""
    inside = tracks[tracks["lane_id"] == lane_id]
    answers = []
    for near, first in (
        (inside[inside["x_m"] <= start_m + NEAR_END_M], True),
        (inside[inside["x_m"] >= end_m - NEAR_END_M], False),
    ):
        vehicles = near["vehicle_id"].unique()
        if len(vehicles) == 0:
            answers.append(False)
            continue
        whole = tracks[tracks["vehicle_id"].isin(vehicles)].sort_values(["vehicle_id", "time_s"])
        by_vehicle = whole.groupby("vehicle_id")["lane_id"]
        outer = by_vehicle.first() if first else by_vehicle.last()
        answers.append(float((outer != lane_id).mean()) >= 0.5)
    return answers[0], answers[1]


def _smooth(y: np.ndarray) -> np.ndarray:
    """Gaussian smoothing of the departure from the straight fit, so that the ends are not bent inwards."""
    x = np.arange(len(y))
    line = np.polyval(np.polyfit(x, y, 1), x)
    return line + gaussian_filter1d(y - line, SMOOTH_OVER_M / BIN_M, mode="nearest")


def _width(lane_id: int, x: np.ndarray, y: np.ndarray, centres: dict[int, tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    apart = [
        np.abs(np.interp(x, *other, left=np.nan, right=np.nan) - y)
        for other_id, other in centres.items()
        if abs(other_id - lane_id) == 1
    ]
    distances = np.stack([*apart, np.full(len(x), np.nan)])
    # a ramp that runs apart from its neighbour says nothing about the width
    distances[(distances > 1.5 * DEFAULT_WIDTH_M) | (distances < 0.5 * DEFAULT_WIDTH_M)] = np.nan
    known = ~np.isnan(distances)
    total = np.where(known, distances, 0.0).sum(0)
    width = np.where(known.any(0), total / known.sum(0).clip(1), np.nan)
    seen = ~np.isnan(width)
    if not seen.any():
        return np.full(len(x), DEFAULT_WIDTH_M)
    return np.interp(x, x[seen], width[seen]).clip(*WIDTH_RANGE_M)
