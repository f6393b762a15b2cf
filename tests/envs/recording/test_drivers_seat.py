"""Recorded egos that a driver drives."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from drivecast.envs.drivers import ConstantVelocityDriver, IDMConfig, IDMDriver
from drivecast.envs.recording.batched_episodes import begin_part
from drivecast.envs.recording.cast import DRIVEN, RecordingPlan
from drivecast.envs.recording.drivers_seat import DriversSeat
from drivecast.envs.recording.recorded_episode import EGO_ID
from drivecast.envs.recording.recorder import record_episodes
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.traffic import Controls

PLAN = RecordingPlan(
    "highway-v0",
    seed=3,
    duration_s=6.0,
    vehicles=(8, 12),
    lanes=(3, 3),
    density=(0.8, 1.2),
    speed_scale=(0.8, 1.2),
    desired_speed_mps=(15.0, 32.0),
    behaviour=DRIVEN,
)


class Bound(ConstantVelocityDriver):
    """Says that it steers for lane 1, and goes straight on."""

    chosen_lane = torch.ones(4, dtype=torch.long)


class Broken(ConstantVelocityDriver):
    def act(self, history, road, goal) -> Controls:
        return super().act(history, road, goal).map(lambda values: values + torch.nan)


def ego(episode, column: str) -> np.ndarray:
    return episode.tracks[column][episode.tracks["vehicle_id"] == EGO_ID]


def test_it_drives_where_another_ego_would_have_behaved() -> None:
    driven = list(record_episodes(PLAN, 4, "batched", make_driver=ConstantVelocityDriver))
    others = list(record_episodes(replace(PLAN, behaviour="idm-any-speed"), 4, "batched"))
    assert [episode.behaviour for episode in driven] == [DRIVEN] * 4
    for one, other in zip(driven, others, strict=True):
        for name in ("x_m", "y_m", "speed_mps"):
            first = one.tracks["time_s"] == 0.0
            assert np.array_equal(one.tracks[name][first], other.tracks[name][other.tracks["time_s"] == 0.0])
        assert np.ptp(ego(one, "speed_mps")) < 1e-4
        assert np.abs(one.controls).max() < 1e-4
    assert any(np.ptp(ego(episode, "speed_mps")) > 1.0 for episode in others)


def test_it_is_asked_for_the_speed_that_was_drawn() -> None:
    plan = replace(PLAN, desired_speed_mps=(12.0, 12.0), duration_s=10.0)
    for episode in record_episodes(plan, 3, "batched", make_driver=partial(IDMDriver, IDMConfig())):
        assert ego(episode, "speed_mps")[-1] == pytest.approx(12.0, abs=1.5)


def test_others_see_the_lane_that_it_steers_for() -> None:
    part = begin_part(PLAN, range(4))
    scene, controls = DriversSeat(part.simulator, Bound(), part.scene).drive(part.scene)
    assert part.simulator.lanes.names[int(scene.target_lane[0, 0])][2] == 1
    assert bool((scene.target_lane[:, 0] == scene.target_lane[0, 0]).all())
    assert torch.equal(scene.target_lane[:, 1:], part.scene.target_lane[:, 1:])
    assert controls.acceleration_mps2.shape == (4,)


@pytest.mark.parametrize(
    ("plan", "simulator", "driver", "message"),
    [
        (PLAN, "batched", Broken, "not finite at step 0"),
        (PLAN, "batched", None, "give --driver NAME"),
        (replace(PLAN, behaviour="idm"), "batched", ConstantVelocityDriver, "theirs alone"),
        (PLAN, "highway-env", ConstantVelocityDriver, "batched simulator alone"),
    ],
)
def test_what_cannot_be_is_refused(plan, simulator, driver, message) -> None:
    with pytest.raises(InputError, match=message):
        list(record_episodes(plan, 2, simulator, make_driver=driver))
