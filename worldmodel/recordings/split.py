"""Which recordings train, which validate and which test. Never by vehicle or by row: that leaks scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.recordings.recording import DT_S, Recording

SPLITS = ("train", "val", "test")


def check_split(name: str) -> None:
    """Refuse a part of a store that there is not.

    Raises:
        InputError: one line that names those there are.
    """
    if name not in (*SPLITS, "all"):
        raise InputError(f"split: expected one of {[*SPLITS, 'all']}, got '{name}'")


def split_recordings(names: Sequence[str], held_out: float = 0.1, seed: int = 0) -> dict[str, list[str]]:
    """Split recordings at random, the same for the same names: `held_out` of them each in val and test.

    With three or more recordings each part holds at least one; with fewer, all are in train.
    """
    if len(names) < 3:
        return {"train": list(names), "val": [], "test": []}
    count = max(1, round(held_out * len(names)))
    shuffled = np.random.default_rng(seed).permutation(len(names))
    part = {int(i): "test" for i in shuffled[:count]} | {int(i): "val" for i in shuffled[count : 2 * count]}
    return {key: [n for i, n in enumerate(names) if part.get(i, "train") == key] for key in SPLITS}


def split_in_time(
    recording: Recording, held_out: float = 0.2, gap_s: float = 3.0
) -> tuple[list[Recording], dict[str, list[str]]]:
    """Cut one recording into three, with `gap_s` seconds left out between them, so that no moment is in two parts.

    Train comes first, then val and test, each `held_out` of what the gaps leave.

    Raises:
        InputError: when the recording is too short for it (a part under 2 s).
    """
    time = recording.tracks["time_s"].to_numpy()
    start, end = time.min(), time.max()
    usable = end - start - 2 * gap_s
    if held_out * usable < 2.0:
        raise InputError(
            f"recording '{recording.name}': {end - start:.1f} s are too short to be cut into train, val and test with "
            f"gaps of {gap_s:g} s; give a longer recording, or several with a splits.json"
        )
    spans = {
        "train": (start, start + (1 - 2 * held_out) * usable),
        "val": (end - 2 * held_out * usable - gap_s, end - held_out * usable - gap_s),
        "test": (end - held_out * usable, end),
    }
    parts, splits = [], {}
    for key, (low, high) in spans.items():
        inside = (time >= low - DT_S / 2) & (time <= high + DT_S / 2)
        name = f"{recording.name}-{key}"
        parts.append(replace(recording, name=name, tracks=recording.tracks[inside]))
        splits[key] = [name]
    return parts, splits


def cut_in_pieces(recording: Recording, longest_s: float) -> list[Recording]:
    """Cut a recording into equal parts of at most `longest_s` seconds, which belong in one split.

    Dense scenes (`WindowStore.scene_states`) grow with time x vehicles, so hours in one recording would not fit.
    """
    time = recording.tracks["time_s"].to_numpy()
    start, length = time.min(), time.max() - time.min() + DT_S
    count = int(np.ceil(length / longest_s - 1e-9))
    if count <= 1:
        return [recording]
    piece = ((time - start + DT_S / 2) / length * count).astype(int).clip(0, count - 1)
    return [
        Recording(
            f"{recording.name}-p{number + 1:02d}",
            recording.tracks[piece == number],
            recording.lanes,
            recording.metadata,
        )
        for number in range(count)
        if (piece == number).any()
    ]


def check_splits(splits: Mapping[str, Sequence[str]], names: Sequence[str], source: str) -> None:
    """Raise InputError unless each recording is in exactly one of train, val and test."""
    listed = [name for key in SPLITS for name in splits.get(key, [])]
    twice = sorted({name for name in listed if listed.count(name) > 1})
    if twice:
        raise InputError(f"{source}: splits hold {twice[0]!r} more than once; each recording belongs in one split")
    unknown, missing = sorted(set(listed) - set(names)), sorted(set(names) - set(listed))
    if unknown:
        raise InputError(f"{source}: splits name recording {unknown[0]!r}, which the tracks do not hold; remove it")
    if missing:
        raise InputError(f"{source}: splits leave out recording {missing[0]!r}; put it into train, val or test")
