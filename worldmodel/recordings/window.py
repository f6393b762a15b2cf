"""What a recording store gives: windows of history and future, and whole recordings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState


@dataclass(frozen=True)
class Window:
    """Scenes with what came before and after. B windows of N agents, H steps of history and F of future.

    Where a vehicle's track has not begun yet or has ended, `valid` is False and its values are held at the nearest
    recorded moment.
    """

    history: TrafficState  # (B, H, N), the present last
    future: TrafficState  # (B, F, N)
    road: Road  # (B, lane, point)
    row: Tensor  # (B, N) long: row number of each agent at the present; -1: padding
    frame: Tensor  # (B,) long: global frame number of the present
    recording: Tensor  # (B,) long: index into `WindowStore.recordings`

    @property
    def present(self) -> TrafficState:
        """The scene now, `(B, N)`."""
        return self.history[:, -1]

    def to(self, device: torch.device | str) -> Window:
        return Window(
            self.history.to(device),
            self.future.to(device),
            self.road.to(device),
            self.row.to(device),
            self.frame.to(device),
            self.recording.to(device),
        )


@dataclass(frozen=True)
class RecordedScene:
    """All of one recording as dense arrays of T frames and A agents; an agent is one continuous vehicle track."""

    states: TrafficState  # (T, A); outside its track a vehicle is invalid and held
    acceleration_mps2: Tensor  # (T, A) as recorded
    vehicle_id: Tensor  # (A,) long
    first_step: Tensor  # (A,) long: frame of the recording in which the track begins
    last_step: Tensor  # (A,) long: and in which it ends
    road: Road  # (1, lane, point)
    dt_s: float
