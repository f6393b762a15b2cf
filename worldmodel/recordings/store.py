"""The window store: memory-mapped recordings, cut into windows of history and future by vectorised gathers."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.recordings.lane import road_of
from drivecast.worldmodel.recordings.split import check_split
from drivecast.worldmodel.recordings.store_reader import StoredFiles, read_store
from drivecast.worldmodel.recordings.window import RecordedScene, Window
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState, along_and_left


class WindowStore:
    """A recording store opened for training. Nothing is read until it is asked for: columns are memory-mapped.

    Rows are numbered by (recording, frame, vehicle). Beside them stand the same rows by (recording, vehicle, frame),
    the slots: there a vehicle's track is one piece, so the row k steps later is `slot + k`, held at the track's ends.

    Attributes:
        recordings: names, in the order of their numbers.
        splits: names of the recordings in "train", "val" and "test".
        dt_s: seconds between frames.
        fingerprint: SHA-256 of the data, the lanes and the splits.
        meta: content of `meta.json`.
        lanes: of each recording. Positions of lanes and vehicles are relative to the recording's `origin_m`, which
            `meta["about"]` holds where it is not (0, 0).
    """

    def __init__(self, directory: Path, files: StoredFiles) -> None:
        self.directory = directory
        self.meta, self.splits, self.lanes, self._rows = files.meta, files.splits, files.lanes, files.rows
        self.recordings: list[str] = list(self.meta["recordings"])
        self.dt_s: float = float(self.meta["dt_s"])
        self.fingerprint: str = str(self.meta["fingerprint"])

    def __reduce__(self):
        return WindowStore.open, (self.directory,)

    @staticmethod
    def open(directory: Path) -> WindowStore:
        """Open the store in `directory`.

        Raises:
            InputError: when it is missing, from another version, or a file is corrupt.
        """
        return WindowStore(Path(directory), read_store(Path(directory)))

    def __repr__(self) -> str:
        counts = self.meta["counts"]
        return f"WindowStore({str(self.directory)!r}, {len(self.recordings)} recordings, {counts['rows']} rows)"

    @cached_property
    def _roads(self) -> Road:
        """Roads of all recordings, padded once: `(recording, lane, point)`."""
        known: dict[str, Road] = {}
        roads = []
        for name in self.recordings:
            # simulated recordings share a few roads: build each of them once
            key = json.dumps([lane.as_json("") for lane in self.lanes[name]])
            if key not in known:
                known[key] = road_of(self.lanes[name])
            roads.append(known[key])
        return Road.batch(roads)

    def road(self, recording: Tensor) -> Road:
        """Roads of recordings by their numbers `(B,)`: leading dimension B."""
        return self._roads[recording]

    def _recordings_of(self, split: str) -> list[int]:
        if split == "all":
            return list(range(len(self.recordings)))
        check_split(split)
        names = set(self.splits.get(split, []))
        return [number for number, name in enumerate(self.recordings) if name in names]

    def _in_split(self, split: str) -> Tensor:
        mask = torch.zeros(len(self.recordings), dtype=torch.bool)
        mask[self._recordings_of(split)] = True
        return mask

    def frames(self, split: str, history_steps: int, future_steps: int) -> Tensor:
        """Global numbers of the frames of `split` ("train", "val", "test" or "all") that can be the present.

        Their recording has `history_steps - 1` frames before and `future_steps` after; a vehicle is in sight.
        """
        rows = self._rows
        number = torch.arange(len(rows.frame_recording))
        since = number - rows.recording_frame[rows.frame_recording]
        until = rows.recording_frame[rows.frame_recording + 1] - 1 - number
        seen = rows.frame_row[1:] > rows.frame_row[:-1]
        wanted = self._in_split(split)[rows.frame_recording]
        return torch.nonzero(wanted & seen & (since >= history_steps - 1) & (until >= future_steps)).squeeze(1)

    def rows(self, split: str, history_steps: int, future_steps: int) -> Tensor:
        """Row numbers of vehicles of `split` whose own track has `history_steps` up to now and `future_steps` after."""
        rows = self._rows
        wanted = self._in_split(split)[rows.frame_recording[rows.frame]]
        enough = (rows.steps_before >= history_steps - 1) & (rows.steps_after >= future_steps)
        return torch.nonzero(wanted & enough).squeeze(1)

    def frame_of(self, row: Tensor) -> Tensor:
        """Global frame number of each row."""
        return self._rows.frame[row]

    def recording_of(self, row: Tensor) -> Tensor:
        """Number of the recording of each row."""
        return self._rows.frame_recording[self._rows.frame[row]]

    @cached_property
    def top_speed_mps(self) -> Tensor:
        """By row number: the highest speed anywhere in the row's continuous track, m/s."""
        rows = self._rows
        track = (rows.steps_before[rows.row_of_slot] == 0).cumsum(0) - 1  # of each slot; a track is one piece there
        speed = rows.state[:, 3]
        top = speed.new_zeros(int(track[-1]) + 1).scatter_reduce(0, track, speed, "amax")
        return top[track][rows.slot]

    def off_constant_velocity_m(self, row: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """How far each row's vehicle is, `steps` later, from straight on at its present speed: along, to the left.

        `(row,)` each, in m; only of rows whose track lasts so long.
        """
        rows = self._rows
        now, then = rows.state[rows.slot[row]], rows.state[rows.slot[row] + steps]
        direction = torch.stack([now[:, 2].cos(), now[:, 2].sin()], -1)
        along, left = along_and_left(then[:, :2] - now[:, :2], direction)
        return along - now[:, 3] * steps * self.dt_s, left

    def faster_than_others_mps(self, row: Tensor) -> Tensor:
        """By how much each row's vehicle is faster than the mean of its frame, `(row,)`, m/s."""
        rows = self._rows
        speed = rows.state[rows.slot, 3]
        count = rows.frame_row.diff()
        total = speed.new_zeros(len(count)).index_add(0, rows.frame.long(), speed)
        return speed[row] - (total / count.clamp_min(1))[rows.frame[row]]

    def time_s(self, frame: Tensor) -> Tensor:
        """Time of global frames in their recording's own clock, s (float64)."""
        recording = self._rows.frame_recording[frame]
        return self._rows.recording_time_s[recording] + (frame - self._rows.recording_frame[recording]) * self.dt_s

    def vehicle_id(self, row: Tensor) -> Tensor:
        return self._rows.vehicle_id[row]

    def window(
        self, frames: Tensor, history_steps: int, future_steps: int, max_agents: int, ego_rows: Tensor | None = None
    ) -> Window:
        """Windows around `frames (B,)`.

        The agents are the vehicles in sight at the present, the nearest first: to the ego, who is agent 0, or without
        `ego_rows (B,)` to the middle of the scene. At most `max_agents` of them; N is what the fullest scene needs.

        Raises:
            ValueError: when an ego's row is not in its frame.
        """
        rows = self._rows
        frames = frames.long()
        first, count = rows.frame_row[frames], rows.frame_row[frames + 1] - rows.frame_row[frames]
        index = torch.arange(max(int(count.max()), 1))
        there = index < count[:, None]  # (B, M)
        candidate = torch.where(there, first[:, None] + index, first[:, None].clamp_max(len(rows.slot) - 1))
        position = rows.state[rows.slot[candidate]][..., :2]  # (B, M, 2)
        if ego_rows is None:
            weight = there[..., None].to(position)
            centre = (position * weight).sum(1) / weight.sum(1).clamp_min(1.0)
        else:
            outside = (ego_rows < first) | (ego_rows >= first + count)
            if outside.any():
                at = int(outside.nonzero()[0])
                raise ValueError(f"ego_rows[{at}]: row {int(ego_rows[at])} is not in frame {int(frames[at])}")
            centre = rows.state[rows.slot[ego_rows]][..., :2]
        distance = (position - centre[:, None]).square().sum(-1).masked_fill(~there, torch.inf)
        if ego_rows is not None:
            distance = distance.masked_fill(candidate.eq(ego_rows[:, None]) & there, -1.0)
        agents = min(len(index), max_agents)
        order = distance.argsort(dim=1, stable=True)[:, :agents]
        row, there = candidate.gather(1, order), there.gather(1, order)  # (B, N)
        # padding repeats agent 0: finite, and of a possible size
        row_of_state = torch.where(there, row, row[:, :1])

        step = torch.arange(-history_steps + 1, future_steps + 1)[None, :, None]  # (1, H + F, 1)
        before, after = rows.steps_before[row_of_state][:, None], rows.steps_after[row_of_state][:, None]
        slot = rows.slot[row_of_state][:, None] + torch.minimum(torch.maximum(step, -before), after)
        state = rows.state[slot]  # (B, H + F, N, 7)
        traffic = _traffic(state, there[:, None] & (step >= -before) & (step <= after))
        recording = rows.frame_recording[frames]
        return Window(
            history=traffic[:, :history_steps],
            future=traffic[:, history_steps:],
            road=self.road(recording),
            row=torch.where(there, row, -1),
            frame=frames,
            recording=recording,
        )

    def tracks(self, split: str = "all") -> pd.DataFrame:
        """Every continuous vehicle track of `split`: recording, vehicle_id, first and last row and global frame."""
        rows = self._rows
        begin = torch.nonzero(
            (rows.steps_before == 0) & self._in_split(split)[rows.frame_recording[rows.frame]]
        ).squeeze(1)
        last = rows.row_of_slot[rows.slot[begin] + rows.steps_after[begin]]
        recording = rows.frame_recording[rows.frame[begin]].numpy()
        return pd.DataFrame(
            {
                "recording": np.array(self.recordings, dtype=object)[recording],
                "vehicle_id": rows.vehicle_id[begin].numpy(),
                "first_row": begin.numpy(),
                "last_row": last.numpy(),
                "first_frame": rows.frame[begin].numpy(),
                "last_frame": rows.frame[last].numpy(),
            }
        )

    def scene_states(self, recording: str) -> RecordedScene:
        """One recording as dense arrays `(time, agent)`, one agent per continuous track, by first appearance."""
        if recording not in self.recordings:
            raise InputError(f"{self.directory}: no recording '{recording}'; it holds {self.recordings[:5]}")
        rows, number = self._rows, self.recordings.index(recording)
        start, end = int(rows.recording_frame[number]), int(rows.recording_frame[number + 1])
        first, last = int(rows.frame_row[start]), int(rows.frame_row[end])
        begin = first + torch.nonzero(rows.steps_before[first:last] == 0).squeeze(1)  # (A,)
        after = rows.steps_after[begin]
        step = torch.arange(end - start)[:, None] - (rows.frame[begin] - start)  # (T, A)
        state = rows.state[rows.slot[begin] + torch.minimum(step.clamp_min(0), after)]
        return RecordedScene(
            states=_traffic(state, (step >= 0) & (step <= after)),
            acceleration_mps2=state[..., 4],
            vehicle_id=rows.vehicle_id[begin],
            first_step=rows.frame[begin] - start,
            last_step=rows.frame[begin] - start + after,
            road=self.road(torch.tensor([number])),
            dt_s=self.dt_s,
        )

    def scene_samples(self, recording: str, most: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions `(n, 2)` and speeds `(n,)` of one recording, thinned evenly to about `most` rows: for pictures."""
        rows, number = self._rows, self.recordings.index(recording)
        first = int(rows.frame_row[rows.recording_frame[number]])
        last = int(rows.frame_row[rows.recording_frame[number + 1]])
        state = rows.state[first : last : max(1, (last - first) // most)]
        return state[:, :2].numpy(), state[:, 3].numpy()

    def drives(self) -> pd.DataFrame | None:
        """The egos of simulated recordings and their controls, or None for recordings of real traffic."""
        path = self.directory / "drives.parquet"
        return pd.read_parquet(path) if path.is_file() else None


def _traffic(state: Tensor, valid: Tensor) -> TrafficState:
    """Stored `state (..., 7)` as traffic."""
    return TrafficState(
        position_m=state[..., :2],
        heading_rad=state[..., 2],
        speed_mps=state[..., 3],
        length_m=state[..., 5],
        width_m=state[..., 6],
        valid=valid,
    )
