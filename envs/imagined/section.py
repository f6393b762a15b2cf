"""The recorded section of a road: where vehicles enter it and leave it, and how many come in on each lane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from drivecast.worldmodel.evaluation.traffic_statistics import followers
from drivecast.worldmodel.recordings.window import RecordedScene
from drivecast.worldmodel.scene.lane_neighbours import longest_lane, single_lane
from drivecast.worldmodel.scene.traffic import _TensorRecord

SAMPLES = 256  # vehicles that stand for those of a lane, and quantiles that stand for the headways
MOST_MOMENTS = 300  # of a recording that are looked at
LEAST_M = 50.0  # a moment is taken to show at least so much of a lane
LEAST_MPS = 1.0  # a vehicle below it has no headway in time
SEED = 2005


@dataclass(frozen=True)
class Sections(_TensorRecord):
    """The lanes of each recording, `(recording, lane)` leading.

    Attributes:
        enter_m, enter_rad: Where vehicles enter, `(..., 2)`, and their heading there.
        enter_along_m, exit_along_m: The section, from the lane's first point.
        flow_per_s: Vehicles that enter in a second; 0: nobody does.
        exits: Whether traffic goes on beyond the exit.
        speed_mps, length_m, width_m: Vehicles of the lane, `(..., SAMPLES)`, each as often as it passes a point.
    """

    enter_m: Tensor
    enter_rad: Tensor
    enter_along_m: Tensor
    exit_along_m: Tensor
    flow_per_s: Tensor
    exits: Tensor
    speed_mps: Tensor
    length_m: Tensor
    width_m: Tensor


@dataclass(frozen=True)
class _Rows:
    """Recorded vehicles at the moments that are looked at, `(row,)` each."""

    moment: np.ndarray
    lane: np.ndarray
    along_m: np.ndarray  # of their lane
    on_axis_m: np.ndarray  # along the longest lane
    speed_mps: np.ndarray
    length_m: np.ndarray
    width_m: np.ndarray


def find_sections(scenes: Sequence[RecordedScene], lanes: int) -> tuple[Sections, Tensor]:
    """The sections, padded to `lanes`; and `SAMPLES` quantiles of the headway in time over its mean.

    The section lies between the rearmost and the foremost place of any vehicle along the longest lane. Traffic enters
    a lane that is open at its start as it flows on it: flow = distance driven on the lane / area of the stretch that is
    seen, in metre seconds; Edie's definition (1963), which does not depend on where a track was cut. At each moment the
    stretch reaches from the rearmost to the foremost vehicle. Headways are those of followers and leaders of the same
    lane, weighted by speed, as often as they would pass a point.
    """
    generator = np.random.default_rng(SEED)
    found, headways, weights = [], [], []
    for scene in scenes:
        rows = _rows(scene)
        found.append(_section(scene, rows, lanes, generator))
        headway_s, weight = _headways(rows)
        headways.append(headway_s)
        weights.append(weight)
    return Sections.cat(found), _shape(np.concatenate(headways), np.concatenate(weights))


def _rows(scene: RecordedScene) -> _Rows:
    every = max(1, -(-len(scene.states.valid) // MOST_MOMENTS))
    states = scene.states[::every]
    moment, agent = states.valid.nonzero(as_tuple=True)
    seen = states[moment, agent]
    at = scene.road.project(seen.position_m[None])[0]
    axis = single_lane(scene.road, longest_lane(scene.road)).project(seen.position_m[None])[0]
    return _Rows(
        moment.numpy(),
        at.lane.numpy(),
        at.along_m.numpy(),
        axis.along_m.numpy(),
        seen.speed_mps.numpy(),
        seen.length_m.numpy(),
        seen.width_m.numpy(),
    )


def _section(scene: RecordedScene, rows: _Rows, lanes: int, generator: np.random.Generator) -> Sections:
    road, axis = scene.road, single_lane(scene.road, longest_lane(scene.road))
    starts_m = axis.project(road.centre_m[:, :, 0]).along_m[0].numpy()
    since_m, until_m = _shown(rows)
    first_m, last_m = since_m.min(), until_m.max()
    floats = {name: np.zeros((lanes, *size)) for name, size in _SIZES.items()}
    floats["length_m"] += 5.0
    floats["width_m"] += 2.0
    floats["exit_along_m"] += np.inf
    exits = np.zeros(lanes, dtype=bool)
    for lane in range(road.centre_m.shape[1]):
        count = int(road.point_count[0, lane])
        if not count:
            continue
        centre = road.centre_m[0, lane, :count].numpy().astype(float)
        pieces = np.diff(centre, axis=0)
        along = np.concatenate([[0.0], np.hypot(*pieces.T).cumsum()])
        enter, leave = max(first_m - starts_m[lane], 0.0), min(last_m - starts_m[lane], along[-1])
        floats["enter_along_m"][lane], floats["exit_along_m"][lane] = enter, leave
        exits[lane] = bool(road.open_end[0, lane])
        within = (rows.along_m >= enter) & (rows.along_m <= leave)
        on_lane = np.flatnonzero((rows.lane == lane) & within & (rows.speed_mps > 0))
        if not bool(road.open_start[0, lane]) or leave <= enter or not len(on_lane):
            continue
        piece = pieces[min(int(np.searchsorted(along, enter, side="right")) - 1, len(pieces) - 1)]
        floats["enter_m"][lane] = [np.interp(enter, along, values) for values in centre.T]
        floats["enter_rad"][lane] = np.arctan2(piece[1], piece[0])
        speed = rows.speed_mps[on_lane].astype(float)
        shown_m = np.minimum(until_m - starts_m[lane], leave) - np.maximum(since_m - starts_m[lane], enter)
        floats["flow_per_s"][lane] = speed.sum() / np.maximum(shown_m, LEAST_M).sum()
        drawn = generator.choice(on_lane, SAMPLES, p=speed / speed.sum())
        for name in ("speed_mps", "length_m", "width_m"):
            floats[name][lane] = getattr(rows, name)[drawn]
    tensors = {name: torch.from_numpy(values).to(torch.get_default_dtype())[None] for name, values in floats.items()}
    return Sections(**tensors, exits=torch.from_numpy(exits)[None])


def _shown(rows: _Rows) -> tuple[np.ndarray, np.ndarray]:
    """The rearmost and the foremost place of a vehicle along the longest lane, of each moment with any."""
    moments, index = np.unique(rows.moment, return_inverse=True)
    since, until = np.full(len(moments), np.inf), np.full(len(moments), -np.inf)
    np.minimum.at(since, index, rows.on_axis_m)
    np.maximum.at(until, index, rows.on_axis_m)
    return since, until


def _headways(rows: _Rows) -> tuple[np.ndarray, np.ndarray]:
    """Headways in time to the leader of the same lane, s, and the speed of each follower."""
    rear, front = followers(rows.moment, rows.lane, rows.along_m)
    fast = rows.speed_mps[rear] > LEAST_MPS
    rear, front = rear[fast], front[fast]
    speed = rows.speed_mps[rear]
    return (rows.along_m[front] - rows.along_m[rear]) / speed, speed


def _shape(headway_s: np.ndarray, weight: np.ndarray) -> Tensor:
    if not len(headway_s):
        return torch.ones(SAMPLES)
    order = headway_s.argsort()
    share = (weight[order].cumsum() - weight[order] / 2) / weight.sum()
    quantiles = np.interp((np.arange(SAMPLES) + 0.5) / SAMPLES, share, headway_s[order])
    return torch.from_numpy(quantiles / quantiles.mean()).to(torch.get_default_dtype())


_SIZES: dict[str, tuple[int, ...]] = {
    "enter_m": (2,),
    "enter_rad": (),
    "enter_along_m": (),
    "exit_along_m": (),
    "flow_per_s": (),
    "speed_mps": (SAMPLES,),
    "length_m": (SAMPLES,),
    "width_m": (SAMPLES,),
}
