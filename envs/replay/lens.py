"""From metres to pixels: a view that travels with the ego and turns with the road."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from drivecast.envs.replay.episode import Episode
from drivecast.envs.replay.roadway import road_middle_m

EGO_AT = 0.36  # of the width: more road ahead than behind
SMOOTHED_STEPS = 15  # on each side: the view follows the road, not the steering


@dataclass(frozen=True)
class Lens:
    """One view: `pixels = anchor + scale * turn(metres - centre)`, y downwards."""

    centre_m: np.ndarray
    course_rad: float
    scale: float  # pixels per metre
    anchor: np.ndarray

    def pixels(self, metres: np.ndarray) -> np.ndarray:
        """Positions `(..., 2)` in metres to pixels."""
        cos, sin = np.cos(self.course_rad), np.sin(self.course_rad)
        offset = metres - self.centre_m
        ahead = offset[..., 0] * cos + offset[..., 1] * sin
        left = offset[..., 1] * cos - offset[..., 0] * sin
        return np.stack([self.anchor[0] + self.scale * ahead, self.anchor[1] - self.scale * left], -1)


class TravellingLens:
    """The view at each time of an episode, on a strip of `width` by `height` pixels that shows `visible_m` of road."""

    def __init__(self, episode: Episode, top: int, width: int, height: int, visible_m: float) -> None:
        self.position_m = episode.states.position_m[:, 0].double().cpu().numpy()
        heading = np.unwrap(episode.states.heading_rad[:, 0].double().cpu().numpy())
        self.middle_m = _smooth(road_middle_m(episode.road, self.position_m, heading))
        self.course_rad = _smooth(heading)
        self.top, self.width, self.height = top, width, height
        self.scale = width / visible_m

    def at(self, t: float) -> Lens:
        """The view at fractional step `t`."""
        aside = float(np.clip(_between(self.middle_m, t) * self.scale, -0.3 * self.height, 0.3 * self.height))
        return Lens(
            centre_m=_between(self.position_m, t),
            course_rad=float(_between(self.course_rad, t)),
            scale=self.scale,
            anchor=np.array([self.width * EGO_AT, self.top + self.height / 2 + aside]),
        )


def _between(values: np.ndarray, t: float) -> np.ndarray:
    before = int(t)
    after = min(before + 1, len(values) - 1)
    return values[before] + (t - before) * (values[after] - values[before])


def _smooth(values: np.ndarray) -> np.ndarray:
    window = np.ones(2 * SMOOTHED_STEPS + 1)
    return (
        np.convolve(values, window, "full")[SMOOTHED_STEPS : SMOOTHED_STEPS + len(values)]
        / np.convolve(np.ones(len(values)), window, "full")[SMOOTHED_STEPS : SMOOTHED_STEPS + len(values)]
    )
