"""What the ego's instruments would show: leader, gap, headway, time to collision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from envs.episode import Episode

SIGHT_M = 150.0  # a car farther ahead is not called a leader


@dataclass(frozen=True)
class Readings:
    """One value per state, `(time,)`; NaN where there is nothing to read.

    Attributes:
        leader: Agent ahead of the ego in its lane, -1 where there is none.
        gap_m: From the ego's front to the leader's rear along the lane, m.
        headway_s: Gap over the ego's speed, s.
        time_to_collision_s: Gap over closing speed, s, while closing.
    """

    leader: np.ndarray
    gap_m: np.ndarray
    headway_s: np.ndarray
    time_to_collision_s: np.ndarray

    @staticmethod
    def of(episode: Episode) -> Readings:
        """Readings of the nearest car ahead whose body overlaps the ego's across the ego's lane."""
        states = episode.states.map(lambda tensor: tensor.detach().cpu())
        times, agents = states.speed_mps.shape
        position = states.position_m.reshape(1, times * agents, 2)
        road = episode.road.map(lambda tensor: tensor.detach().cpu())
        lane = road.project(states.position_m[None, :, 0]).lane[0]  # (time,)
        there = road.project(position, lane.repeat_interleave(agents)[None])
        along, across = there.along_m.reshape(times, agents), there.across_m.reshape(times, agents)
        apart = (states.position_m - states.position_m[:, :1]).norm(dim=-1)
        overlap = (across - across[:, :1]).abs() < (states.width_m + states.width_m[:, :1]) / 2
        ahead = overlap & states.valid & (along > along[:, :1]) & (apart < SIGHT_M)
        ahead[:, 0] = False
        distance = (along - along[:, :1]).masked_fill(~ahead, torch.inf)
        centre_m, leader = distance.min(-1)
        bodies_m = (states.length_m[:, 0] + states.length_m.gather(1, leader[:, None])[:, 0]) / 2
        gap = (centre_m - bodies_m).clamp_min(0.0)
        found = centre_m.isfinite()
        speed = states.speed_mps[:, 0]
        closing = speed - states.speed_mps.gather(1, leader[:, None])[:, 0]

        def where(condition: torch.Tensor, values: torch.Tensor) -> np.ndarray:
            return torch.where(condition, values, torch.nan).numpy()

        return Readings(
            leader=torch.where(found, leader, -1).numpy(),
            gap_m=where(found, gap),
            headway_s=where(found & (speed > 0.5), gap / speed.clamp_min(0.5)),
            time_to_collision_s=where(found & (closing > 0.1), gap / closing.clamp_min(0.1)),
        )
