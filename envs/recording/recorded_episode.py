"""One recorded episode: the tracks it leaves, and the ego's controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from drivecast.envs.highway.road import ThroughLane
from drivecast.worldmodel.recordings.lane import Lane
from drivecast.worldmodel.recordings.recording import Recording

EGO_ID = 0


@dataclass(frozen=True)
class RecordedEpisode:
    """One episode in our frame: what becomes a `Recording`, and who drove how.

    Attributes:
        index: Of the episode in its plan.
        name: Of the recording.
        tracks: Columns of equal length, ordered by (vehicle, time); the ego is vehicle 0.
        controls: `(step, 2)`, the ego's acceleration in m/s² and steering in rad; step i leads from frame i to i + 1.
        lanes: Of the road.
        ended: "time", "collision", "off_road" or "completed".
        behaviour: Of the ego, one of `BEHAVIOURS`.
        dt_s: Time step, s.
    """

    index: int
    name: str
    tracks: dict[str, np.ndarray]
    controls: np.ndarray
    lanes: list[ThroughLane]
    ended: str
    behaviour: str
    dt_s: float

    def recording(self) -> Recording:
        """Tracks and lanes; lane 1 is the leftmost."""
        lanes = tuple(
            Lane(
                lane_id=number,
                centre_m=lane.centre_m,
                width_m=lane.width_m,
                speed_limit_mps=lane.speed_limit_mps,
                left=lane.left + 1,
                right=lane.right + 1,
                open_start=lane.open_start,
                open_end=lane.open_end,
            )
            for number, lane in enumerate(self.lanes, 1)
        )
        about = {"ended": self.ended, "behaviour": self.behaviour}
        return Recording(self.name, pd.DataFrame(self.tracks), lanes, about)

    def drive(self) -> pd.DataFrame:
        """The ego's controls at the times at which they were given."""
        count = len(self.controls)
        return pd.DataFrame(
            {
                "recording": np.full(count, self.name),
                "vehicle_id": np.full(count, EGO_ID),
                "time_s": (np.arange(count) * self.dt_s).round(6),
                "acceleration_mps2": self.controls[:, 0],
                "steering_rad": self.controls[:, 1],
            }
        )


def tracks_of(states: np.ndarray, lane_ids: np.ndarray, kinds: Sequence[str], dt_s: float) -> dict[str, np.ndarray]:
    """Tidy columns. Acceleration looks back, so that no frame tells of the next.

    Args:
        states: `(time, agent, 6)`: x, y, heading, speed, length, width.
        lane_ids: `(time, agent)`.
        kinds: "car" or "obstacle", of each agent.
        dt_s: Time step, s.
    """
    time, agents, _ = states.shape
    by_agent = states.transpose(1, 0, 2).reshape(agents * time, 6)
    speed = states[..., 3].T
    acceleration = np.diff(speed, axis=1, prepend=speed[:, :1]) / dt_s
    return {
        "vehicle_id": np.repeat(np.arange(agents), time),
        "time_s": np.tile(np.arange(time) * dt_s, agents).round(6),
        "x_m": by_agent[:, 0],
        "y_m": by_agent[:, 1],
        "heading_rad": by_agent[:, 2],
        "length_m": by_agent[:, 4],
        "width_m": by_agent[:, 5],
        "class": np.repeat(np.array(kinds), time),
        "speed_mps": by_agent[:, 3],
        "accel_mps2": acceleration.reshape(-1),
        "lane_id": lane_ids.T.reshape(-1),
    }
