"""A lane as recorded: its centre line, width, limit and neighbours; and the `Road` that lanes make."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.road import NO_LANE, Road

DEFAULT_SPEED_LIMIT_MPS = 29.0  # 65 mph, the limit of both NGSIM freeways
OPEN_END_WITHIN_M = 20.0  # a lane that ends this near to the section's end goes on beyond it
TOUCHING_WIDTHS = 1.5  # lanes whose centres are no farther apart than this many widths are neighbours
BESIDE_AT_LEAST_M = 30.0  # and run side by side at least so far: a ramp that leads into a lane is not its neighbour
DENSE_M = 5.0
STRAIGHT_WITHIN_M = 0.1  # how far a simplified centre line may lie from the recorded one


@dataclass(frozen=True, eq=False)
class Lane:
    """One lane of one recording. `None` in an optional field: take the default that `completed` gives.

    Attributes:
        lane_id: number of the lane; 1 is the leftmost.
        centre_m: centre line in driving direction, `(point, 2)` in m, at least two points.
        width_m: width in m at each point, `(point,)`.
        speed_limit_mps: speed limit in m/s.
        left: `lane_id` of the left neighbour, 0 for none.
        right: `lane_id` of the right neighbour, 0 for none.
        open_start: whether traffic comes from before the first point.
        open_end: whether traffic goes on beyond the last point.
    """

    lane_id: int
    centre_m: np.ndarray
    width_m: np.ndarray
    speed_limit_mps: float | None = None
    left: int | None = None
    right: int | None = None
    open_start: bool | None = None
    open_end: bool | None = None

    def __post_init__(self) -> None:
        centre = np.asarray(self.centre_m, dtype=np.float64)
        if centre.ndim != 2 or centre.shape[0] < 2 or centre.shape[1] != 2:
            raise InputError(
                f"lane {self.lane_id}: expected a centre of two or more [x, y] points, got shape {centre.shape}; "
                "mend the lane"
            )
        width = np.asarray(self.width_m, dtype=np.float64)
        if width.ndim and width.shape != centre.shape[:1]:
            raise InputError(
                f"lane {self.lane_id}: expected a width for each of its {len(centre)} points, got {width.size}; mend it"
            )
        width = np.broadcast_to(width, centre.shape[:1]).copy()
        object.__setattr__(self, "centre_m", centre)
        object.__setattr__(self, "width_m", width)
        if not (np.isfinite(centre).all() and np.isfinite(width).all() and (width > 0).all()):
            raise InputError(
                f"lane {self.lane_id}: centre and width must be finite and the width positive; mend the lane"
            )
        if (np.linalg.norm(np.diff(centre, axis=0), axis=1) < 1e-6).any():
            raise InputError(f"lane {self.lane_id}: two successive points of its centre coincide; remove one of them")

    def simplified(self, tolerance_m: float = STRAIGHT_WITHIN_M) -> Lane:
        """The lane with as few points as keep its centre within `tolerance_m` (Douglas and Peucker, 1973)."""
        keep = _douglas_peucker(self.centre_m, self.width_m, tolerance_m)
        return replace(self, centre_m=self.centre_m[keep], width_m=self.width_m[keep])

    def relative_to(self, origin_m: Sequence[float]) -> Lane:
        """The lane in coordinates whose zero is at `origin_m` (x, y)."""
        return replace(self, centre_m=self.centre_m - np.asarray(origin_m, dtype=np.float64))

    def as_json(self, recording: str) -> dict[str, Any]:
        return {
            "recording": recording,
            "lane_id": int(self.lane_id),
            "centre": self.centre_m.round(3).tolist(),
            "width_m": self.width_m.round(3).tolist(),
            "speed_limit_mps": self.speed_limit_mps,
            "left": self.left or None,
            "right": self.right or None,
            "open_start": self.open_start,
            "open_end": self.open_end,
        }

    @staticmethod
    def from_json(item: Mapping[str, Any], source: str) -> Lane:
        """Read one entry of `lanes.json`.

        Raises:
            InputError: naming `source` and the field that is missing or malformed.
        """
        for field in ("lane_id", "centre", "width_m"):
            if field not in item:
                raise InputError(f"{source}: field '{field}' is missing; found {sorted(item)}; add it")
        try:
            return Lane(
                lane_id=int(item["lane_id"]),
                centre_m=np.array(item["centre"], dtype=np.float64),
                width_m=np.array(item["width_m"], dtype=np.float64),
                speed_limit_mps=item.get("speed_limit_mps"),
                left=(item["left"] or 0) if "left" in item else None,
                right=(item["right"] or 0) if "right" in item else None,
                open_start=item.get("open_start"),
                open_end=item.get("open_end"),
            )
        except InputError as error:
            raise InputError(f"{source}: {error}") from None
        except (TypeError, ValueError) as error:
            raise InputError(f"{source}: not a lane ({error}); see docs/recordings.md for the fields") from None


def read_lanes(path: Path) -> dict[str, list[Lane]]:
    """Read `lanes.json`: the lanes of each recording, sorted by `lane_id`.

    Raises:
        InputError: when the file is missing, is not JSON, or a lane is malformed or given twice.
    """
    try:
        items = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: not found; lanes are needed beside the tracks (see docs/recordings.md)") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); write it again") from None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise InputError(f"{path}: expected a list of lanes, got {type(items).__name__}; see docs/recordings.md")
    lanes: dict[str, list[Lane]] = {}
    for index, item in enumerate(items):
        if "recording" not in item:
            raise InputError(f"{path}: lane {index}: field 'recording' is missing; found {sorted(item)}; add it")
        lanes.setdefault(str(item["recording"]), []).append(Lane.from_json(item, f"{path}: lane {index}"))
    for name, of_recording in lanes.items():
        of_recording.sort(key=lambda lane: lane.lane_id)
        ids = [lane.lane_id for lane in of_recording]
        if len(set(ids)) < len(ids):
            raise InputError(f"{path}: recording '{name}' has a lane_id twice: {ids}; number its lanes 1 to n")
    return lanes


def completed(lanes: Iterable[Lane], speed_limit_mps: float = DEFAULT_SPEED_LIMIT_MPS) -> tuple[Lane, ...]:
    """Fill the optional fields of the lanes of one recording.

    The neighbours are the lanes with the next lower (left) and higher (right) `lane_id` that run beside the lane for
    30 m or half its length, with their centres at most 1.5 widths away.
    A lane is open at an end that lies within 20 m of the section's end, measured along the longest lane; a ramp that
    starts late or an auxiliary lane that runs out is closed there.
    """
    ordered = sorted(lanes, key=lambda lane: lane.lane_id)
    if not ordered:
        return ()
    longest = max((lane.centre_m for lane in ordered), key=_length)
    spans = [_project(longest, lane.centre_m[[0, -1]])[0].tolist() for lane in ordered]
    first, last = min(span[0] for span in spans), max(span[1] for span in spans)
    filled = []
    for index, (lane, (start, end)) in enumerate(zip(ordered, spans, strict=True)):
        filled.append(
            replace(
                lane,
                speed_limit_mps=speed_limit_mps if lane.speed_limit_mps is None else float(lane.speed_limit_mps),
                left=_neighbour(lane, reversed(ordered[:index])) if lane.left is None else lane.left,
                right=_neighbour(lane, ordered[index + 1 :]) if lane.right is None else lane.right,
                open_start=bool(start - first <= OPEN_END_WITHIN_M if lane.open_start is None else lane.open_start),
                open_end=bool(last - end <= OPEN_END_WITHIN_M if lane.open_end is None else lane.open_end),
            )
        )
    return tuple(filled)


def road_of(lanes: Sequence[Lane]) -> Road:
    """The `Road` (leading dimension 1, float32) of completed lanes, in the order of their `lane_id`, simplified."""
    ordered = [lane.simplified() for lane in sorted(completed(lanes), key=lambda lane: lane.lane_id)]
    count, points = len(ordered), max(len(lane.centre_m) for lane in ordered)
    centre, width = np.zeros((1, count, points, 2), np.float32), np.ones((1, count, points), np.float32)
    for index, lane in enumerate(ordered):
        padding = (0, points - len(lane.centre_m))
        centre[0, index] = np.pad(lane.centre_m, (padding, (0, 0)), mode="edge")
        width[0, index] = np.pad(lane.width_m, padding, mode="edge")
    index_of = {lane.lane_id: index for index, lane in enumerate(ordered)}
    return Road(
        centre_m=torch.from_numpy(centre),
        width_m=torch.from_numpy(width),
        point_count=torch.tensor([[len(lane.centre_m) for lane in ordered]]),
        speed_limit_mps=torch.tensor([[lane.speed_limit_mps for lane in ordered]], dtype=torch.float32),
        left=torch.tensor([[index_of.get(lane.left or 0, NO_LANE) for lane in ordered]]),
        right=torch.tensor([[index_of.get(lane.right or 0, NO_LANE) for lane in ordered]]),
        open_start=torch.tensor([[bool(lane.open_start) for lane in ordered]]),
        open_end=torch.tensor([[bool(lane.open_end) for lane in ordered]]),
    )


def _neighbour(lane: Lane, others: Iterable[Lane]) -> int:
    """`lane_id` of the first of `others` that runs beside `lane` for some metres and touches it, otherwise 0."""
    points = _dense(lane.centre_m)
    for other in others:
        along, distance = _project(other.centre_m, points)
        beside = (along >= 0.0) & (along <= _length(other.centre_m))
        touching = beside & (distance <= TOUCHING_WIDTHS * (lane.width_m.max() + other.width_m.max()) / 2)
        if touching.sum() * DENSE_M >= min(BESIDE_AT_LEAST_M, _length(lane.centre_m) / 2):
            return other.lane_id
    return 0


def _length(line: np.ndarray) -> float:
    return float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum())


def _dense(line: np.ndarray) -> np.ndarray:
    """Points about `DENSE_M` apart along a polyline."""
    covered = np.concatenate([[0.0], np.linalg.norm(np.diff(line, axis=0), axis=1).cumsum()])
    at = np.linspace(0.0, covered[-1], max(2, int(covered[-1] / DENSE_M) + 1))
    return np.stack([np.interp(at, covered, line[:, axis]) for axis in (0, 1)], 1)


def _project(line: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Along (beyond the ends extended) and distance of `points (n, 2)` on the polyline `line (p, 2)`."""
    delta = np.diff(line, axis=0)
    length = np.linalg.norm(delta, axis=1)
    offset = points[:, None] - line[None, :-1]
    fraction = (offset * delta).sum(-1) / length**2
    low, high = np.zeros(len(length)), np.ones(len(length))
    low[0], high[-1] = -np.inf, np.inf
    fraction = fraction.clip(low, high)
    distance = np.linalg.norm(offset - fraction[..., None] * delta, axis=-1)
    best = distance.argmin(1)
    row = np.arange(len(points))
    covered = np.concatenate([[0.0], length.cumsum()])
    return covered[best] + fraction[row, best] * length[best], distance[row, best]


def _douglas_peucker(points: np.ndarray, width: np.ndarray, tolerance_m: float) -> np.ndarray:
    """Numbers of the points to keep, so that centre line and edges stay within `tolerance_m`."""
    keep = np.zeros(len(points), bool)
    keep[[0, -1]] = True
    stack = [(0, len(points) - 1)]
    while stack:
        first, last = stack.pop()
        if last - first < 2:
            continue
        between = points[first + 1 : last]
        chord = points[last] - points[first]
        offset = between - points[first]
        fraction = ((offset @ chord) / max(chord @ chord, 1e-12)).clip(0.0, 1.0)
        distance = np.linalg.norm(offset - fraction[:, None] * chord, axis=1)
        narrowed = width[first + 1 : last] - width[first] - fraction * (width[last] - width[first])
        distance = np.maximum(distance, np.abs(narrowed) / 2)
        worst = int(distance.argmax())
        if distance[worst] > tolerance_m:
            middle = first + 1 + worst
            keep[middle] = True
            stack += [(first, middle), (middle, last)]
    return np.flatnonzero(keep)
