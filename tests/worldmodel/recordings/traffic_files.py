"""Made-up traffic that the tests write in the formats that ingest reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from drivecast.worldmodel.recordings.lane import Lane
from drivecast.worldmodel.recordings.recording import Recording

FOOT_M = 0.3048
PORTAL_HEADER = (
    "Vehicle_ID,Frame_ID,Total_Frames,Global_Time,Local_X,Local_Y,Global_X,Global_Y,v_length,v_Width,v_Class,v_Vel,"
    "v_Acc,Lane_ID,O_Zone,D_Zone,Int_ID,Section_ID,Direction,Movement,Preceding,Following,Space_Headway,"
    "Time_Headway,Location"
)
NGSIM_HEADER = (
    "Vehicle_ID,Frame_ID,Total_Frames,Global_Time,Local_X,Local_Y,Global_X,Global_Y,v_Length,v_Width,v_Class,v_Vel,"
    "v_Acc,Lane_ID,Preceding,Following,Space_Headway,Time_Headway"
)


def cruising(
    vehicles: int = 6, seconds: float = 12.0, speed_mps: float = 12.0, lanes: int = 3, start_id: int = 1
) -> pd.DataFrame:
    """Vehicles at constant, slightly different speeds, one behind the other in their lanes (lane 1 at y = 0)."""
    time = np.round(np.arange(0, seconds, 0.1), 3)
    parts = []
    for number in range(vehicles):
        speed = speed_mps + 0.2 * number
        lane = number % lanes
        parts.append(
            pd.DataFrame(
                {
                    "vehicle_id": start_id + number,
                    "time_s": time,
                    "x_m": 15.0 * (number // lanes) + speed * time,
                    "y_m": -3.6 * lane,
                    "heading_rad": 0.0,
                    "length_m": 4.5,
                    "width_m": 1.8,
                    "class": "car",
                    "speed_mps": speed,
                    "accel_mps2": 0.0,
                    "lane_id": lane + 1,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def straight_lanes(count: int = 3, length_m: float = 300.0) -> list[Lane]:
    return [
        Lane(number + 1, np.array([[0.0, -3.6 * number], [length_m, -3.6 * number]]), np.array([3.6, 3.6]))
        for number in range(count)
    ]


def recording(name: str, **kwargs) -> Recording:
    return Recording(name, cruising(**kwargs), tuple(straight_lanes()))


def write_tidy(folder: Path, tracks: pd.DataFrame, splits: dict | None = None, suffix: str = "parquet") -> Path:
    """Write a tidy folder; `tracks` needs a column `recording`."""
    folder.mkdir(parents=True, exist_ok=True)
    if suffix == "parquet":
        tracks.to_parquet(folder / "tracks.parquet", index=False)
    else:
        tracks.to_csv(folder / "tracks.csv", index=False)
    lanes = [lane.as_json(str(name)) for name in tracks["recording"].unique() for lane in straight_lanes()]
    keep = ("recording", "lane_id", "centre", "width_m")
    (folder / "lanes.json").write_text(json.dumps([{key: lane[key] for key in keep} for lane in lanes]))
    if splits is not None:
        (folder / "splits.json").write_text(json.dumps(splits))
    return folder


def ngsim_rows(tracks: pd.DataFrame, start_ms: int = 1_118_846_980_000) -> list[list[str]]:
    """The rows of the 18 columns, in feet, that describe `tracks`."""
    rows = []
    for row in tracks.itertuples():
        frame = round(row.time_s * 10) + 1
        rows.append(
            [
                f"{row.vehicle_id}",
                f"{frame}",
                "100",
                f"{start_ms + frame * 100}",
                f"{(4.0 - row.y_m) / FOOT_M:.5f}",
                f"{(row.x_m + row.length_m / 2) / FOOT_M:.5f}",
                "6451137.641",
                "1873344.962",
                f"{row.length_m / FOOT_M:.3f}",
                f"{row.width_m / FOOT_M:.3f}",
                "2",
                f"{row.speed_mps / FOOT_M:.4f}",
                f"{row.accel_mps2 / FOOT_M:.4f}",
                f"{row.lane_id}",
                "0",
                "0",
                "0.00",
                "0.00",
            ]
        )
    return rows


def portal_lines(rows: list[list[str]], location: str) -> list[str]:
    """The same rows as lines of the portal's CSV: six empty columns for junctions, and the location."""
    return [",".join([*row[:14], *[""] * 6, *row[14:], location]) for row in rows]
