"""Small scenes and stores that several tests share: IDM-like platoons on a straight road, made here, not recorded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from drivecast.worldmodel.recordings.lane import Lane
from drivecast.worldmodel.recordings.recording import Recording
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.recordings.store_writer import write_store
from drivecast.worldmodel.scene.kinematics import drive
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Goal, TrafficState


def scene(*vehicles: tuple[float, float, float], batch: int = 1, dtype: torch.dtype = torch.float32) -> TrafficState:
    """Cars of 5 m by 2 m at `(x_m, y_m, speed_mps)`, heading along +x: `(batch, agent)`."""
    values = torch.tensor(vehicles, dtype=dtype).expand(batch, -1, -1)
    ones = torch.ones_like(values[..., 0])
    return TrafficState(values[..., :2].clone(), 0 * ones, values[..., 2].clone(), 5 * ones, 2 * ones, ones.bool())


def driven_among_the_steady(driver, present: TrafficState, road: Road, goal: Goal, seconds: float) -> TrafficState:
    """States `(batch, time, agent)` of a drive from `present` whose others keep their velocity."""
    states = [present]
    driver.reset(present, road, goal)
    for _ in range(round(seconds / 0.1)):
        now = states[-1]
        controls = driver.act(TrafficState.stack(states[-3:], 1), road, goal)
        moved = replace(now, position_m=now.position_m + 0.1 * now.velocity_mps)
        states.append(moved.with_ego(drive(now[:, 0], controls, 0.1)))
    return TrafficState.stack(states, 1)


def history_of(present: TrafficState, steps: int, dt_s: float = 0.1) -> TrafficState:
    """A past at constant velocity that ends in `present`: `(batch, time, agent)`."""
    past = []
    for back in range(steps - 1, -1, -1):
        shifted = present.map(torch.clone)
        shifted.position_m.sub_(present.velocity_mps * back * dt_s)
        past.append(shifted)
    return TrafficState.stack(past, 1)


def platoon_recording(name: str, seed: int, lanes: int = 3, cars_per_lane: int = 5, steps: int = 80) -> Recording:
    """Lanes of followers behind a leader that brakes and recovers; followers answer by a linear car-following law."""
    generator = np.random.default_rng(seed)
    rows = []
    for lane in range(lanes):
        y = -4.0 * lane
        gaps = generator.uniform(15, 30, cars_per_lane).cumsum()
        x = 200.0 - gaps
        v = np.full(cars_per_lane, generator.uniform(15, 22))
        brake_at, wanted = generator.integers(10, 50), v[0]
        for step in range(steps):
            time = step * 0.1
            a = np.empty(cars_per_lane)
            a[0] = -3.0 if brake_at <= step < brake_at + 12 else 0.5 * (wanted - v[0])
            gap, faster = x[:-1] - x[1:] - 5.0, v[:-1] - v[1:]
            a[1:] = np.clip(0.3 * (gap - 4 - 0.9 * v[1:]) + 0.8 * faster, -5, 2)
            for car in range(cars_per_lane):
                rows.append((lane * 100 + car + 1, time, x[car], y, 0.0, 5.0, 2.0, v[car], a[car], lane + 1))
            x, v = x + v * 0.1 + 0.5 * a * 0.01, np.maximum(v + a * 0.1, 0.0)
    columns = ["vehicle_id", "time_s", "x_m", "y_m", "heading_rad", "length_m", "width_m", "speed_mps", "accel_mps2"]
    tracks = pd.DataFrame(rows, columns=[*columns, "lane_id"])
    line = [
        Lane(lane + 1, np.array([[-200.0, -4.0 * lane], [900.0, -4.0 * lane]]), np.array([4.0, 4.0]))
        for lane in range(lanes)
    ]
    return Recording(name, tracks, tuple(line))


def platoon_store(folder: Path, recordings: int = 6) -> WindowStore:
    """A store of platoons: four recordings to train on, one to validate, one to test."""
    names = [f"platoon-{number}" for number in range(recordings)]
    splits = {"train": names[:-2], "val": names[-2:-1], "test": names[-1:]}
    write_store(folder, (platoon_recording(name, seed) for seed, name in enumerate(names)), splits)
    return WindowStore.open(folder)
