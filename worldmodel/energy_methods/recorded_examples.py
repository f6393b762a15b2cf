"""Examples from recordings: pasts with the future that followed, at 5 Hz."""

from __future__ import annotations

import torch
from torch import Tensor

from drivecast.worldmodel.energy_methods.coordinates import FutureCoordinates, displacement_m
from drivecast.worldmodel.energy_methods.method import Examples
from drivecast.worldmodel.energy_methods.surroundings import (
    FRAME_S,
    HISTORY_S,
    OTHERS,
    Surroundings,
    surroundings_of,
)
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.recordings.window import Window
from drivecast.worldmodel.scene.traffic import TrafficState

AT_ONCE = 2048


def recorded_rows(store: WindowStore, split: str, horizon_s: float, count: int, seed: int) -> Tensor:
    """Up to `count` vehicles at moments drawn at random, each with a whole past and future.

    Raises `InputError` where there is none.
    """
    rows = store.rows(split, _history_steps(store), round(horizon_s / store.dt_s))
    if not len(rows):
        raise InputError(
            f"split '{split}' of {store.directory} holds no vehicle that is seen for {HISTORY_S + horizon_s:g} s; "
            "ask for shorter futures"
        )
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:count]]


def window_of(store: WindowStore, rows: Tensor, horizon_s: float) -> Window:
    """Windows around the vehicles of `rows`, the nearest others beside each."""
    steps = round(horizon_s / store.dt_s)
    return store.window(store.frame_of(rows), _history_steps(store), steps, OTHERS + 1, rows)


def own_path_m(future: TrafficState, surroundings: Surroundings, dt_s: float) -> Tensor:
    """Of vehicle 0 in `future (batch, time, agent)`, at 5 Hz in the lane's frame: `(batch, frame, 2)`."""
    every = round(FRAME_S / dt_s)
    return surroundings.to_lane(future.position_m[:, every - 1 :: every, 0])


def recorded_paths(store: WindowStore, rows: Tensor, horizon_s: float) -> tuple[Surroundings, Tensor]:
    """Surroundings and paths `(row, frame, 2)` of recorded vehicles."""
    pasts, paths = [], []
    for some in rows.split(AT_ONCE):
        window = window_of(store, some, horizon_s)
        past = surroundings_of(window.history, window.future, window.road, store.dt_s)
        pasts.append(past)
        paths.append(own_path_m(window.future, past, store.dt_s))
    return Surroundings.cat(pasts), torch.cat(paths)


def recorded_examples(
    store: WindowStore, split: str, horizon_s: float, count: int, seed: int, coordinates: FutureCoordinates | None
) -> tuple[Examples, FutureCoordinates]:
    """Examples of `split` in `coordinates`; None: in those that are fitted to them."""
    past, path = recorded_paths(store, recorded_rows(store, split, horizon_s, count, seed), horizon_s)
    coordinates = coordinates or FutureCoordinates.fitted(displacement_m(path, past))
    return Examples(past, coordinates.vector(path, past)), coordinates


def _history_steps(store: WindowStore) -> int:
    return round(HISTORY_S / store.dt_s) + 1
