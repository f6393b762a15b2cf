"""Claims about resampling and cutting of raw tracks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import savgol_filter

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.recordings.resampling import ResamplingConfig, cuts, resample


@given(
    speed=st.floats(3.0, 40.0),
    drift=st.floats(-1.0, 1.0),
    period_s=st.sampled_from([0.04, 0.1, 0.2, 0.5]),
    phase_s=st.floats(0.0, 0.4),
    samples=st.integers(4, 40),
    recorded=st.booleans(),
    smoothing_s=st.sampled_from([0.0, 0.5, 1.5]),
)
@settings(max_examples=150, deadline=None)
def test_constant_velocity_is_reproduced_exactly(
    speed: float, drift: float, period_s: float, phase_s: float, samples: int, recorded: bool, smoothing_s: float
) -> None:
    time = phase_s + period_s * np.arange(samples)
    given_speed = np.full(samples, speed) if recorded else None
    track = resample(time, 7.0 + speed * time, -3.0 + drift * time, given_speed, smoothing_s)
    if time[-1] - time[0] < 0.3:
        return
    assert track is not None
    assert np.allclose(track.time_s / 0.1, np.rint(track.time_s / 0.1))
    assert track.time_s[0] >= time[0] - 1e-6
    assert track.time_s[-1] <= time[-1] + 1e-6
    assert np.allclose(track.x_m, 7.0 + speed * track.time_s, atol=1e-6)
    assert np.allclose(track.y_m, -3.0 + drift * track.time_s, atol=1e-6)
    assert np.allclose(track.speed_mps, np.hypot(speed, drift), atol=1e-4)
    assert np.allclose(track.heading_rad, np.arctan2(drift, speed), atol=1e-5)
    assert np.allclose(track.accel_mps2, 0.0, atol=1e-2)


@given(st.floats(-3.0, 3.0), st.floats(12.0, 30.0))
@settings(max_examples=50, deadline=None)
def test_constant_acceleration_at_2_hz_is_reproduced_with_recorded_speeds(acceleration: float, speed: float) -> None:
    time = np.arange(9) * 0.5
    x = speed * time + acceleration * time**2 / 2
    track = resample(time, x, np.zeros(9), speed + acceleration * time)
    assert track is not None
    expected = speed * track.time_s + acceleration * track.time_s**2 / 2
    moving = speed + acceleration * track.time_s > 0.5
    assert np.allclose(track.x_m[moving], expected[moving], atol=1e-6)
    assert np.allclose(track.speed_mps[moving], (speed + acceleration * track.time_s)[moving], atol=1e-6)
    assert np.allclose(track.accel_mps2, acceleration, atol=1e-6)


def test_smoothing_removes_most_of_the_noise_and_keeps_a_lane_change() -> None:
    generator = np.random.default_rng(0)
    time = np.arange(0, 20, 0.1)
    y = 3.6 / (1 + np.exp(-(time - 10) * 1.5))
    noisy_x, noisy_y = 20 * time + generator.normal(0, 0.2, 200), y + generator.normal(0, 0.1, 200)
    track = resample(time, noisy_x, noisy_y)
    assert track is not None
    assert np.abs(track.x_m - 20 * time).std() < 0.1
    assert np.abs(track.y_m - y).max() < 0.25
    assert np.abs(track.speed_mps - 20).std() < 0.6
    raw = np.gradient(noisy_x, 0.1)
    assert np.abs(track.speed_mps - 20).std() < 0.5 * np.abs(raw - 20).std()


@pytest.mark.parametrize("frames", [15, 16, 4, 3])
def test_smoothing_is_the_savitzky_golay_filter_of_scipy(frames: int) -> None:
    generator = np.random.default_rng(1)
    time = np.arange(frames if frames < 15 else 60) * 0.1
    x, y = 15 * time + generator.normal(0, 0.1, len(time)), generator.normal(0, 0.1, len(time))
    track = resample(time, x, y, smoothing_s=frames * 0.1)
    assert track is not None
    window = min({15: 15, 16: 17}.get(frames, 5), len(time) - 1 + len(time) % 2)
    expected = savgol_filter(x, window, min(3, window - 1), mode="interp")
    assert np.allclose(track.x_m, expected, atol=1e-9)


def test_standing_vehicle_has_no_speed_and_a_steady_heading() -> None:
    time = np.arange(0, 10, 0.1)
    noise = np.random.default_rng(0).normal(0, 0.01, (2, 100))
    track = resample(time, 5 + noise[0], noise[1])
    assert track is not None
    assert track.speed_mps.max() < 0.2
    assert np.ptp(track.heading_rad) < 0.1


def test_too_few_samples_make_no_track() -> None:
    assert resample(np.array([0.02, 0.07]), np.zeros(2), np.zeros(2)) is None
    assert resample(np.array([0.0, 0.1]), np.zeros(2), np.zeros(2)) is None
    assert resample(np.array([0.0]), np.zeros(1), np.zeros(1)) is None


def test_gap_jump_and_other_length_begin_another_track() -> None:
    time = np.array([0.0, 0.1, 0.2, 2.0, 2.1, 2.2, 2.3, 2.4])
    x = np.array([0.0, 1.0, 2.0, 20.0, 21.0, 60.0, 61.0, 62.0])
    length = np.array([4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 12.0])
    gap, jump = cuts(time, x, np.zeros(8), np.full(8, 10.0), length, ResamplingConfig())
    assert np.flatnonzero(gap).tolist() == [3]
    assert np.flatnonzero(jump).tolist() == [5, 7]


def test_hard_braking_at_2_hz_is_no_jump() -> None:
    time = np.arange(0, 4, 0.5)
    speed = 30 - 8 * time.clip(0, 3.5)
    x = np.concatenate([[0.0], np.cumsum((speed[1:] + speed[:-1]) / 2 * 0.5)])
    gap, jump = cuts(time, x, np.zeros(8), speed, np.full(8, 4.0), ResamplingConfig())
    assert not gap.any()
    assert not jump.any()


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(InputError, match="max_gap_s"):
        ResamplingConfig(max_gap_s=0)
    with pytest.raises(InputError, match="smoothing_s"):
        ResamplingConfig(smoothing_s=-1)
