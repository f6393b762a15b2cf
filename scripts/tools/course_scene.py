"""Records the simulated scene that the course's page about one car shows, for docs/course/one-car.json.

`python -m drivecast.scripts.tools.course_scene OUT.json`
"""

from __future__ import annotations

import argparse
import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState
from drivecast.worldmodel.storage.files import atomic_file

SEED, EPISODE, CAR, PRESENT_S = 3, 0, 9, 4.5  # of the recording that is shown: a car that is about to change lane
HISTORY_STEPS, FUTURE_STEPS = 21, 30
NEAR_M = 130.0  # who is farther away is left out, now and at the end
COLUMNS = ("x_m", "y_m", "heading_rad", "speed_mps")
DIGITS = 4


def recorded_scene() -> dict[str, Any]:
    """The scene, as JSON values: lanes from the left, and cars, of which the first is the one that is shown.

    A car has `length_m`, `width_m` and lists of `x_m`, `y_m`, `heading_rad`, `speed_mps`: `history_steps` moments up to
    the present, and those after, 0.1 s apart. x counts from where the car is now.
    """
    from drivecast.envs.recording.cast import RecordingPlan
    from drivecast.envs.recording.recorder import record_episodes

    plan = RecordingPlan(
        "highway-v0",
        SEED,
        PRESENT_S + FUTURE_STEPS * 0.1,
        (24, 24),
        (4, 4),
        (1.0, 1.0),
        (1.0, 1.0),
        (25.0, 25.0),
        behaviour="idm",
    )
    episode = {found.index: found for found in record_episodes(plan, EPISODE + 1, "batched")}[EPISODE]
    tracks = episode.recording().tracks
    first = round(PRESENT_S / plan.dt_s) - HISTORY_STEPS + 1
    times = (np.arange(first, first + HISTORY_STEPS + FUTURE_STEPS) * plan.dt_s).round(6)
    cars: dict[int, Any] = {}
    for vehicle, track in tracks.groupby("vehicle_id"):
        seen = track[track["time_s"].round(6).isin(times)].sort_values("time_s")
        if len(seen) == len(times):
            cars[int(vehicle)] = seen
    here = cars.pop(CAR)
    now_m = float(here["x_m"].iloc[HISTORY_STEPS - 1])

    def near(track: Any) -> bool:
        away = (track["x_m"].to_numpy() - here["x_m"].to_numpy())[[HISTORY_STEPS - 1, -1]]
        return bool((np.abs(away) < NEAR_M).any())

    shown = [here, *(track for track in cars.values() if near(track))]
    lanes = episode.lanes
    centres = [float(np.asarray(lane.centre_m)[0, 1]) for lane in lanes]
    for lane, centre in zip(lanes, centres, strict=True):
        if not (lane.open_start and lane.open_end and (np.asarray(lane.centre_m)[:, 1] == centre).all()):
            raise ValueError("the page knows straight lanes that go on; this recording has others")
    return {
        "dt_s": plan.dt_s,
        "history_steps": HISTORY_STEPS,
        "lanes": {
            "centres_m": centres,
            "width_m": float(np.asarray(lanes[0].width_m).reshape(-1)[0]),
            "speed_limit_mps": float(lanes[0].speed_limit_mps),
        },
        "cars": [_car(track, now_m) for track in shown],
    }


def _car(track: Any, origin_m: float) -> dict[str, Any]:
    size = {name: round(float(track[name].iloc[0]), DIGITS) for name in ("length_m", "width_m")}
    moved = track.assign(x_m=track["x_m"] - origin_m)
    return {**size, **{name: [round(float(value), DIGITS) for value in moved[name]] for name in COLUMNS}}


def as_tensors(scene: dict[str, Any], dtype: torch.dtype = torch.float32) -> tuple[TrafficState, Road, TrafficState]:
    """`(history, road, future)` of a scene, batch 1, as `ModelEnergy` takes them; the car is agent 0."""
    values = torch.tensor(
        [[car[name] for car in scene["cars"]] for name in COLUMNS], dtype=dtype
    ).mT  # (4, time, agent)
    size = [torch.tensor([car[name] for car in scene["cars"]], dtype=dtype) for name in ("length_m", "width_m")]
    length, width = (each.expand(values.shape[1:]) for each in size)
    position = torch.stack([values[0], values[1]], -1)
    valid = torch.ones(values.shape[1:], dtype=torch.bool)
    states = TrafficState(position, values[2], values[3], length, width, valid).map(lambda tensor: tensor[None])
    lanes = scene["lanes"]
    road = Road.straight(
        len(lanes["centres_m"]), 10_000.0, lanes["width_m"], lanes["speed_limit_mps"], start_m=-5_000.0
    )
    centre = road.centre_m.clone()
    centre[..., 1] = torch.tensor(lanes["centres_m"])[:, None]
    road = replace(road, centre_m=centre).map(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)
    now = scene["history_steps"]
    return states[:, :now], road, states[:, now:]


def stored_model(name: str) -> dict[str, Any]:
    """A world model as JSON values: weights as base64 of little-endian float32, settings and usual errors."""
    from drivecast.worldmodel.energy.loaded_model import LoadedModel

    loaded = LoadedModel.load(name)
    config = loaded.model.config
    if config.latent_process != "autoregressive" or not config.keeps_clear or config.decide_steps != 2:
        raise ValueError(f"{name}: the page knows autoregressive latents, bounds and a look every 0.2 s")
    settings = ("hidden", "latent_dims", "latent_hold_steps", "decide_steps", "dt_s")
    state = {key: value.numpy().astype("<f4").tobytes() for key, value in loaded.model.state_dict().items()}
    return {
        "name": name,
        "config": {key: getattr(config, key) for key in settings},
        "scale": loaded.scale.as_json(),
        "weights": {key: base64.b64encode(value).decode("ascii") for key, value in state.items()},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m drivecast.scripts.tools.course_scene", description="Record the scene of the course's page."
    )
    parser.add_argument("output", type=Path, help="JSON file to write")
    path = parser.parse_args(arguments).output
    with atomic_file(path) as temporary:
        Path(temporary).write_text(json.dumps(recorded_scene()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
