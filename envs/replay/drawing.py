"""The traffic of one moment, drawn from above with Pillow: the same picture as the page's."""

from __future__ import annotations

import numpy as np
from PIL import ImageColor, ImageDraw

from drivecast.envs.replay.episode import Episode
from drivecast.envs.replay.lens import Lens
from drivecast.envs.replay.readings import Readings
from drivecast.envs.replay.roadway import Roadway
from drivecast.worldmodel.scene.driver import Imagination

FULL_COLOUR_MPS = 7.0  # a speed difference shown in full colour
TRAIL_S = 2.5
PLAN_DOT_S = 0.5
STALE_S = 1.5
IN_VIEW_M = 160.0
_DASH_M, _PERIOD_M = 3.0, 9.0
_TIE_DASH_M, _TIE_PERIOD_M = 1.6, 2.8  # of the line from the ego to whom it attends to
_RING_M = 0.8  # from a car's side to the ring around it
_MAX_SAMPLES = 12

Colour = tuple[int, ...]


class TrafficDrawing:
    """Draws any moment of one episode."""

    def __init__(self, episode: Episode, colours: dict[str, str]) -> None:
        self.episode = episode
        self.colours = {name: ImageColor.getrgb(colour) for name, colour in colours.items()}
        states = episode.states.map(lambda tensor: tensor.detach().cpu())
        self.position_m = states.position_m.double().numpy()
        self.heading_rad = np.unwrap(states.heading_rad.double().numpy(), axis=0)
        self.speed_mps = states.speed_mps.numpy()
        self.valid = states.valid.numpy()
        self.size_m = np.stack([states.length_m.numpy(), states.width_m.numpy()], -1)
        self.readings = Readings.of(episode)
        self.roadway = Roadway.of(episode.road, self.position_m[self.valid])
        self.dashes_m = _dashes(self.roadway.dashed)

    def draw(self, draw: ImageDraw.ImageDraw, lens: Lens, t: float) -> None:
        """Draw the moment at fractional step `t` on `draw`, which blends (mode RGBA)."""
        self._road(draw, lens)
        near = np.hypot(*(self.position_m[int(t)] - self.position_m[int(t), 0]).T) < IN_VIEW_M
        seen = [int(car) for car in np.flatnonzero(self.valid[int(t)] & near)]
        for car in seen:
            self._trail(draw, lens, car, t)
        imagined = self._imagined(t)
        if imagined is not None:
            self._futures(draw, lens, *imagined, seen, t)
            self._weighed(draw, lens, *imagined, t)
            self._plan(draw, lens, *imagined, t)
            self._attended(draw, lens, imagined[1], seen, t)
        for car in sorted(seen, key=lambda car: car == 0):
            self._car(draw, lens, car, t)
        if self._crashed(t):
            self._burst(draw, lens, t)

    def _road(self, draw: ImageDraw.ImageDraw, lens: Lens) -> None:
        thin = max(1, round(0.15 * lens.scale))
        for outline in self.roadway.surfaces:
            points = _flat(lens.pixels(outline))
            draw.polygon(points, self.colours["asphalt"])
            draw.line([*points, points[0]], self.colours["asphalt"], max(1, round(1.2 * lens.scale)))  # a shoulder
        for outline in self.roadway.closed:
            draw.polygon(_flat(lens.pixels(outline)), (*self.colours["closed"], 77))
        for dash in lens.pixels(self.dashes_m):
            draw.line(_flat(dash), (*self.colours["marking"], 178), thin)
        for line in self.roadway.solid:
            draw.line(_flat(lens.pixels(line)), self.colours["marking"], thin)

    def _trail(self, draw: ImageDraw.ImageDraw, lens: Lens, car: int, t: float) -> None:
        now, pieces = int(t), 6
        past = round(TRAIL_S / self.episode.metadata.dt_s)
        for piece in range(pieces):
            first = max(0, now - past + past * piece // pieces)
            steps = np.arange(first, now - past + past * (piece + 1) // pieces + 1)
            points = self.position_m[steps[self.valid[steps, car]], car] if len(steps) else np.empty((0, 2))
            if piece == pieces - 1:
                points = np.concatenate([points, self._at(self.position_m, car, t)[None]])
            if len(points) > 1:
                opacity = (piece + 1) / pieces * (0.7 if car == 0 else 0.38)
                width = max(1, round((0.5 if car == 0 else 0.3) * lens.scale))
                draw.line(_flat(lens.pixels(points)), (*self._colour(car, t), round(255 * opacity)), width)

    def _imagined(self, t: float) -> tuple[int, Imagination] | None:
        step = max((step for step in self.episode.imaginations if step <= t + 1e-6), default=None)
        if step is None or (t - step) * self.episode.metadata.dt_s > STALE_S:
            return None
        return step, self.episode.imaginations[step]

    def _futures(
        self, draw: ImageDraw.ImageDraw, lens: Lens, step: int, imagined: Imagination, seen: list[int], t: float
    ) -> None:
        futures = imagined.futures_m[0, :_MAX_SAMPLES].detach().cpu().numpy()  # (sample, future, agent, 2)
        first = int(np.ceil(t - step - 1 + 1e-6))  # what is past already is not drawn
        opacity = round(255 * min(0.6, 0.16 + 1.2 / max(len(futures), 1)))
        for car in seen:
            if car == 0 or not self.valid[step, car] or not np.isfinite(futures[:, :, car]).all():
                continue  # not there, or not imagined
            now = self._at(self.position_m, car, t)
            for future in futures[:, max(0, first) :: 2, car]:
                line = _flat(lens.pixels(np.concatenate([now[None], future])))
                draw.line(line, (*self.colours["imagined"], opacity), max(1, round(0.13 * lens.scale)))

    def _weighed(self, draw: ImageDraw.ImageDraw, lens: Lens, step: int, imagined: Imagination, t: float) -> None:
        weighed = imagined.weighed
        if weighed is None:
            return
        paths, contact = weighed.path_m[0].numpy(), weighed.cost.get("contact", weighed.energy * 0)[0].tolist()
        first = max(0, int(np.ceil((t - step + weighed.ago) / weighed.every - 1 + 1e-6)))
        now = self._at(self.position_m, 0, t)[None]
        for path, hits in zip(paths[1:], contact[1:], strict=True):  # the chosen one is drawn as the plan
            colour = self.colours["crash" if hits > 0 else "weighed"]
            draw.line(
                _flat(lens.pixels(np.concatenate([now, path[first:]]))), (*colour, 200), max(1, round(0.2 * lens.scale))
            )

    def _plan(self, draw: ImageDraw.ImageDraw, lens: Lens, step: int, imagined: Imagination, t: float) -> None:
        plan = imagined.plan_m[0].detach().cpu().numpy()
        first = max(0, int(np.ceil(t - step - 1 + 1e-6)))
        line = np.concatenate([self._at(self.position_m, 0, t)[None], plan[first:]])
        draw.line(_flat(lens.pixels(line)), self.colours["ego"], max(2, round(0.4 * lens.scale)), joint="curve")
        every = max(1, round(PLAN_DOT_S / self.episode.metadata.dt_s))
        for index in range(every - 1, len(plan), every):
            if index >= first:
                draw.circle(_flat(lens.pixels(plan[index]))[0], 0.5 * lens.scale, self.colours["ego"])
                draw.circle(_flat(lens.pixels(plan[index]))[0], 0.25 * lens.scale, (255, 255, 255))

    def _attended(
        self, draw: ImageDraw.ImageDraw, lens: Lens, imagined: Imagination, seen: list[int], t: float
    ) -> None:
        if imagined.attended is None:
            return
        ego, colour = self._at(self.position_m, 0, t), self.colours["attended"]
        for car in seen:
            if not imagined.attended[0, car]:
                continue
            place = (self._at(self.position_m, car, t), float(self._at(self.heading_rad, car, t)))
            for dash in lens.pixels(_dashes([np.stack([ego, place[0]])], _TIE_DASH_M, _TIE_PERIOD_M)):
                draw.line(_flat(dash), colour, max(1, round(0.2 * lens.scale)))
            length, width = self.size_m[int(t), car] + 2 * _RING_M
            ring = _flat(lens.pixels(_box(*place, length, width, 0.5 + _RING_M)))
            draw.line([*ring, *ring[:2]], colour, max(2, round(0.4 * lens.scale)), joint="curve")

    def _car(self, draw: ImageDraw.ImageDraw, lens: Lens, car: int, t: float) -> None:
        length, width = self.size_m[int(t), car]
        place = (self._at(self.position_m, car, t), float(self._at(self.heading_rad, car, t)))
        crashed = self._crashed(t) and car in (0, self.episode.metadata.collided_with)
        if crashed:
            draw.polygon(_flat(lens.pixels(_box(*place, length + 1.2, width + 1.2, 0.9))), self.colours["crash"])
        paint = self.colours["crash"] if crashed and car else self._colour(car, t)
        is_leader = car == self.readings.leader[int(t)]
        edge: Colour = (255, 255, 255) if car == 0 or crashed else self.colours["leader"] if is_leader else (35, 40, 46)
        rim = 0.16 if car == 0 or is_leader or crashed else 0.08
        outline = max(1, round(rim * lens.scale))
        draw.polygon(_flat(lens.pixels(_box(*place, length, width, 0.5))), paint, edge, outline)
        glass = (10, 18, 28, 158)
        front, slope = (length / 2 - 0.9, 0.6) if length > 8 else (length * 0.2, length * 0.13)
        panes = [(front, front - slope, 0.4, 0.33)]
        panes += [] if length > 8 else [(-length * 0.36, -length * 0.27, 0.36, 0.31)]
        for near, far, wide, narrow in panes:
            pane = np.array([(near, wide), (near, -wide), (far, -narrow), (far, narrow)]) * [1, width]
            draw.polygon(_flat(lens.pixels(_placed(pane, *place))), glass)
        if self._brakes(car, t):
            for side in (-1, 1):
                lamp = np.array([(-0.5, 0.21), (-0.5, 0.45), (-0.5, 0.45), (-0.5, 0.21)]) * [length, side * width]
                lamp[2:, 0] += 0.42
                draw.polygon(_flat(lens.pixels(_placed(lamp, *place))), (255, 47, 47))

    def _burst(self, draw: ImageDraw.ImageDraw, lens: Lens, t: float) -> None:
        ego, other = self._at(self.position_m, 0, t), self.episode.metadata.collided_with
        course = float(self._at(self.heading_rad, 0, t))
        reach = self.size_m[int(t), 0, 0] / 2
        if other is not None:
            towards = self._at(self.position_m, other, t) - ego
            course, reach = float(np.arctan2(towards[1], towards[0])), min(float(np.hypot(*towards)) / 2, reach)
        angle = np.arange(16) * np.pi / 8
        radius = np.where(np.arange(16) % 2, 0.7, 1.4)
        centre = ego + reach * np.array([np.cos(course), np.sin(course)])
        star = centre + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
        draw.polygon(_flat(lens.pixels(star)), (255, 216, 74), self.colours["crash"], max(1, round(0.2 * lens.scale)))

    def _crashed(self, t: float) -> bool:
        return self.episode.metadata.outcome == "collision" and t > self.episode.steps - 0.5

    def _brakes(self, car: int, t: float) -> bool:
        step = int(t)
        if step == 0:
            return False
        return bool(self.speed_mps[step, car] - self.speed_mps[step - 1, car] < -1.2 * self.episode.metadata.dt_s)

    def _colour(self, car: int, t: float) -> Colour:
        if car == 0:
            return self.colours["ego"]
        difference = (self.speed_mps[int(t), car] - self.speed_mps[int(t), 0]) / FULL_COLOUR_MPS
        target = self.colours["slower" if difference < 0 else "faster"]
        share = min(1.0, abs(float(difference)))
        return tuple(round(a + share * (b - a)) for a, b in zip(self.colours["neutral"], target, strict=True))

    def _at(self, values: np.ndarray, car: int, t: float) -> np.ndarray:
        before = int(t)
        after = min(before + 1, len(values) - 1)
        if not self.valid[after, car]:
            after = before
        return values[before, car] + (t - before) * (values[after, car] - values[before, car])


def _flat(points: np.ndarray) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in np.atleast_2d(points)]


def _placed(outline: np.ndarray, centre_m: np.ndarray, heading_rad: float) -> np.ndarray:
    cos, sin = np.cos(heading_rad), np.sin(heading_rad)
    return centre_m + outline @ np.array([[cos, sin], [-sin, cos]])


def _box(centre_m: np.ndarray, heading_rad: float, length: float, width: float, corner: float) -> np.ndarray:
    """Outline of a box with round corners."""
    corner = min(corner, width / 4)
    angle = np.linspace(0, np.pi / 2, 4)
    arc = corner * np.stack([np.cos(angle), np.sin(angle)], -1) + [length / 2 - corner, width / 2 - corner]
    right = arc[::-1] * [1, -1]
    return _placed(np.concatenate([arc, arc[::-1] * [-1, 1], -arc, right]), centre_m, heading_rad)


def _dashes(lines: list[np.ndarray], dash_m: float = _DASH_M, period_m: float = _PERIOD_M) -> np.ndarray:
    """Dashes along lines, `(dash, 2, 2)`."""
    dashes = [np.empty((0, 2, 2))]
    for line in lines:
        along = np.concatenate([[0.0], np.linalg.norm(np.diff(line, axis=0), axis=1).cumsum()])
        starts = np.arange(0.0, along[-1], period_m)
        ends = np.minimum(starts + dash_m, along[-1])
        at = np.stack([starts, ends], -1)
        dashes.append(np.stack([np.interp(at, along, line[:, axis]) for axis in (0, 1)], -1))
    return np.concatenate(dashes)
