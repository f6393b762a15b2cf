"""Recorded traffic in gymnasium."""

from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from recorded_scenes import Track, straight_store

import drivecast.envs.registration
from drivecast.envs.recorded.gym import NEIGHBOURS, OTHER, OWN
from drivecast.worldmodel.errors import InputError


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    tracks = [Track(x_m=20 + 40 * i, speed_mps=10, lane=i % 2, last=80) for i in range(5)]
    return straight_store(tmp_path_factory.mktemp("store") / "data", tracks)


@pytest.fixture
def environment(store):
    return gymnasium.make(drivecast.envs.registration.RECORDED, data=str(store), split="test")


def test_gymnasium_checker_passes_without_a_warning(environment):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(environment.unwrapped, skip_render_check=True)


def test_observation_shows_the_leader_ahead(environment):
    seen, info = environment.reset(options={"vehicle": 0})
    assert set(info) >= {"recording", "vehicle_id"}
    assert seen.shape == (len(OWN) + NEIGHBOURS * len(OTHER),)
    assert seen[0] == pytest.approx(10 / 30)
    others = seen[len(OWN) :].reshape(NEIGHBOURS, len(OTHER))
    assert others[:, 0].sum() == 4
    assert (others[4:] == 0).all()
    here = others[others[:, 0] > 0]
    in_lane = here[np.abs(here[:, 2]) < 0.01]
    assert np.abs(in_lane[:, 1] * 50).min() == pytest.approx(80)
    assert np.abs(here[:, 2] * 50).max() == pytest.approx(4)  # and the next lane


def test_completing_the_task_earns_one(environment):
    environment.reset(seed=1)
    total, ended = 0.0, False
    while not ended:
        _, reward, terminated, truncated, info = environment.step(np.zeros(2, np.float32))
        total += reward
        ended = terminated or truncated
    assert info["outcome"] == "completed"
    assert total == pytest.approx(1.0, abs=1e-4)


def test_leaving_the_road_ends_with_a_loss(environment):
    environment.reset(seed=1)
    for _ in range(100):
        _, reward, terminated, _, info = environment.step(np.array([0.0, 1.0], np.float32))
        if terminated:
            break
    assert info["outcome"] == "off_road"
    assert reward < -0.9


def test_vectors_of_environments_can_be_made(store):
    environments = gymnasium.make_vec(drivecast.envs.registration.RECORDED, num_envs=2, data=str(store), split="test")
    seen, _ = environments.reset(seed=0)
    assert seen.shape[0] == 2
    environments.step(environments.action_space.sample())
    environments.close()


def test_missing_data_is_told_in_one_line():
    with pytest.raises(InputError, match="data: RecordedTraffic needs a recording store"):
        gymnasium.make(drivecast.envs.registration.RECORDED)


@pytest.mark.parametrize("wrong", [[np.nan, 0.0], [0.0, np.inf], [0.0], [[0.0, 0.0]]])
def test_an_action_of_anything_but_two_finite_numbers_is_refused_and_leaves_no_trace(environment, wrong):
    environment = environment.unwrapped
    environment.reset(seed=1)
    with pytest.raises(InputError, match="action: expected"):
        environment.step(np.array(wrong))
    seen, reward, *_ = environment.step(np.zeros(2, np.float32))
    assert np.isfinite(seen).all()
    assert np.isfinite(reward)
