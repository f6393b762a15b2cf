"""What a joint embedding sees: a scene every half a second in the coordinates of the ego's lane, and its moves."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from drivecast.worldmodel.recordings.window import Window
from drivecast.worldmodel.scene.entities import Entities, entities_of
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import TrafficState, _TensorRecord

EGO_FEATURES, MOVE_FEATURES = 8, 4
END_SEEN_M = 60.0
MOST_LANES = 8
HARDEST_MPS2, STRONGEST_MPS2, USUAL_MPS2 = 7.0, 2.5, 2.5  # of ways that nobody drove
CHANGE_S = 3.0
KNOTS = 4
BY_SCENE = ("lanes_left", "lanes_right", "end_m")  # fields `(batch,)`


@dataclass(frozen=True)
class SceneFrames(_TensorRecord):
    """Scenes `(batch, time)`, half a second apart.

    Attributes:
        entities: The ego, entity 0, and others, `(batch, time, entity)`.
        lanes_left: Lanes to the left of the one that the ego was on in the first frame, `(batch,)`.
        lanes_right: And to its right.
        end_m: Where that lane ends, on the coordinate `along_m`, `(batch,)`; inf: nowhere.
    """

    entities: Entities
    lanes_left: Tensor
    lanes_right: Tensor
    end_m: Tensor

    def frames(self, first: int, count: int) -> SceneFrames:
        """`count` frames from `first` on."""
        return replace(self, entities=self.entities.frames(first, count))

    def map(self, function) -> SceneFrames:
        changed = {name: function(getattr(self, name)) for name in BY_SCENE}
        return replace(self, entities=self.entities.map(function), **changed)

    @classmethod
    def cat(cls, records, dim: int = 0) -> SceneFrames:
        """Concatenate along the batch; where there are fewer entities than elsewhere, nobody fills their places."""
        most = max(each.entities.valid.shape[2] for each in records)
        records = [each._padded(most) for each in records]
        joined = {
            name: torch.cat([getattr(each, name) for each in records])
            for name in ("lanes_left", "lanes_right", "end_m")
        }
        return replace(records[0], entities=Entities.cat([each.entities for each in records]), **joined)

    def _padded(self, entities: int) -> SceneFrames:
        batch, _, here = self.entities.valid.shape
        if here == entities:
            return self
        nobody = torch.full((batch, entities - here), -1, device=self.end_m.device)
        places = torch.arange(1, here, device=self.end_m.device).expand(batch, -1)
        return replace(self, entities=self.entities.entities(torch.cat([places, nobody], 1)))

    @staticmethod
    def chosen(mask: Tensor, one: SceneFrames, two: SceneFrames) -> SceneFrames:
        """`one` where `mask (batch,)`, elsewhere `two`; of the same scenes."""
        entities = {
            f.name: torch.where(mask.view(-1, *[1] * (values.dim() - 1)), values, getattr(two.entities, f.name))
            for f in fields(one.entities)
            if (values := getattr(one.entities, f.name)) is not None
        }
        return replace(one, entities=replace(one.entities, **entities))

    def ego_features(self) -> Tensor:
        """The ego's own motion, its place in the lane, and where it could go: `(batch, time, 8)`, of order one."""
        e = self.entities
        speed, across, width = e.speed_mps[..., 0], e.across_m[..., 0], e.lane_width_m[:, None]
        moved = (across / width).detach().round()  # lanes to the left by now
        to_end = (self.end_m[:, None] - e.along_m[..., 0]).clamp_min(0.0)
        near_end = torch.exp(-to_end / END_SEEN_M) * (moved == 0)
        columns = [
            speed / 20.0,
            e.acceleration_mps2[..., 0] / 2.0,
            e.yaw_rad[..., 0] / 0.05,
            e.off_centre_m[..., 0] / 2.0,
            (self.lanes_left[:, None] - moved).clamp(0.0, 2.0),
            (self.lanes_right[:, None] + moved).clamp(0.0, 2.0),
            near_end,
            e.length_m[..., 0] / 5.0 - 1.0,
        ]
        return torch.stack(columns, -1).clamp(-5.0, 5.0)

    def moves(self, frame_s: float) -> Tensor:
        """What the ego did from each frame to the next: `(batch, time - 1, 4)`, of order one; differentiable.

        Its change of speed, its way along and across the lane, and its heading in the end.
        """
        e = self.entities
        speed, along, across, yaw = (v[..., 0] for v in (e.speed_mps, e.along_m, e.across_m, e.yaw_rad))
        changes = [
            (speed[:, 1:] - speed[:, :-1]) / frame_s / 2.0,
            (along[:, 1:] - along[:, :-1]) / frame_s / 20.0,
            (across[:, 1:] - across[:, :-1]) / frame_s,
            yaw[:, 1:] / 0.05,
        ]
        return torch.stack(changes, -1).clamp(-5.0, 5.0)


def frames_of(states: TrafficState, road: Road, dt_s: float, stride: int) -> SceneFrames:
    """Frames at every `stride`-th moment of `states (batch, time, agent)`, the last one among them.

    Differentiable in the states.
    """
    states = states[:, (states.valid.shape[1] - 1) % stride :: stride]
    there = road.project(states.position_m[:, 0, :1].detach())
    entities = entities_of(states, road, dt_s * stride)
    end = torch.where(road.is_open_end(there.lane), torch.inf, there.remaining_m)[:, 0]
    sides = [_lanes_beside(road, there.lane, side).to(end) for side in ("left", "right")]
    return SceneFrames(entities, sides[0], sides[1], end)


def window_frames(window: Window, dt_s: float, stride: int) -> tuple[SceneFrames, int]:
    """Frames of a window's history and future, and how many of them are history; the present is one of these."""
    past = window.history.valid.shape[1]
    future = window.future[:, : window.future.valid.shape[1] // stride * stride]
    states = TrafficState.cat([window.history, future], 1)
    return frames_of(states, window.road, dt_s, stride), (past - 1) // stride + 1


def _lanes_beside(road: Road, lane: Tensor, side: str) -> Tensor:
    """How many lanes there are to that side of `lane (batch, 1)`: `(batch,)`."""
    count, exists = torch.zeros_like(lane), lane != NO_LANE
    for _ in range(MOST_LANES):
        lane = road.neighbour(lane.clamp_min(0), side)
        exists = exists & (lane != NO_LANE)
        count = count + exists
    return count[:, 0]


def with_another_way(frames: SceneFrames, past: int, frame_s: float, generator: torch.Generator) -> SceneFrames:
    """The same traffic, but from frame `past - 1` on the ego goes a way that it did not go; the others do as they did.

    Its acceleration is linear between random knots; in half of the cases it moves a lane to a side within 3 s from a
    random moment on. `generator` lives on the CPU.
    """
    e = frames.entities
    batch, time = e.valid.shape[:2]
    steps = time - past
    knots = torch.randn(batch, KNOTS, generator=generator) * USUAL_MPS2 - 0.5
    place = torch.linspace(0.0, KNOTS - 1.0, steps)
    between = (1.0 - (place[:, None] - torch.arange(KNOTS)).abs()).clamp_min(0.0)
    acceleration = (knots @ between.T).clamp(-HARDEST_MPS2, STRONGEST_MPS2).to(e.speed_mps)
    start = [values[:, past - 1, 0] for values in (e.along_m, e.across_m, e.speed_mps, e.yaw_rad)]
    along0, across0, speed0, yaw0 = start
    speed = (speed0[:, None] + (acceleration * frame_s).cumsum(1)).clamp_min(0.0)
    before = torch.cat([speed0[:, None], speed[:, :-1]], 1)
    along = along0[:, None] + ((speed + before) / 2 * frame_s).cumsum(1)
    side = torch.randint(-1, 2, (batch,), generator=generator) * (torch.rand(batch, generator=generator) < 0.75)
    begins = torch.rand(batch, generator=generator) * max(steps * frame_s - CHANGE_S, 0.1)
    seconds = torch.arange(1, steps + 1) * frame_s
    share = ((seconds - begins[:, None]) / CHANGE_S).clamp(0.0, 1.0)
    sideways = (share.square() * (3.0 - 2.0 * share) * side[:, None]).to(across0)
    # whatever it drifts with at first dies away within a second
    drift = speed0 * yaw0.sin()
    dying = (1.0 - torch.exp(-seconds)).to(across0)
    across = across0[:, None] + drift[:, None] * dying + sideways * e.lane_width_m[:, None]
    lateral = torch.cat([across0[:, None], across], 1)
    yaw = torch.atan2((lateral[:, 1:] - lateral[:, :-1]) / frame_s, speed + 0.1)
    gained = (speed - before) / frame_s
    way = {"along_m": along, "across_m": across, "speed_mps": speed, "acceleration_mps2": gained, "yaw_rad": yaw}
    return replace(frames, entities=_with_ego(e, past, way))


def _with_ego(entities: Entities, past: int, way: dict[str, Tensor]) -> Entities:
    changed = {}
    for name, own in way.items():
        values = getattr(entities, name)
        later = torch.cat([own[..., None], values[:, past:, 1:]], 2)
        changed[name] = torch.cat([values[:, :past], later], 1)
    valid = entities.valid.clone()
    valid[:, past:, 0] = True
    return replace(entities, **changed, valid=valid)
