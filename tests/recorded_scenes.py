"""Small recordings with known motion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from drivecast.worldmodel.recordings.lane import Lane
from drivecast.worldmodel.recordings.recording import Recording
from drivecast.worldmodel.recordings.store_writer import write_store
from drivecast.worldmodel.recordings.window import RecordedScene
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState

DT_S = 0.1


@dataclass(frozen=True)
class Track:
    """A vehicle that drives straight at one speed; lane 0 is at y = 0, the next to its right at y = -4."""

    x_m: float
    speed_mps: float
    lane: int = 0
    first: int = 0
    last: int | None = None
    length_m: float = 5.0


def straight_scene(tracks: Sequence[Track], frames: int = 120, lanes: int = 2) -> RecordedScene:
    """A recording of `tracks` on a straight road, 4 m lanes."""
    time = torch.arange(frames)
    states = []
    for track in tracks:
        last = frames - 1 if track.last is None else track.last
        step = time.clamp(track.first, last) - track.first
        x = track.x_m + track.speed_mps * DT_S * step
        y = torch.full((frames,), -4.0 * track.lane)
        states.append(
            TrafficState(
                position_m=torch.stack([x, y], -1),
                heading_rad=torch.zeros(frames),
                speed_mps=torch.full((frames,), float(track.speed_mps)),
                length_m=torch.full((frames,), track.length_m),
                width_m=torch.full((frames,), 2.0),
                valid=(time >= track.first) & (time <= last),
            )
        )
    return RecordedScene(
        states=TrafficState.stack(states, 1),
        acceleration_mps2=torch.zeros(frames, len(tracks)),
        vehicle_id=torch.arange(len(tracks)) + 1,
        first_step=torch.tensor([track.first for track in tracks]),
        last_step=torch.tensor([frames - 1 if track.last is None else track.last for track in tracks]),
        road=Road.straight(lanes, length_m=1000.0),
        dt_s=DT_S,
    )


def straight_store(folder: Path, tracks: Sequence[Track], frames: int = 120, recordings: int = 1) -> Path:
    """The same as a recording store, all of it in split "test"."""
    scene = straight_scene(tracks, frames)
    rows = []
    for number, track in enumerate(tracks):
        seen = scene.states[:, number]
        index = np.flatnonzero(seen.valid.numpy())
        rows.append(
            pd.DataFrame(
                {
                    "vehicle_id": number + 1,
                    "time_s": index * DT_S,
                    "x_m": seen.position_m[index, 0].numpy().astype(float),
                    "y_m": seen.position_m[index, 1].numpy().astype(float),
                    "heading_rad": 0.0,
                    "length_m": track.length_m,
                    "width_m": 2.0,
                    "class": "car",
                    "speed_mps": track.speed_mps,
                    "accel_mps2": 0.0,
                    "lane_id": track.lane + 1,
                }
            )
        )
    tracks_table = pd.concat(rows, ignore_index=True)
    lanes = tuple(
        Lane(lane + 1, np.array([[0.0, -4.0 * lane], [1000.0, -4.0 * lane]]), np.array([4.0, 4.0])) for lane in range(2)
    )
    names = [f"straight-{number}" for number in range(recordings)]
    write_store(
        folder,
        (Recording(name, tracks_table, lanes) for name in names),
        splits={"train": [], "val": [], "test": names},
    )
    return folder
