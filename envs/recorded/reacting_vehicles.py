"""The vehicles of recorded traffic that no longer replay: who they are, and where they have come to."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from drivecast.envs.behaviour.fitted_drivers import TRAITS, DriverTraits, FittedDrivers
from drivecast.envs.recorded.config import RecordedTrafficConfig
from drivecast.envs.recorded.paths import RecordedPaths
from drivecast.envs.recorded.reaction import Reaction, Situation, advance, placed
from drivecast.worldmodel.recordings.window import RecordedScene
from drivecast.worldmodel.scene.contact import separation_m
from drivecast.worldmodel.scene.road import RoadPosition
from drivecast.worldmodel.scene.traffic import TrafficState, with_ego

DESIRED_QUANTILE = 0.95  # of its own recorded speeds: nobody wants less
MOVED_M, MOVED_MPS = 0.05, 0.3  # beyond this the ego does not do what the human did


class ReactingVehicles:
    """Others that yield or react, for all episodes of a batch at once (see `Reaction`).

    Each recorded vehicle has parameters of its own, drawn by its recording's name and number, and wants at least the
    95th percentile of its recorded speeds. It keeps to its recorded path, lane changes included, and leaves at its end.
    Who stands for as long as it is recorded goes on standing. A reactive vehicle enters at its recorded time or, for as
    long as the recording shows it, when there is room.
    """

    def __init__(
        self, scenes: Mapping[str, RecordedScene], config: RecordedTrafficConfig, device: torch.device
    ) -> None:
        dense = list(scenes.values())
        self.config = config
        self.paths = RecordedPaths.of_scenes(dense).to(device)
        traits = drivers_of(scenes, FittedDrivers.named(config.idm), config.idm_seed)
        traits = DriverTraits(*(values.to(device) for values in traits.values()))
        self.reaction = Reaction(self.paths, traits, hands_over=config.others == "yielding")
        counts = torch.tensor([0] + [len(scene.vehicle_id) for scene in dense[:-1]], device=device)
        self._first_vehicle = counts.cumsum(0)

    def reset(self, scene: Tensor, slots: Tensor, start: TrafficState) -> None:
        """`scene (batch,)`, the vehicles in `slots (batch, slot)` (-1: none), and where they are at the start."""
        self._vehicle = self._first_vehicle[scene][:, None] + slots.clamp_min(0)
        self._driven_m = torch.zeros_like(start.speed_mps)
        self.reacts = torch.zeros_like(start.valid)
        self._starts = self.config.others == "reactive"

    def step(
        self,
        before: TrafficState,
        replayed: TrafficState,
        ego: TrafficState,
        row: Tensor,
        ego_on_axis: RoadPosition,
        running: Tensor,
        dt_s: float,
    ) -> TrafficState:
        """The next scene.

        Args:
            before: The present one, `(batch, slot)`.
            replayed: The next one as recorded.
            ego: The next state of the ego, `(batch,)`.
            row: Recorded row of each slot at present, 0 for none.
            ego_on_axis: The ego on the recording's longest lane at present, `(batch, 1)`.
            running: Episodes that are not over.
            dt_s: Time step, s.
        """
        reactive = self.config.others == "reactive"
        others = torch.ones_like(before.valid)
        others[:, 0] = False
        stands = others & ~self.paths.moves[self._vehicle]
        if self._starts:
            self._driven_m, self.reacts, self._starts = self.paths.driven_m[row], before.valid & others, False
        driven_m = torch.where(self.reacts, self._driven_m, self.paths.driven_m[row])
        waiting = replayed.valid & ~before.valid & ~self.reacts & others
        waiting = waiting & running[:, None] if reactive else torch.zeros_like(others)
        driven_m = torch.where(waiting, 0.0, driven_m)
        situation = self._situation(before, replayed, ego, driven_m, waiting, ego_on_axis, running, dt_s)
        decision = self.reaction.decide(situation)
        driven_m, speed = advance(before, driven_m, decision.acceleration_mps2, dt_s)
        driven_m = torch.where(decision.enters, 0.0, driven_m)
        speed = torch.where(decision.enters, replayed.speed_mps, speed)
        driven_m, speed = driven_m.masked_fill(stands, 0.0), speed.masked_fill(stands, 0.0)
        ends_m = self.paths.length_m[self._vehicle]
        stays = decision.reacts & before.valid & torch.where(stands, replayed.valid, driven_m < ends_m)
        self._driven_m, self.reacts = driven_m, decision.reacts | decision.enters
        reacted = placed(before, self.paths, self._vehicle, driven_m, speed)
        reacted = replace(
            reacted,
            length_m=torch.where(decision.enters, replayed.length_m, before.length_m),
            width_m=torch.where(decision.enters, replayed.width_m, before.width_m),
            valid=stays | decision.enters,
        )
        scene = reacted.where(self.reacts, replayed)
        valid = scene.valid & (self.reacts | ~others) if reactive else scene.valid & ~self._appeared(before, scene)
        return replace(scene, valid=valid)

    def _situation(
        self,
        before: TrafficState,
        replayed: TrafficState,
        ego: TrafficState,
        driven_m: Tensor,
        waiting: Tensor,
        ego_on_axis: RoadPosition,
        running: Tensor,
        dt_s: float,
    ) -> Situation:
        point = self.paths.at(self._vehicle, driven_m)
        turn = before.heading_rad[:, 0] - ego_on_axis.heading_rad[:, 0]
        sideways = torch.zeros_like(driven_m)
        sideways[:, 0] = before.speed_mps[:, 0] * turn.sin()
        after = with_ego(replayed.speed_mps, ego.speed_mps)
        known = with_ego(replayed.valid, ego.valid) & before.valid
        recorded = replayed[:, 0]
        apart = (ego.position_m - recorded.position_m).norm(dim=-1) > MOVED_M
        moved = apart | ((ego.speed_mps - recorded.speed_mps).abs() > MOVED_MPS) | ~recorded.valid
        speed = torch.where(waiting, replayed.speed_mps, before.speed_mps)
        size = {name: torch.where(waiting, getattr(replayed, name), getattr(before, name)) for name in _SIZE}
        return Situation(
            state=replace(before, speed_mps=speed, **size),
            vehicle=self._vehicle,
            driven_m=driven_m,
            along_m=torch.cat([ego_on_axis.along_m, point.along_m[:, 1:]], 1),
            across_m=torch.cat([ego_on_axis.across_m, point.across_m[:, 1:]], 1),
            sideways_mps=sideways,
            braking_mps2=((before.speed_mps - after) / dt_s).clamp_min(0.0) * known,
            present=before.valid & running[:, None],
            waiting=waiting,
            reacts=self.reacts,
            ego_moved=moved,
        )

    def _appeared(self, before: TrafficState, scene: TrafficState) -> Tensor:
        """Recorded vehicles that come into sight on top of one that was handed over: they are left out."""
        appeared = scene.valid & ~before.valid & ~self.reacts
        appeared[:, 0] = False
        found = torch.zeros_like(appeared)
        episode, slot = (appeared & self.reacts.any(1, keepdim=True)).nonzero(as_tuple=True)
        if len(episode):
            gap = separation_m(scene.map(lambda tensor: tensor[episode, slot][:, None]), scene[episode])
            there = (self.reacts & scene.valid)[episode]
            found[episode, slot] = (there & (gap < self.config.appearing_m)).any(1)
        return found


_SIZE = ("length_m", "width_m")


def drivers_of(scenes: Mapping[str, RecordedScene], fitted: FittedDrivers, seed: int) -> DriverTraits:
    """Parameters of every vehicle of some recordings, numbered through; whatever other recordings there are."""
    parts = []
    for name, scene in scenes.items():
        drawn = fitted.draw(len(scene.vehicle_id), zlib.crc32(f"{seed} {name.rpartition('/')[2]}".encode()))
        speeds = scene.states.speed_mps.masked_fill(~scene.states.valid, torch.nan)
        own = torch.nanquantile(speeds.cpu(), DESIRED_QUANTILE, dim=0)
        parts.append(replace(drawn, desired_speed_mps=torch.maximum(drawn.desired_speed_mps, own)))
    return DriverTraits(*(torch.cat([getattr(part, trait) for part in parts]) for trait in TRAITS))
