"""Who follows whom in recordings: stretches of one driver behind one leader."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.recordings.window import RecordedScene
from drivecast.worldmodel.scene.lane_neighbours import longest_lane, single_lane
from drivecast.worldmodel.scene.traffic import _TensorRecord

FURTHEST_M = 60.0  # who is further behind does not follow
SHORTEST_S = 3.0  # stretches shorter than this tell nothing


@dataclass(frozen=True)
class Following(_TensorRecord):
    """Stretches of following, `(stretch, time)` or `(stretch,)`, padded with the last moment."""

    gap_m: Tensor  # (stretch, time), bumper to bumper
    speed_mps: Tensor  # (stretch, time), of the follower
    leader_mps: Tensor  # (stretch, time)
    lengths_m: Tensor  # (stretch,), half of both lengths
    steps: Tensor  # (stretch,) long: moments that are recorded
    driver: Tensor  # (stretch,) long: number of the follower among all followers, from 0

    @property
    def drivers(self) -> int:
        """Number of drivers."""
        return int(self.driver.max()) + 1 if len(self.driver) else 0

    @property
    def recorded(self) -> Tensor:
        """Bool `(stretch, time)`."""
        return torch.arange(self.gap_m.shape[1], device=self.gap_m.device) < self.steps[:, None]

    @staticmethod
    def of_store(store: WindowStore, split: str) -> tuple[Following, float]:
        """All stretches of a split, and the time step in s."""
        names = store.recordings if split == "all" else store.splits[split]
        return Following.of_scenes([store.scene_states(name) for name in names], store.dt_s), store.dt_s

    @staticmethod
    def of_scenes(scenes: Iterable[RecordedScene], dt_s: float) -> Following:
        """All stretches of some recordings, by recording, driver and time."""
        found: list[tuple[Tensor, ...]] = []
        numbers: dict[tuple[int, int], int] = {}
        for number, scene in enumerate(scenes):
            for who, gap_m, speed, leader, lengths_m in _stretches(scene, round(SHORTEST_S / dt_s)):
                driver = numbers.setdefault((number, who), len(numbers))
                found.append((gap_m, speed, leader, lengths_m, torch.tensor(len(gap_m)), torch.tensor(driver)))
        longest = max((len(row[0]) for row in found), default=1)

        def padded(values: Tensor) -> Tensor:
            return torch.cat([values, values[-1:].expand(longest - len(values))])

        columns = list(zip(*found, strict=True))
        if not columns:
            nothing, none = torch.zeros(0, 1), torch.zeros(0)
            return Following(nothing, nothing, nothing, none, none.long(), none.long())
        return Following(*(torch.stack([padded(v) for v in c]) for c in columns[:3]), *map(torch.stack, columns[3:]))


def _stretches(scene: RecordedScene, shortest: int) -> Iterable[tuple]:
    """Follower, gap, speed, leader's speed `(time,)` and half lengths of each stretch of one recording."""
    states = scene.states
    frames, agents = states.valid.shape
    flat = states.position_m.flatten(0, 1)[None]
    along = single_lane(scene.road, longest_lane(scene.road)).project(flat).along_m.view(frames, agents)
    lane = scene.road.project(flat).lane.view(frames, agents)
    ahead_m = along[:, None] - along[:, :, None]  # (frame, follower, other)
    follows = (ahead_m > 0) & (lane[:, None] == lane[:, :, None]) & states.valid[:, None] & states.valid[:, :, None]
    distance, leader = ahead_m.masked_fill(~follows, torch.inf).min(-1)
    lengths = (states.length_m + states.length_m.gather(1, leader)) / 2
    gap = distance - lengths
    leader = torch.where((gap > 0) & (gap < FURTHEST_M), leader, -1)
    leader_mps = states.speed_mps.gather(1, leader.clamp_min(0))
    for who in range(agents):
        mine = leader[:, who]
        begins = torch.cat([torch.zeros(1, dtype=torch.long), 1 + (mine[1:] != mine[:-1]).nonzero()[:, 0]])
        ends = torch.cat([begins[1:], torch.tensor([frames])])
        for start, end in zip(begins.tolist(), ends.tolist(), strict=True):
            if end - start >= shortest and mine[start] >= 0:
                part = slice(start, end)
                yield (
                    who,
                    gap[part, who],
                    states.speed_mps[part, who],
                    leader_mps[part, who],
                    lengths[start, who],
                )
