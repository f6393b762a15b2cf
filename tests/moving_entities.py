"""Small stretches with known motion, for tests of concepts."""

from __future__ import annotations

import torch

from drivecast.worldmodel.scene.entities import FRAME_S, Entities, entities_of
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState

FRAMES = 16


def moving(*vehicles: tuple[float, float, float, float], lengths: tuple[float, ...] = (), turned: float = 0.0):
    """States `(1, frame, agent)` of cars at `(x_m, y_m, speed_mps, y_at_the_end_m)`, and a road of 5 lanes of 4 m.

    Lane centres at y = 8, 4, 0, -4, -8; all of it is `turned` by so many rad about the origin.
    """
    time = torch.arange(FRAMES) * FRAME_S
    share = (time / time[-1]).clamp(0, 1)
    x, y, speed, end = (torch.tensor(values) for values in zip(*vehicles, strict=True))
    position = torch.stack([x + speed * time[:, None], y + (end - y) * share[:, None]], -1)
    cos, sin = torch.tensor(turned).cos(), torch.tensor(turned).sin()
    rotation = torch.stack([torch.stack([cos, sin]), torch.stack([-sin, cos])])
    length = torch.tensor(lengths) if lengths else torch.full_like(x, 5.0)
    like = torch.ones(FRAMES, len(x))
    states = TrafficState(position @ rotation, turned * like, speed * like, length * like, 2 * like, like.bool())
    road = Road.straight(5, start_m=-500.0, length_m=3000.0)
    centre = (road.centre_m + torch.tensor([0.0, 8.0])) @ rotation
    return states[None], Road(**{**vars_of(road), "centre_m": centre})


def vars_of(road: Road) -> dict:
    names = ("centre_m", "width_m", "point_count", "speed_limit_mps", "left", "right", "open_start", "open_end")
    return {name: getattr(road, name) for name in names}


def entities(*vehicles: tuple[float, float, float, float], **options) -> Entities:
    """The same as entities, the ego first."""
    states, road = moving(*vehicles, **options)
    return entities_of(states, road, FRAME_S)
