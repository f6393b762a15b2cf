"""One vehicle's raw samples made a smooth track at 10 Hz: cut, interpolate, smooth, derive."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.interpolate import CubicHermiteSpline

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.recordings.recording import DT_S

SMOOTHING_DEGREE = 3  # of the local polynomial
HEADING_FROM_MPS = 2.0  # slower than this the direction of motion is noise, and the heading is held
MAX_CREEP_ANGLE_RAD = 0.5  # a freeway vehicle's heading never differs more from the road's


@dataclass(frozen=True)
class ResamplingConfig:
    """How raw samples become tracks at 10 Hz.

    Args:
        smoothing_s: Length in seconds of the window of the cubic Savitzky-Golay filter over positions; 0: none.
        max_gap_s: A vehicle unseen for longer than this many seconds becomes another track.
        max_jump_m: So many metres away from where its speed takes it, a vehicle is another one.
        min_track_s: Tracks shorter than this many seconds are dropped.
    """

    smoothing_s: float = 1.5
    max_gap_s: float = 1.0
    max_jump_m: float = 4.0
    min_track_s: float = 1.0

    def __post_init__(self) -> None:
        for name in ("smoothing_s", "min_track_s"):
            if getattr(self, name) < 0:
                raise InputError(f"resampling.{name}: expected seconds >= 0, got {getattr(self, name)}")
        for name in ("max_gap_s", "max_jump_m"):
            if getattr(self, name) <= 0:
                raise InputError(f"resampling.{name}: expected a value > 0, got {getattr(self, name)}")


@dataclass(frozen=True)
class SmoothTrack:
    """A track at 10 Hz, arrays `(time,)`."""

    time_s: np.ndarray
    x_m: np.ndarray
    y_m: np.ndarray
    heading_rad: np.ndarray
    speed_mps: np.ndarray
    accel_mps2: np.ndarray


def cuts(
    time_s: np.ndarray,
    x_m: np.ndarray,
    y_m: np.ndarray,
    speed_mps: np.ndarray,
    length_m: np.ndarray,
    config: ResamplingConfig,
) -> tuple[np.ndarray, np.ndarray]:
    """Where samples, sorted by time, go on as another vehicle: by a gap in time, or by a jump in place or length.

    A jump is a step that differs by more than `max_jump_m` from what the mean of the recorded speeds gives (for steps
    over half a second by as much more as a change of 5 m/s explains), by more than 2.5 m sideways, or by 1 m in length.

    Returns:
        `(gap, jump)`, each bool `(n,)`: whether a new track begins at the sample.
    """
    step = np.diff(time_s)
    expected = (speed_mps[1:] + speed_mps[:-1]) / 2 * step
    allowed = np.maximum(config.max_jump_m, 5.0 * step)
    jump = np.abs(np.diff(x_m) - expected) > allowed
    jump |= np.abs(np.diff(y_m)) > np.maximum(2.5, 5.0 * step)
    jump |= np.abs(np.diff(length_m)) > 1.0
    gap = step > config.max_gap_s + 1e-6
    first = np.zeros(1, bool)
    return np.concatenate([first, gap]), np.concatenate([first, jump & ~gap])


def resample(
    time_s: np.ndarray,
    x_m: np.ndarray,
    y_m: np.ndarray,
    speed_mps: np.ndarray | None = None,
    smoothing_s: float = 1.5,
) -> SmoothTrack | None:
    """Resample one vehicle's samples to the moments that are multiples of 0.1 s, smooth them and derive the rest.

    1. Interpolation: cubic Hermite. The slope of x at a sample is the recorded speed where given (exact where the
       samples are sparse), otherwise, and for y, the central difference.
    2. Smoothing: Savitzky-Golay, a cubic fitted by least squares to each window of `smoothing_s` seconds (at the ends
       to the first and last window). Any motion that is a cubic in time passes unchanged.
       Source: Savitzky and Golay 1964, Analytical Chemistry 36(8).
    3. Velocity and acceleration are the derivatives of the same cubics; speed is the velocity's norm, acceleration its
       part along the heading. The heading is the velocity's direction, held below 2 m/s.

    Args:
        time_s: strictly increasing, `(n,)`.
        x_m, y_m: positions, `(n,)`.
        speed_mps: recorded speeds along x, or None.
        smoothing_s: length of the window in seconds.

    Returns:
        The track, or None when fewer than three moments lie within the samples.
    """
    first, last = np.ceil(time_s[0] / DT_S - 1e-6), np.floor(time_s[-1] / DT_S + 1e-6)
    if last - first < 2 or len(time_s) < 2:
        return None
    time = np.arange(first, last + 1) * DT_S
    within = time.clip(time_s[0], time_s[-1])
    dense = np.median(np.diff(time_s)) < 1.5 * DT_S
    # at 10 Hz the recorded speed adds nothing but its own errors
    slope_x = _slope(time_s, x_m) if speed_mps is None or dense else speed_mps
    x = CubicHermiteSpline(time_s, x_m, slope_x)(within)
    y = CubicHermiteSpline(time_s, y_m, _slope(time_s, y_m))(within)
    return _derive(time, x, y, smoothing_s)


def _derive(time: np.ndarray, x: np.ndarray, y: np.ndarray, smoothing_s: float) -> SmoothTrack:
    count = len(time)
    # the widest odd window up to smoothing_s that the track holds; without smoothing the smallest that has a curvature
    frames = max(5, round(smoothing_s / DT_S) // 2 * 2 + 1)
    frames = min(frames, count if count % 2 else count - 1)
    operators = _local_polynomial(frames, min(SMOOTHING_DEGREE, frames - 1))

    def fitted(values: np.ndarray, derivative: int) -> np.ndarray:
        operator, half = operators[derivative], frames // 2
        inside = np.correlate(values, operator[half], "valid")
        return np.concatenate([operator[:half] @ values[:frames], inside, operator[half + 1 :] @ values[-frames:]])

    velocity_x, velocity_y = fitted(x, 1), fitted(y, 1)
    acceleration_x, acceleration_y = fitted(x, 2), fitted(y, 2)
    if smoothing_s > 0:
        x, y = fitted(x, 0), fitted(y, 0)
    speed = np.hypot(velocity_x, velocity_y)
    heading = _heading(velocity_x, velocity_y, speed)
    # a standing vehicle does not roll back by the noise of its position
    along = velocity_x * np.cos(heading) + velocity_y * np.sin(heading)
    acceleration = acceleration_x * np.cos(heading) + acceleration_y * np.sin(heading)
    return SmoothTrack(time, x, y, heading, np.maximum(along, 0.0), acceleration)


@lru_cache(maxsize=64)
def _local_polynomial(frames: int, degree: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matrices that fit a polynomial to a window of `frames` values and give it, its slope and its curvature there.

    The same as `scipy.signal.savgol_filter(..., mode="interp")`, whose fits at the ends take most of an ingest's time.
    """
    time = (np.arange(frames) - frames // 2) * DT_S
    powers = np.vander(time, degree + 1, increasing=True)
    fit = np.linalg.pinv(powers)  # (degree + 1, frames)
    order = np.arange(degree + 1)
    slope = np.concatenate([np.zeros((frames, 1)), (powers * (order + 1))[:, :-1]], 1)
    curvature = np.concatenate([np.zeros((frames, 2)), (powers * (order + 1) * (order + 2))[:, :-2]], 1)[
        :, : degree + 1
    ]
    return powers @ fit, slope @ fit, curvature @ fit


def _heading(velocity_x: np.ndarray, velocity_y: np.ndarray, speed: np.ndarray) -> np.ndarray:
    moving = speed >= HEADING_FROM_MPS
    if not moving.any():
        direction = np.arctan2(velocity_y.mean(), velocity_x.mean()) if speed.max() > 0.1 else 0.0
        return np.full(len(speed), np.clip(direction, -MAX_CREEP_ANGLE_RAD, MAX_CREEP_ANGLE_RAD))
    index = np.arange(len(speed))
    known = np.unwrap(np.arctan2(velocity_y[moving], velocity_x[moving]))
    return np.interp(index, index[moving], known)


def _slope(time: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.gradient(values, time) if len(time) > 2 else np.full(len(time), np.diff(values)[0] / np.diff(time)[0])
