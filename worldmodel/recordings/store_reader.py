"""A recording store read from its folder: checked, memory-mapped, and never half of one and half of another."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.recordings.lane import Lane, read_lanes
from drivecast.worldmodel.recordings.store_writer import COLUMN_TYPES, SCHEMA_VERSION
from drivecast.worldmodel.scene.traffic import _TensorRecord
from drivecast.worldmodel.storage.files import recover_directory
from drivecast.worldmodel.storage.lock import held_for_writing

TRIES = 20  # to read a store that is replaced meanwhile


@dataclass(frozen=True)
class StoredRows(_TensorRecord):
    """The columns on disk, memory-mapped; `COLUMN_TYPES` has their types."""

    state: Tensor
    row_of_slot: Tensor
    slot: Tensor
    frame: Tensor
    vehicle_id: Tensor
    lane_id: Tensor
    steps_before: Tensor
    steps_after: Tensor
    frame_row: Tensor
    frame_recording: Tensor
    recording_frame: Tensor
    recording_time_s: Tensor


@dataclass(frozen=True)
class StoredFiles:
    """All files of a store but `drives.parquet`."""

    meta: dict[str, Any]
    splits: dict[str, list[str]]
    lanes: dict[str, list[Lane]]
    rows: StoredRows


def read_store(directory: Path) -> StoredFiles:
    """What lies in `directory`; one that is replaced meanwhile is read anew.

    Raises:
        InputError: when it is missing, from another version, or a file is corrupt.
    """
    if not directory.exists():
        _recover(directory)
    for _ in range(TRIES):
        before = _identity(directory)
        try:
            return _read(directory)
        except InputError:
            if _identity(directory) == before:
                raise
        # another store took its place while this one was read
    raise InputError(f"{directory}: is replaced again and again; wait until whoever writes it is done")


def _read(directory: Path) -> StoredFiles:
    before = _identity(directory)
    if not (directory / "meta.json").is_file():
        raise InputError(
            f"{directory}: not a recording store (no meta.json); make one with `drivecast ingest` or `drivecast record`"
        )
    meta = _read_json(directory / "meta.json")
    if not isinstance(meta, dict) or meta.get("schema") != SCHEMA_VERSION:
        found = meta.get("schema") if isinstance(meta, dict) else type(meta).__name__
        raise InputError(
            f"{directory / 'meta.json'}: expected schema {SCHEMA_VERSION}, got {found}; ingest the recordings again"
        )
    counts = meta["counts"]
    lengths = {"frame_row": counts["frames"] + 1, "frame_recording": counts["frames"]}
    lengths |= {"recording_frame": len(meta["recordings"]) + 1, "recording_time_s": len(meta["recordings"])}
    columns = {
        name: _map(directory / "windows" / f"{name}.npy", dtype, (lengths.get(name, counts["rows"]), *tail))
        for name, (dtype, tail) in COLUMN_TYPES.items()
    }
    splits = _read_json(directory / "splits.json")
    lanes = read_lanes(directory / "lanes.json")
    without = [name for name in meta["recordings"] if name not in lanes]
    if without:
        raise InputError(f"{directory / 'lanes.json'}: has no lane of recording '{without[0]}'; ingest again")
    for name, about in meta.get("about", {}).items():
        if "origin_m" in about:
            lanes[name] = [lane.relative_to(about["origin_m"]) for lane in lanes[name]]
    if _identity(directory) != before:
        raise InputError(f"{directory}: was replaced while it was read; start again")
    return StoredFiles(meta, splits, lanes, StoredRows(**columns))


def _identity(directory: Path) -> tuple[int, int] | None:
    """Tells one folder from another that takes its name."""
    try:
        about = directory.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino


def _recover(directory: Path) -> None:
    """Give a store its name back that lost it because its writer was killed; not while somebody writes."""
    if any(Path(directory).parent.glob(f".{directory.name}.*.old")):
        with suppress(InputError), held_for_writing(directory, "WindowStore.open"):
            recover_directory(directory)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); ingest or record again") from None


def _map(path: Path, dtype: type, shape: tuple[int, ...]) -> Tensor:
    try:
        # copy-on-write: torch needs a writable buffer, and the file is never written
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({error}); ingest or record again") from None
    if array.dtype != np.dtype(dtype) or array.shape != shape:
        raise InputError(
            f"{path}: expected {np.dtype(dtype)} of shape {shape}, got {array.dtype} of shape {array.shape}; "
            "ingest or record again"
        )
    return torch.from_numpy(array)
