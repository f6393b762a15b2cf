"""Whole recordings of a split, of one store or several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.recordings.window import RecordedScene


def open_scenes(data: Sequence[Path] | Path | str, split: str) -> dict[str, RecordedScene]:
    """The recordings of `split` ("train", "val", "test" or "all") by name; of several stores, by `store/name`."""
    folders = [data] if isinstance(data, str | Path) else list(data)
    scenes: dict[str, RecordedScene] = {}
    for folder in folders:
        store = WindowStore.open(Path(folder))
        if split not in ("all", *store.splits):
            raise InputError(f"{folder}: expected a split of {['all', *store.splits]}, got '{split}'")
        for recording in store.recordings:
            if split == "all" or recording in store.splits[split]:
                name = recording if len(folders) == 1 else f"{Path(folder).name}/{recording}"
                scenes[name] = store.scene_states(recording)
    return scenes
