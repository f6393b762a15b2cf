"""Vehicles that come in at the start of the section."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from drivecast.envs.imagined.section import SAMPLES, Sections
from drivecast.worldmodel.scene.contact import separation_m
from drivecast.worldmodel.scene.road import RoadPosition
from drivecast.worldmodel.scene.traffic import TrafficState

LEAST_GAP_M, LEAST_GAP_S = 2.0, 0.5  # to the one ahead, bumper to bumper
BRAKING_MPS2 = 1.0  # at most this much is needed to stay behind it
BEHIND_M = 20.0  # nobody comes in this near ahead of another
MARGIN_M = 1.0  # to any box


@dataclass(frozen=True)
class Entry:
    """Who enters in a step, `(batch,)` each: one vehicle at most."""

    enters: Tensor  # bool
    slot: Tensor
    vehicle: TrafficState


class Arrivals:
    """The queues before the open lanes of some episodes.

    All that is random is drawn at once, by each episode's own generator: each lane's headways in time, with the
    recorded lane's flow and the recorded headways' distribution, and each vehicle's speed and size, which some vehicle
    of that lane had. A vehicle whose time has come enters when there is room: 2 m and 0.5 s behind the one ahead, slow
    enough to stay behind it with 1 m/s² of braking, and nobody within 1 m or close behind. Until then its lane waits.
    """

    def __init__(
        self,
        sections: Sections,
        headways: Tensor,
        generators: Sequence[torch.Generator],
        duration_s: float,
        most_per_s: float,
    ) -> None:
        """`sections (batch, lane)`, `headways (SAMPLES,)` over their mean; at most `most_per_s` come on a lane."""
        self.sections = sections
        batch, lanes = sections.flow_per_s.shape
        count = math.ceil(1.5 * duration_s * most_per_s) + 10
        device = headways.device

        def drawn(*shape: int) -> Tensor:
            return torch.stack([torch.randint(SAMPLES, shape, generator=own, device=device) for own in generators])

        headway_s = headways[drawn(lanes, count)] / sections.flow_per_s[..., None]  # inf where nobody comes
        early = torch.stack([torch.rand(lanes, generator=own, device=device) for own in generators])
        self._due_s = headway_s.cumsum(-1) - (early * headway_s[..., 0]).nan_to_num(posinf=0.0)[..., None]
        self._vehicle = drawn(lanes, count)
        self._next = torch.zeros(batch, lanes, dtype=torch.long, device=device)

    def enter(self, time_s: float, scene: TrafficState, on_lane: RoadPosition, free: Tensor) -> Entry:
        """Who enters the `scene (batch, agent)`, which lies `on_lane`; into one of the slots that are `free`."""
        sections, last = self.sections, self._due_s.shape[-1] - 1
        due_s = self._due_s.gather(-1, self._next.clamp_max(last)[..., None])[..., 0]
        due_s = due_s.masked_fill(self._next > last, torch.inf)
        which = self._vehicle.gather(-1, self._next.clamp_max(last)[..., None])
        speed, length, width = (
            values.gather(-1, which)[..., 0] for values in (sections.speed_mps, sections.length_m, sections.width_m)
        )
        gap_m, leader_mps, crowded = self._ahead(scene, on_lane, length)
        braking_m = (gap_m - LEAST_GAP_M).clamp_min(0.0)
        speed = speed.minimum((leader_mps.square() + 2 * BRAKING_MPS2 * braking_m).sqrt())  # (batch, lane)
        room = (gap_m >= LEAST_GAP_M + LEAST_GAP_S * speed) & ~crowded
        waited_s = (time_s - due_s).masked_fill(~room, -torch.inf)
        longest_s, lane = waited_s.max(-1)

        def of_lane(values: Tensor) -> Tensor:
            index = lane.view(-1, 1, *[1] * (values.dim() - 2))
            return values.gather(1, index.expand(-1, 1, *values.shape[2:]))[:, 0]

        nothing = torch.zeros_like(lane)
        vehicle = TrafficState(
            of_lane(sections.enter_m),
            of_lane(sections.enter_rad),
            of_lane(speed),
            of_lane(length),
            of_lane(width),
            torch.ones_like(nothing, dtype=torch.bool),
        )
        larger = replace(vehicle, length_m=vehicle.length_m + 2 * MARGIN_M, width_m=vehicle.width_m + 2 * MARGIN_M)
        near = separation_m(larger.map(lambda tensor: tensor[:, None]), scene) < 0
        enters = (longest_s >= 0) & free.any(1) & ~(near & scene.valid).any(1)
        self._next = (
            self._next + (torch.arange(self._next.shape[1], device=lane.device) == lane[:, None]) * enters[:, None]
        )
        return Entry(enters, free.to(torch.uint8).argmax(1), vehicle)

    def _ahead(self, scene: TrafficState, on_lane: RoadPosition, length_m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of each lane `(batch, lane)`: gap to the first vehicle (inf: none), its speed, and whether one is behind."""
        lanes = torch.arange(length_m.shape[1], device=length_m.device)
        there = (on_lane.lane[:, None] == lanes[:, None]) & scene.valid[:, None]  # (batch, lane, agent)
        ahead_m = on_lane.along_m[:, None] - self.sections.enter_along_m[..., None]
        nearest_m, leader = ahead_m.masked_fill(~there | (ahead_m < 0), torch.inf).min(-1)
        gap_m = nearest_m - (scene.length_m.gather(1, leader) + length_m) / 2
        behind = (there & (ahead_m < 0) & (ahead_m > -BEHIND_M)).any(-1)
        return gap_m, scene.speed_mps.gather(1, leader), behind
