"""Imagined traffic in gymnasium."""

from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from imagined_scenes import flowing_tracks, write_world_model
from recorded_scenes import straight_store

from drivecast.envs.imagined.config import ImaginedTrafficConfig
from drivecast.envs.registration import IMAGINED
from drivecast.worldmodel.errors import InputError


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imagined")
    store = straight_store(folder / "data", flowing_tracks())
    return {"model": str(write_world_model(folder / "wm", 0)), "data": str(store), "split": "test"}


def test_gymnasium_checker_passes_without_a_warning(given):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(IMAGINED, **given).unwrapped, skip_render_check=True)


def test_an_episode_ends_by_its_time_and_earns_its_speed(given):
    environment = gymnasium.make(IMAGINED, **given, config=ImaginedTrafficConfig(duration_s=2.0))
    _, task = environment.reset(options={"episode": 3})
    assert set(task) == {"recording", "vehicle_id", "start_s"}
    total, steps, truncated = 0.0, 0, False
    while not truncated:
        _, reward, terminated, truncated, info = environment.step(np.zeros(2, np.float32))
        assert not terminated
        total, steps = total + reward, steps + 1
    assert (steps, info["outcome"]) == (20, "completed")
    assert total == pytest.approx(1.0, abs=1e-3)  # all drive at one speed, which is the desired one


def test_leaving_the_road_ends_with_a_loss(given):
    environment = gymnasium.make(IMAGINED, **given)
    environment.reset(seed=1)
    for _ in range(100):
        _, reward, terminated, _, info = environment.step(np.array([0.0, 1.0], np.float32))
        if terminated:
            break
    assert info["outcome"] in ("off_road", "collision")
    assert reward < -0.9


@pytest.mark.parametrize(
    ("missing", "message"), [("model", "needs a world model"), ("data", "needs a recording store")]
)
def test_what_is_missing_is_told_in_one_line(given, missing, message):
    some = {name: value for name, value in given.items() if name != missing}
    with pytest.raises(InputError, match=f"{missing}: ImaginedTraffic {message}") as error:
        gymnasium.make(IMAGINED, **some)
    assert "\n" not in str(error.value)


def test_an_action_that_is_not_two_finite_numbers_is_refused(given):
    environment = gymnasium.make(IMAGINED, **given).unwrapped
    environment.reset(seed=1)
    for wrong in ([np.nan, 0.0], [0.0]):
        with pytest.raises(InputError, match="action: expected"):
            environment.step(np.array(wrong))
