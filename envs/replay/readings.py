"""The ego's instruments over an episode."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from drivecast.envs.replay.episode import Episode
from drivecast.worldmodel.scene.instruments import read_instruments


@dataclass(frozen=True)
class Readings:
    """One value per state, `(time,)`, as `instruments` defines them; NaN where there is nothing to read.

    Attributes:
        leader: Agent ahead of the ego in its lane, -1 where there is none.
        gap_m: From the ego's front bumper to the leader's rear bumper, m.
        headway_s: Time headway, front bumper to front bumper, s.
        time_to_collision_s: s, while on course for somebody.
    """

    leader: np.ndarray
    gap_m: np.ndarray
    headway_s: np.ndarray
    time_to_collision_s: np.ndarray

    @staticmethod
    def of(episode: Episode) -> Readings:
        """Readings at each state of `episode`."""
        states = episode.states.map(lambda tensor: tensor.detach().cpu())
        times = states.speed_mps.shape[0]
        road = episode.road.map(lambda tensor: tensor.detach().cpu().expand(times, *tensor.shape[1:]))
        read = read_instruments(states, road)
        ttc = read.time_to_collision_s
        return Readings(
            leader=read.leader.numpy(),
            gap_m=read.gap_m.numpy(),
            headway_s=read.time_headway_s.numpy(),
            time_to_collision_s=ttc.where(ttc.isfinite(), float("nan")).numpy(),
        )
