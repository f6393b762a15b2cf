"""Who touches whom, by highway-env's rule (`RoadObject.handle_collisions`, `utils.are_polygons_intersecting`)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from drivecast.envs.batched.places import anywhere, places_of
from drivecast.envs.batched.scene import Scene
from drivecast.worldmodel.rules.elementary import cos, sin

DIAGONAL_M = math.hypot(5.0, 2.0)  # of a car
OBSTACLE_DIAGONAL_M = math.hypot(2.0, 2.0)
TILT = 0.05  # rad from the road above which a car is looked at more closely


def collide(scene: Scene, dt_s: float, ego_only: bool, obstacles: int) -> Scene:
    """Mark who touches, and by how much who will touch within `dt_s` is moved apart in the next frame.

    Args:
        scene: After everyone moved.
        dt_s: Frame, s.
        ego_only: Only collisions of the ego are looked for (`highway-fast-v0`).
        obstacles: Number of obstacles; they are the last agents.
    """
    with torch.no_grad():
        episode, first, second = _close_pairs(scene, dt_s, ego_only)
    if len(episode) == 0:
        return scene
    touching, will_touch, push_x, push_y = _separate(scene, dt_s, episode, first, second, obstacles)
    crashed = scene.crashed
    if bool(touching.any()):
        hits = episode[touching]
        crashed = crashed.index_put((hits, first[touching]), crashed.new_tensor(True))
        crashed = crashed.index_put((hits, second[touching]), crashed.new_tensor(True))
    scene = scene.but(crashed=crashed)
    if not bool(will_touch.any()):
        return scene
    agents = scene.x_m.shape[1]
    episode, first, second = episode[will_touch], first[will_touch], second[will_touch]
    push_x, push_y = push_x[will_touch], push_y[will_touch]
    against_obstacle = second >= agents - obstacles
    share = torch.where(against_obstacle, 1.0, 0.5).to(push_x)
    # each pair seen from both sides: whom it moves, by whom
    episode = torch.cat([episode, episode[~against_obstacle]])
    moved = torch.cat([first, second[~against_obstacle]])
    by = torch.cat([second, first[~against_obstacle]])
    dx = torch.cat([push_x * share, -(push_x * share)[~against_obstacle]])
    dy = torch.cat([push_y * share, -(push_y * share)[~against_obstacle]])
    # highway-env goes through the pairs in order and overwrites: the partner listed last decides
    place = episode * agents + moved
    last = torch.full((scene.x_m.numel(),), -1, dtype=torch.long, device=by.device)
    last = last.scatter_reduce(0, place, by, "amax")
    decides = by == last[place]
    where = (episode[decides], moved[decides])
    return scene.but(
        impact_x_m=scene.impact_x_m.index_put(where, dx[decides]),
        impact_y_m=scene.impact_y_m.index_put(where, dy[decides]),
        struck=scene.struck.index_put(where, scene.struck.new_tensor(True)),
    )


def _close_pairs(scene: Scene, dt_s: float, ego_only: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs `(episode, first, second)`, first < second, that may touch; every pair that does touch is among them.

    Sorted by x, only a few next places can be within reach. Of those, two cars that are nearly parallel to the road
    and further apart across it than their widths and what they move can not touch: their own sides separate them.
    """
    x, y, speed = scene.x_m.detach(), scene.y_m.detach(), scene.speed_mps.detach()
    reach = DIAGONAL_M + speed.abs() * dt_s
    tilted = scene.heading_rad.detach().abs() > TILT
    apart = 2.7 + 4.0 * dt_s
    if ego_only:
        near = (x[:, 1:] - x[:, :1]).abs() <= reach[:, :1]
        near &= ((y[:, 1:] - y[:, :1]).abs() <= apart) | tilted[:, 1:] | tilted[:, :1]
        found = places_of(near)
        episode, second = found // near.shape[1], found % near.shape[1] + 1
        return episode, torch.zeros_like(second), second
    x, order = x.sort(1)
    y, tilted = y.gather(1, order), tilted.gather(1, order)
    longest = float(reach.max())
    pairs: list[tuple[Tensor, Tensor, Tensor]] = []
    for places in range(1, x.shape[1]):
        close = x[:, places:] - x[:, :-places] <= longest
        if not anywhere(close):
            break
        close &= ((y[:, places:] - y[:, :-places]).abs() <= apart) | tilted[:, places:] | tilted[:, :-places]
        found = places_of(close)
        episode, place = found // close.shape[1], found % close.shape[1]
        one, other = (order.take(episode * order.shape[1] + at) for at in (place, place + places))
        pairs.append((episode, torch.minimum(one, other), torch.maximum(one, other)))
    if not pairs:
        nothing = torch.zeros(0, dtype=torch.long, device=x.device)
        return nothing, nothing, nothing
    episodes, firsts, seconds = (torch.cat(part) for part in zip(*pairs, strict=True))
    return episodes, firsts, seconds


def _separate(
    scene: Scene, dt_s: float, episode: Tensor, first: Tensor, second: Tensor, obstacles: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Separating axes of the boxes of `first` and `second`, standing and swept over `dt_s`.

    Returns, `(k,)` each: whether they touch, whether they will, and the push (m) that would keep the first clear.
    """
    agents = scene.x_m.shape[1]

    def of(values: Tensor) -> tuple[Tensor, Tensor]:
        return values[episode, first], values[episode, second]

    (xa, xb), (ya, yb), (ha, hb), (va, vb) = (
        of(values) for values in (scene.x_m, scene.y_m, scene.heading_rad, scene.speed_mps)
    )
    is_obstacle = second >= agents - obstacles  # 2 m x 2 m
    length_b = torch.where(is_obstacle, 2.0, 5.0).to(xa)
    diagonal_b = torch.where(is_obstacle, OBSTACLE_DIAGONAL_M, DIAGONAL_M).to(xa)
    in_reach = torch.hypot(xb - xa, yb - ya) <= (DIAGONAL_M + diagonal_b) / 2 + va * dt_s

    corners_a = _corners(xa, ya, ha, torch.full_like(xa, 5.0))
    corners_b = _corners(xb, yb, hb, length_b)
    # an axis across each of the four edges of both; opposite ones differ where one interval lies within the other
    edges = [torch.stack([c - c.roll(-1, 0) for c in corners]) for corners in (corners_a, corners_b)]
    edge_x, edge_y = torch.cat(edges, 1)  # (8, k) each
    axis_x, axis_y = edge_y, -edge_x
    norm = (axis_x * axis_x + axis_y * axis_y).sqrt()
    axis_x, axis_y = axis_x / norm, axis_y / norm
    low_a, high_a = _projected(corners_a, axis_x, axis_y)
    low_b, high_b = _projected(corners_b, axis_x, axis_y)
    touching = in_reach & (_interval_distance(low_a, high_a, low_b, high_b) <= 0).all(0)
    sweep_x = va * cos(ha) * dt_s - vb * cos(hb) * dt_s
    sweep_y = va * sin(ha) * dt_s - vb * sin(hb) * dt_s
    sweep = axis_x * sweep_x + axis_y * sweep_y
    low_a, high_a = torch.where(sweep < 0, low_a + sweep, low_a), torch.where(sweep < 0, high_a, high_a + sweep)
    distance = _interval_distance(low_a, high_a, low_b, high_b)
    will_touch = in_reach & (distance <= 0).all(0)
    depth, number = distance.abs().min(0)
    axis_x, axis_y = (axis.gather(0, number[None])[0] for axis in (axis_x, axis_y))
    from_b_x, from_b_y = (_mean(a) - _mean(b) for a, b in zip(corners_a, corners_b, strict=True))
    away = from_b_x * axis_x + from_b_y * axis_y > 0
    push_x, push_y = torch.where(away, axis_x, -axis_x) * depth, torch.where(away, axis_y, -axis_y) * depth
    return touching, will_touch, push_x, push_y


def _corners(x: Tensor, y: Tensor, heading: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """Corners `(4, k)` of boxes 2 m wide (`RoadObject.polygon`)."""
    forth = torch.stack([-length / 2, -length / 2, length / 2, length / 2])
    across = torch.tensor([-1.0, 1.0, 1.0, -1.0], dtype=x.dtype, device=x.device)[:, None]
    c, s = cos(heading), sin(heading)
    return c * forth - s * across + x, s * forth + c * across + y


def _projected(corners: tuple[Tensor, Tensor], axis_x: Tensor, axis_y: Tensor) -> tuple[Tensor, Tensor]:
    """Least and greatest coordinate of the corners `(4, k)` along each axis `(8, k)`."""
    along = corners[0] * axis_x[:, None] + corners[1] * axis_y[:, None]
    return along.amin(1), along.amax(1)


def _mean(corners: Tensor) -> Tensor:
    return (corners[0] + corners[1] + corners[2] + corners[3]) / 4


def _interval_distance(low_a: Tensor, high_a: Tensor, low_b: Tensor, high_b: Tensor) -> Tensor:
    """Distance between two intervals; negative where they overlap (`utils.interval_distance`)."""
    return torch.where(low_a < low_b, low_b - high_a, low_a - high_b)
