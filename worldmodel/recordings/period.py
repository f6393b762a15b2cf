"""One period of filming in NGSIM's own columns, and the recording at 10 Hz that is made of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import pandas as pd

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.recordings.lane import DEFAULT_SPEED_LIMIT_MPS
from drivecast.worldmodel.recordings.lane_survey import survey_lanes
from drivecast.worldmodel.recordings.recording import Recording
from drivecast.worldmodel.recordings.resampling import ResamplingConfig, cuts, resample

FOOT_M = 0.3048
USED = (
    *("Vehicle_ID", "Frame_ID", "Global_Time", "Local_X", "Local_Y"),
    *("v_Length", "v_Width", "v_Class", "v_Vel", "Lane_ID"),
)
CLASSES = {1: "motorcycle", 2: "car", 3: "truck"}
SAME_PERIOD_MS = 30_000
TRAFFIC_GAP_MS = 60_000


@dataclass(frozen=True)
class Period:
    """A period of filming, its rows not yet read.

    Attributes:
        name: name of the recording to be.
        source: file that errors name.
        site: what was filmed; periods of one site may overlap in time.
        start_ms: first moment that is kept, in the clock of Global_Time.
        end_ms: last moment that is kept.
        load: reads the rows, columns `USED`, in feet and milliseconds.
    """

    name: str
    source: str
    site: str
    start_ms: float
    end_ms: float
    load: Callable[[], pd.DataFrame]


def period_of(global_time_ms: np.ndarray, frame_id: np.ndarray) -> np.ndarray:
    """Number of the period of filming of each row, in the order of time.

    In NGSIM's files Frame_ID counts tenths of seconds from the period's start, and numbers of frames and vehicles begin
    again in each: rows belong together when Global_Time - 100 Frame_ID agrees. Where that is not constant (a file that
    was thinned out), periods are told apart by a minute without traffic.
    """
    start = np.floor((global_time_ms - 100.0 * frame_id) / SAME_PERIOD_MS).astype(np.int64)
    known, rows = np.unique(start, return_counts=True)
    begins = known[np.diff(known, prepend=known[0] - 2) > 1]  # neighbouring bins are one period
    if len(known) > 20 or rows.sum() < 200 * len(known):
        order = np.argsort(global_time_ms, kind="stable")
        label = np.empty(len(order), np.int64)
        label[order] = np.cumsum(np.diff(global_time_ms[order], prepend=global_time_ms[order[0]]) > TRAFFIC_GAP_MS)
        return label
    return np.searchsorted(begins, start, side="right") - 1


def without_overlap(periods: Sequence[Period]) -> list[Period]:
    """Periods of one site, cut so that no moment is in two of them.

    Where two overlap, NGSIM shows in the one the vehicles that came before the change and in the other those that came
    after: neither is the whole scene, so both lose the overlap. A period of which nothing is left is left out.
    """
    kept = []
    for period in periods:
        start, end = period.start_ms, period.end_ms
        for other in periods:
            if other is period or other.site != period.site or other.end_ms < start or other.start_ms > end:
                continue
            if (other.start_ms, other.end_ms) > (period.start_ms, period.end_ms):
                end = min(end, other.start_ms - 1)
            else:
                start = max(start, other.end_ms + 1)
        if end > start:
            kept.append(replace(period, start_ms=start, end_ms=end))
    return kept


def build_recording(
    period: Period,
    resampling: ResamplingConfig | None = None,
    speed_limit_mps: float = DEFAULT_SPEED_LIMIT_MPS,
    dropped: Counter[str] | None = None,
) -> Recording:
    """Make a recording at 10 Hz of one period.

    Local_Y is the front of the vehicle along the road: the centre is half a length behind it. Local_X is measured from
    the left edge to the right: y = -Local_X. Lanes are surveyed from the vehicles (see `lane_survey`).

    Args:
        period: the raw rows and where they came from.
        resampling: how samples become tracks (see `resampling`).
        speed_limit_mps: speed limit of every lane.
        dropped: counts what was left out or mended, by reason.

    Raises:
        InputError: when no vehicle or no lane is left.
    """
    resampling = resampling or ResamplingConfig()
    dropped = Counter() if dropped is None else dropped
    raw = period.load()
    outside = (raw["Global_Time"] < period.start_ms) | (raw["Global_Time"] > period.end_ms)
    dropped["rows of moments that two periods show in part: dropped"] += int(outside.sum())
    samples, start_ms = _samples(raw[~outside], dropped)
    parts: list[pd.DataFrame] = []
    unused = count(int(samples["vehicle_id"].max()) + 1)
    for vehicle_id, seen in samples.groupby("vehicle_id", sort=True):
        for number, track in enumerate(_tracks(seen, resampling, dropped)):
            parts.append(track.assign(vehicle_id=vehicle_id if number == 0 else next(unused)))
    if not parts:
        raise InputError(f"{period.source}: no vehicle is seen for {resampling.min_track_s:g} s; record longer")
    tracks = pd.concat(parts, ignore_index=True)
    lanes = survey_lanes(tracks, period.source, speed_limit_mps)
    return Recording(period.name, tracks, lanes, {"global_time_ms": start_ms})


def _samples(raw: pd.DataFrame, dropped: Counter[str]) -> tuple[pd.DataFrame, int]:
    """The raw rows in SI units, sorted by (vehicle, time), without repetitions; and the clock's zero in ms."""
    start_ms = int(np.floor(raw["Global_Time"].min() / 100.0) * 100)
    samples = pd.DataFrame(
        {
            "vehicle_id": raw["Vehicle_ID"].astype(np.int64),
            "time_s": (raw["Global_Time"] - start_ms) / 1000.0,
            "x_m": (raw["Local_Y"] - raw["v_Length"] / 2) * FOOT_M,
            "y_m": -raw["Local_X"] * FOOT_M,
            "length_m": raw["v_Length"] * FOOT_M,
            "width_m": raw["v_Width"] * FOOT_M,
            "class": raw["v_Class"],
            "speed_mps": raw["v_Vel"] * FOOT_M,
            "lane_id": raw["Lane_ID"].astype(np.int64),
        }
    )
    samples = samples.sort_values(["vehicle_id", "time_s", "x_m", "y_m"], kind="stable")
    step = samples[["vehicle_id", "time_s", "x_m", "y_m"]].diff().abs().to_numpy()
    again = (step[:, 0] == 0) & (step[:, 1] < 1e-3)
    elsewhere = again & ((step[:, 2] > 0.01) | (step[:, 3] > 0.01))
    dropped["rows repeated word for word: dropped"] += int((again & ~elsewhere).sum())
    dropped["rows at another place at the same moment: dropped"] += int(elsewhere.sum())
    return samples[~again], start_ms


def _tracks(seen: pd.DataFrame, resampling: ResamplingConfig, dropped: Counter[str]) -> Iterator[pd.DataFrame]:
    """The tracks at 10 Hz of one vehicle number, in the order of time."""
    columns = ("time_s", "x_m", "y_m", "speed_mps", "length_m", "width_m", "lane_id")
    time, x, y, speed, length, width, lane = (seen[column].to_numpy() for column in columns)
    gap, jump = cuts(time, x, y, speed, length, resampling)
    dropped["vehicles unseen for a while: cut"] += int(gap.sum())
    dropped["jumps in place or length: cut"] += int(jump.sum())
    for at in np.split(np.arange(len(seen)), np.flatnonzero(gap | jump)):
        track = None
        if len(at) > 1 and time[at[-1]] - time[at[0]] >= resampling.min_track_s - 1e-6:
            track = resample(time[at], x[at], y[at], speed[at], resampling.smoothing_s)
        if track is None:
            dropped[f"tracks under {resampling.min_track_s:g} s: dropped"] += 1
            continue
        yield pd.DataFrame(
            {
                "time_s": np.round(track.time_s, 3),
                "x_m": track.x_m,
                "y_m": track.y_m,
                "heading_rad": track.heading_rad,
                "length_m": float(np.median(length[at])),
                "width_m": float(np.median(width[at])),
                "class": CLASSES.get(int(seen["class"].iloc[at[0]]), "car"),
                "speed_mps": track.speed_mps,
                "accel_mps2": track.accel_mps2,
                "lane_id": lane[at[_nearest(time[at], track.time_s)]],
            }
        )


def _nearest(samples: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    after = np.searchsorted(samples, wanted).clip(1, len(samples) - 1)
    return after - (wanted - samples[after - 1] < samples[after] - wanted)
