"""An episode as one HTML file that needs nothing else: no network, no server."""

from __future__ import annotations

import base64
import html
import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from drivecast.envs.replay import caption
from drivecast.envs.replay.authorship import MARK
from drivecast.envs.replay.content_policy import content_policy
from drivecast.envs.replay.episode import Episode
from drivecast.envs.replay.palette import style_sheet, term_colour
from drivecast.envs.replay.readings import Readings
from drivecast.envs.replay.roadway import Roadway, road_middle_m
from drivecast.envs.replay.template import asset, fill
from drivecast.envs.replay.weighing import in_words
from drivecast.worldmodel.scene.driver import Weighed
from drivecast.worldmodel.storage.files import atomic_file

SCRIPTS = ("episode.js", "camera.js", "scene.js", "chart.js", "weighed.js", "player.js")
FUTURE_SPACING_S = 0.2  # points of an imagined future that are kept for drawing
MAX_SAMPLES = 12
IN_VIEW_M = 220.0  # futures of cars farther from the ego are left out


def write_page(episode: Episode, path: Path | str) -> None:
    """Write the replay of `episode` as a self-contained HTML file."""
    text = page(episode)
    with atomic_file(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def page(episode: Episode) -> str:
    """The replay of `episode` as HTML."""
    style = style_sheet() + asset("page.css")
    script = '"use strict";\n(() => {\n' + "\n".join(asset(name) for name in SCRIPTS) + "\n})();\n"
    return fill(
        asset("page.html"),
        policy=content_policy(style, script),
        title=html.escape(f"{caption.title(episode)} - {MARK}"),
        style=style,
        script=script,
        data=base64.b64encode(pack(episode)).decode("ascii"),
    )


def pack(episode: Episode) -> bytes:
    """Deflated: length of a JSON header (uint32, little-endian), the header, then the arrays it lists.

    An array is int32 counts of its `scale`, differenced `order` times along its first axis, with all lowest bytes
    first, then all second bytes, and so on: slow changes become runs of zeros.
    """
    seen = np.flatnonzero(_numpy(episode.states.valid).any(0))  # agents that are only padding are left out
    index = {int(agent): place for place, agent in enumerate(seen)}
    arrays = _Arrays()
    position = _numpy(episode.states.position_m)[:, seen].astype(np.float64)
    valid = _numpy(episode.states.valid)[:, seen]
    origin = position[0, 0].copy()
    for axis, name in enumerate("xy"):
        arrays.add(name, position[..., axis] - origin[axis], 0.01, order=2)
    arrays.add("heading", np.unwrap(_numpy(episode.states.heading_rad)[:, seen], axis=0), 0.0005, order=2)
    arrays.add("speed", _numpy(episode.states.speed_mps)[:, seen], 0.01, order=2)
    arrays.add("valid", valid, 1, order=1)
    arrays.add("acceleration", _numpy(episode.controls.acceleration_mps2), 0.001, order=1)
    arrays.add("steering", _numpy(episode.controls.steering_rad), 0.0001, order=1)
    readings = Readings.of(episode)
    arrays.add("leader", np.array([index.get(int(agent), -1) for agent in readings.leader]), 1, order=1)
    for name in ("gap_m", "headway_s", "time_to_collision_s"):
        arrays.add(name, getattr(readings, name), 0.01, order=1)
    heading = _numpy(episode.states.heading_rad)[:, 0]
    arrays.add("road_middle_m", road_middle_m(episode.road, position[:, 0], heading), 0.01, order=2)
    for place, values in enumerate(episode.costs.values()):
        arrays.add(f"cost{place}", _numpy(values), 0.0001, order=1)
    about, terms = episode.metadata, list(episode.costs)
    visited = position[valid]
    roadway = Roadway.of(episode.road, visited)
    header = {
        "title": caption.title(episode),
        "driver": about.driver,
        "environment": about.environment,
        "verdict": caption.verdict(episode),
        "outcome": about.outcome,
        "details": caption.details(episode),
        "dt_s": about.dt_s,
        "steps": episode.steps,
        "desired_speed_mps": about.desired_speed_mps,
        "collided_with": index.get(-1 if about.collided_with is None else about.collided_with, -1),
        "cars": _cars(episode, seen),
        "costs": [{"name": name, "colour": term_colour(terms, place)} for place, name in enumerate(terms)],
        "imaginations": _imaginations(episode, seen, origin, arrays),
        "road": {
            name: [np.round(line - origin, 2).ravel().tolist() for line in getattr(roadway, name)]
            for name in ("surfaces", "solid", "dashed", "closed")
        },
        "arrays": arrays.listed,
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    return zlib.compress(len(text).to_bytes(4, "little") + text + b"".join(arrays.packed), 9)


def _cars(episode: Episode, seen: np.ndarray) -> list[dict[str, Any]]:
    first = _numpy(episode.states.valid)[:, seen].argmax(0)
    length, width = (_numpy(v)[first, seen] for v in (episode.states.length_m, episode.states.width_m))
    return [
        {"name": int(agent), "length_m": round(float(long), 2), "width_m": round(float(wide), 2)}
        for agent, long, wide in zip(seen, length, width, strict=True)
    ]


def _imaginations(episode: Episode, seen: np.ndarray, origin: np.ndarray, arrays: _Arrays) -> list[dict[str, Any]]:
    listed = []
    stride = max(1, round(FUTURE_SPACING_S / episode.metadata.dt_s))
    position, valid = _numpy(episode.states.position_m)[:, seen], _numpy(episode.states.valid)[:, seen]
    for step, imagined in sorted(episode.imaginations.items()):
        near = valid[step] & (np.linalg.norm(position[step] - position[step, 0], axis=-1) < IN_VIEW_M)
        near[0] = False
        futures = _numpy(imagined.futures_m)[0, :MAX_SAMPLES, stride - 1 :: stride][:, :, seen]
        cars = np.flatnonzero(near & np.isfinite(futures).all((0, 1, 3)))  # those that were imagined
        futures = futures[:, :, cars]
        arrays.add(f"futures{step}", futures.swapaxes(0, 1) - origin, 0.02, order=2)  # (future, sample, car, 2)
        arrays.add(f"plan{step}", _numpy(imagined.plan_m)[0] - origin, 0.02, order=2)
        if imagined.cost:
            total = sum(_numpy(values)[0] for values in imagined.cost.values())
            arrays.add(f"expected{step}", np.asarray(total), 0.0001, order=1)
        weighed = _weighed(episode, imagined.weighed, step, origin, arrays) if imagined.weighed else None
        attended = None if imagined.attended is None else np.flatnonzero(_numpy(imagined.attended)[0, seen]).tolist()
        about = {"step": step, "stride": stride, "cars": cars.tolist(), "weighed": weighed, "attended": attended}
        listed.append(about)
    return listed


def _weighed(episode: Episode, weighed: Weighed, step: int, origin: np.ndarray, arrays: _Arrays) -> dict[str, Any]:
    arrays.add(f"weighed{step}", _numpy(weighed.path_m)[0].swapaxes(0, 1) - origin, 0.02, order=2)  # (point, plan, 2)
    plans = in_words(weighed, episode.states, episode.road, step, episode.metadata.dt_s)
    rows = [
        {
            "plan": plan,
            "energy": round(energy, 4),
            "cost": {name: round(float(v[0, i]), 4) for name, v in weighed.cost.items()},
        }
        for i, (plan, energy) in enumerate(zip(plans, weighed.energy[0].tolist(), strict=True))
    ]
    return {"every": weighed.every, "ago": weighed.ago, "plans": rows}


_NOTHING = -(2**31)  # stands for NaN


@dataclass
class _Arrays:
    listed: list[dict[str, Any]] = field(default_factory=list)
    packed: list[bytes] = field(default_factory=list)

    def add(self, name: str, values: np.ndarray, scale: float, order: int) -> None:
        scaled = np.rint(np.asarray(values, np.float64) / scale)
        counts = np.clip(np.nan_to_num(scaled), -(2**30), 2**30).astype(np.int32)
        counts[np.isnan(scaled)] = _NOTHING
        for _ in range(order):
            counts = np.diff(counts, axis=0, prepend=np.zeros((1, *counts.shape[1:]), np.int32))  # wraps around
        planes = np.ascontiguousarray(counts.astype("<i4")).view(np.uint8).reshape(-1, 4).T
        self.listed.append({"name": name, "shape": list(values.shape), "scale": scale, "order": order})
        self.packed.append(planes.tobytes())


def _numpy(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy()
