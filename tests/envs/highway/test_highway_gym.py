"""The registered highway-env environments."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from drivecast.envs.registration import BATCHED, HIGHWAY, RECORDED, RENAMED
from drivecast.worldmodel.errors import InputError


@pytest.mark.parametrize("name", HIGHWAY)
def test_gymnasium_checker_passes(name):
    environment = gymnasium.make(name)
    assert environment.action_space.shape == (2,)
    check_env(environment.unwrapped, skip_render_check=True)
    environment.close()


@pytest.mark.parametrize("name", HIGHWAY)
def test_a_rendered_frame_is_not_black(name):
    environment = gymnasium.make(name, render_mode="rgb_array")
    environment.reset(seed=0)
    frame = environment.render()
    environment.close()
    assert frame.ndim == 3
    assert frame.max() > 100
    assert len(np.unique(frame.reshape(-1, 3), axis=0)) > 3  # road, markings, cars


def test_a_full_episode_of_random_actions_never_fails_and_ends():
    environment = gymnasium.make("drivecast/MergeControl-v1")
    environment.reset(seed=3)
    environment.action_space.seed(3)
    for _ in range(300):
        _, reward, terminated, truncated, info = environment.step(environment.action_space.sample())
        assert np.isfinite(reward)
        assert isinstance(info["rewards"]["lane_change_reward"], bool)
        if terminated or truncated:
            break
    else:
        pytest.fail("300 steps of 0.1 s went by without an end")
    environment.close()


def test_a_lane_change_by_steering_costs_the_lane_change_reward():
    environment = gymnasium.make("drivecast/MergeControl-v1").unwrapped
    environment.reset(seed=0)
    for other in environment.road.vehicles[1:]:
        other.position[0] += 5000
    costs = [environment.step(np.array([0.0, -0.03]))[4]["rewards"]["lane_change_reward"] for _ in range(20)]
    assert environment.vehicle.lane_index[2] == 0
    assert sum(costs) == 1
    environment.close()


@pytest.mark.parametrize("name", [*HIGHWAY, "drivecast/merge-v1"])
@pytest.mark.parametrize("wrong", [[np.nan, 0.0], [0.0, -np.inf]])
def test_an_action_that_is_not_finite_is_refused(name, wrong):
    config = {} if name in HIGHWAY else {"config": {"action": {"type": "ContinuousAction"}}}
    environment = gymnasium.make(name, disable_env_checker=True, **config)
    environment.reset(seed=0)
    with pytest.raises(InputError, match="action: expected finite numbers"):
        environment.step(np.array(wrong))
    observation = environment.step(np.zeros(2))[0]  # and nothing of it stays
    assert np.isfinite(observation).all()
    environment.close()


def test_no_two_names_differ_by_the_case_of_letters_alone():
    names = [*HIGHWAY, *(f"drivecast/{name}" for name in BATCHED), RECORDED]
    assert len({name.lower() for name in names}) == len(names)


@pytest.mark.parametrize(("earlier", "name"), RENAMED.items())
def test_an_earlier_name_warns_and_makes_the_same_environment(earlier, name):
    with pytest.warns(DeprecationWarning, match=f"{earlier} is now called {name}"):
        before = gymnasium.make(earlier)
    now = gymnasium.make(name)
    assert (before.spec.max_episode_steps, before.action_space) == (now.spec.max_episode_steps, now.action_space)
    assert before.unwrapped.config == now.unwrapped.config
    np.testing.assert_array_equal(before.reset(seed=4)[0], now.reset(seed=4)[0])
    for environment in (before, now):
        environment.close()
