"""The batched vector environment gives what gymnasium's own vector environment of highway-env gives."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import drivecast.envs.registration
from drivecast.envs.batched.vector_env import BatchedHighwayVectorEnv
from drivecast.envs.highway.simulator import mended_class
from drivecast.worldmodel.errors import InputError

EVERYTHING = ["presence", "x", "y", "vx", "vy", "cos_h", "sin_h", "cos_d", "sin_d"]
OF_CARS = ["heading", "long_off", "lat_off", "ang_off"]
SMALL = {"vehicles_count": 8, "duration": 8}  # quick for highway-env


def both(
    environment: str, episodes: int, config: dict[str, Any] | None = None, mode: AutoresetMode = AutoresetMode.NEXT_STEP
) -> tuple[SyncVectorEnv, BatchedHighwayVectorEnv]:
    config = config or {}
    theirs = SyncVectorEnv([lambda: mended_class(environment)(config=config)] * episodes, autoreset_mode=mode)
    return theirs, BatchedHighwayVectorEnv(episodes, environment, config, autoreset_mode=mode)


def assert_same_infos(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    for name in ("speed", "crashed", "_speed", "_crashed"):
        np.testing.assert_allclose(ours[name].astype(float), theirs[name].astype(float), atol=1e-6, err_msg=name)


def run_both(
    theirs: SyncVectorEnv,
    ours: BatchedHighwayVectorEnv,
    steps: int,
    seed: int = 0,
    actions: Any = None,
    atol: float = 1e-6,
) -> tuple[int, int]:
    """Compare every step; returns how many episodes were terminated and truncated."""
    random = np.random.default_rng(seed)
    (seen, theirs_infos), (got, ours_infos) = theirs.reset(seed=seed), ours.reset(seed=seed)
    np.testing.assert_allclose(got, seen, atol=1e-6)
    assert_same_infos(theirs_infos, ours_infos)
    terminations = truncations = 0
    for step in range(steps):
        action = actions(random, ours.num_envs) if actions else random.integers(5, size=ours.num_envs)
        expected, given = theirs.step(action), ours.step(action)
        for name, wanted, value in zip(
            ("observation", "reward", "terminated", "truncated"), expected, given, strict=False
        ):
            assert value.dtype == wanted.dtype, name
            np.testing.assert_allclose(
                value.astype(float), wanted.astype(float), atol=atol, err_msg=f"{name}, step {step}"
            )
        assert_same_infos(expected[4], given[4])
        assert ("final_obs" in expected[4]) == ("final_obs" in given[4])
        if "final_obs" in expected[4]:
            np.testing.assert_array_equal(given[4]["_final_obs"], expected[4]["_final_obs"])
            for number in np.flatnonzero(expected[4]["_final_obs"]):
                np.testing.assert_allclose(given[4]["final_obs"][number], expected[4]["final_obs"][number], atol=1e-6)
            assert_same_infos(expected[4]["final_info"], given[4]["final_info"])
        terminations, truncations = terminations + int(given[2].sum()), truncations + int(given[3].sum())
    return terminations, truncations


def mild_controls(random: np.random.Generator, episodes: int) -> np.ndarray:
    return np.stack([random.uniform(-1, 1, episodes), random.uniform(-0.05, 0.05, episodes)], 1)


@pytest.mark.parametrize(
    ("environment", "episodes", "config"),
    [
        ("highway-v0", 10, {"vehicles_count": 8, "duration": 12, "simulation_frequency": 5}),
        ("highway-fast-v0", 10, {"vehicles_count": 10}),
        ("merge-v1", 10, {"simulation_frequency": 5}),
        ("merge-generic-v1", 2, {"simulation_frequency": 5, "vehicles_count": 6}),
    ],
)
def test_observations_rewards_and_ends_are_those_of_highway_env_over_autoresets(environment, episodes, config):
    theirs, ours = both(environment, episodes, config)
    terminations, truncations = run_both(theirs, ours, steps=30)
    assert terminations + truncations >= episodes // 2, "no episode ended; the comparison says nothing on autoresets"
    assert theirs.single_observation_space == ours.single_observation_space
    assert theirs.single_action_space == ours.single_action_space
    assert theirs.observation_space == ours.observation_space
    assert theirs.action_space == ours.action_space


def test_episodes_that_end_begin_within_the_same_step_where_asked():
    ends = run_both(*both("highway-fast-v0", 6, SMALL, AutoresetMode.SAME_STEP), steps=18, seed=5)
    assert sum(ends) >= 6


@pytest.mark.parametrize("environment", ["highway-fast-v0", "merge-v1"])
def test_continuous_controls_are_compared_too(environment):
    config = {"action": {"type": "ContinuousAction"}, "duration": 8, "offroad_terminal": True, "policy_frequency": 5}
    config.update(simulation_frequency=5, vehicles_count=8)
    run_both(*both(environment, 4, config), steps=30, seed=3, actions=mild_controls)


def test_float32_controls_are_close():
    """From float32 controls highway-env computes the ego's speed and heading in float32, here they stay float64."""
    config = {**SMALL, "action": {"type": "ContinuousAction"}, "policy_frequency": 5}
    run_both(
        *both("highway-fast-v0", 3, config),
        steps=20,
        actions=lambda random, n: mild_controls(random, n).astype(np.float32),
        atol=1e-5,
    )


def test_ends_at_different_times_leave_the_other_episodes_alone():
    """Some episodes crash early: while they begin anew, the others must go on exactly."""
    config = {**SMALL, "vehicles_density": 2.0, "duration": 15}
    terminations, _ = run_both(
        *both("highway-fast-v0", 6, config), steps=20, seed=11, actions=lambda random, n: random.choice([0, 2, 3], n)
    )
    assert terminations >= 4


@pytest.mark.parametrize(
    ("environment", "observation"),
    [
        ("highway-fast-v0", {"features": EVERYTHING + OF_CARS, "vehicles_count": 9, "see_behind": True}),
        ("highway-fast-v0", {"absolute": True, "normalize": False, "vehicles_count": 30}),
        ("highway-fast-v0", {"features_range": {"x": [-50, 50], "vx": [-20, 30]}, "clip": False}),
        ("highway-fast-v0", {"features_range": {"x": [-50, 50], "y": [-4, 8]}, "absolute": True}),
        ("merge-v1", {"features": EVERYTHING, "vehicles_count": 7, "see_behind": True}),
        ("merge-v1", {"features": EVERYTHING + OF_CARS, "vehicles_count": 7, "include_obstacles": False}),
    ],
)
def test_options_of_the_observation_are_highway_env_s(environment, observation):
    config = {"observation": {"type": "Kinematics", **observation}, **SMALL, "simulation_frequency": 5}
    run_both(*both(environment, 3, config), steps=12, seed=2)


def test_merge_s_obstacle_is_seen_by_a_car_that_comes_near():
    config = {"observation": {"type": "Kinematics", "vehicles_count": 7, "normalize": False, "absolute": True}}
    ours = BatchedHighwayVectorEnv(1, "merge-v1", config)
    observations, _ = ours.reset(seed=0)
    standing = []
    for _ in range(8):
        standing.append(bool(((observations[0, 1:, 0] == 1) & (observations[0, 1:, 3] == 0)).any()))
        observations = ours.step(np.array([1]))[0]
    assert not standing[0]
    assert any(standing)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": {"observation": {"type": "OccupancyGrid"}}}, "observation type: expected 'Kinematics'"),
        ({"config": {"observation": {"type": "Kinematics", "order": "shuffled"}}}, "observation order: expected 'sor"),
        ({"config": {"observation": {"type": "Kinematics", "features": ["x", "z"]}}}, "got z"),
        (
            {"config": {"observation": {"type": "Kinematics", "vehicles_count": 1}}},
            "vehicles_count: expected 2",
        ),
        ({"config": {"observation": {"type": "Kinematics", "flat": True}}}, "got flat"),
        (
            {"config": {"observation": {"type": "Kinematics", "features_range": {"x": [3]}}}},
            "features_range x: exp",
        ),
        ({"config": {"action": {"type": "DiscreteMetaAction", "lateral": False}}}, "action lateral: expected True"),
        ({"config": {"action": {"type": "ContinuousAction", "dynamical": True}}}, "action dynamical: expected False"),
        ({"autoreset_mode": "sometimes"}, "autoreset_mode: expected one of"),
        ({"num_envs": 0}, "num_envs: expected 1 or more"),
        ({"render_mode": "human"}, "render with highway-env"),
        (
            {"environment": "merge-v1", "config": {"observation": {"type": "Kinematics", "features": ["heading"]}}},
            "set include_obstacles to False",
        ),
    ],
)
def test_what_is_not_supported_is_refused_with_one_line(changes, message):
    with pytest.raises(InputError, match=message) as refusal:
        BatchedHighwayVectorEnv(**{"num_envs": 2, "environment": "highway-v0", **changes})
    assert "\n" not in str(refusal.value)


def test_actions_and_options_that_do_not_fit_are_refused_with_one_line():
    ours = BatchedHighwayVectorEnv(2, "highway-fast-v0", SMALL)
    with pytest.raises(InputError, match="call reset"):
        ours.step(np.array([1, 1]))
    with pytest.raises(InputError, match="first reset"):
        ours.reset(options={"reset_mask": np.array([True, False])})
    ours.reset(seed=0)
    for actions in (np.array([1, 5]), np.array([1, -1]), np.array([1]), np.array([0.5, 1.0])):
        with pytest.raises(InputError, match="actions: expected"):
            ours.step(actions)
    with pytest.raises(InputError, match="expected one for each of 2"):
        ours.reset(seed=[1, 2, 3])
    with pytest.raises(InputError, match="give config to the constructor"):
        ours.reset(options={"config": {"lanes_count": 2}})
    with pytest.raises(InputError, match="reset_mask of 2 bools"):
        ours.reset(options={"reset_mask": np.array([1, 0])})
    driven = BatchedHighwayVectorEnv(1, "highway-fast-v0", {"action": {"type": "ContinuousAction"}})
    driven.reset(seed=0)
    with pytest.raises(InputError, match="finite numbers"):
        driven.step(np.array([[np.nan, 0.0]]))


def test_without_autoreset_a_mask_says_which_episodes_begin_anew():
    theirs, ours = both("highway-fast-v0", 3, SMALL, AutoresetMode.DISABLED)
    np.testing.assert_allclose(ours.reset(seed=[7, 1, 3])[0], theirs.reset(seed=[7, 1, 3])[0], atol=1e-6)
    for _ in range(7):
        np.testing.assert_allclose(ours.step(np.ones(3, int))[0], theirs.step(np.ones(3, int))[0], atol=1e-6)
    mask = np.array([False, True, True])
    expected, expected_infos = theirs.reset(seed=[0, 9, None], options={"reset_mask": mask.copy()})
    given, infos = ours.reset(seed=[0, 9, None], options={"reset_mask": mask})
    np.testing.assert_allclose(given, expected, atol=1e-6)
    assert_same_infos(expected_infos, infos)
    assert ours.np_random_seed[1] == theirs.np_random_seed[1] == 9
    ours.step(np.ones(3, int))  # the first one is over now
    with pytest.raises(InputError, match="environment 0 has ended"):
        ours.step(np.ones(3, int))


def test_a_reset_without_a_seed_goes_on_with_the_generators():
    theirs, ours = both("highway-fast-v0", 2, SMALL)
    for seed in (4, None, None):
        np.testing.assert_allclose(ours.reset(seed=seed)[0], theirs.reset(seed=seed)[0], atol=1e-6)


@pytest.mark.parametrize("name", drivecast.envs.registration.BATCHED)
def test_gymnasium_makes_them_by_name(name):
    environments = gymnasium.make_vec(f"drivecast/{name}", num_envs=2, config={"simulation_frequency": 5})
    assert isinstance(environments, BatchedHighwayVectorEnv)
    assert environments.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    observations, _ = environments.reset(seed=0)
    assert environments.observation_space.contains(observations)
    assert environments.step(environments.action_space.sample())[0].shape == (2, 5, 5)
    environments.close()


def test_gymnasium_makes_a_single_one_of_highway_env_s_own():
    environment = gymnasium.make("drivecast/highway-fast-v0", config=SMALL)
    ours = BatchedHighwayVectorEnv(1, "highway-fast-v0", SMALL)
    np.testing.assert_allclose(environment.reset(seed=3)[0], ours.reset(seed=3)[0][0], atol=1e-6)


def test_a_limit_of_steps_truncates():
    environments = gymnasium.make_vec("drivecast/merge-v0", num_envs=2, max_episode_steps=3)
    environments.reset(seed=0)
    truncated = [environments.step(np.array([1, 1]))[3].all() for _ in range(8)]
    assert truncated == [False, False, True, False, False, False, True, False]


def test_float32_stays_close():
    ours = BatchedHighwayVectorEnv(2, "highway-fast-v0", SMALL)
    fast = BatchedHighwayVectorEnv(2, "highway-fast-v0", SMALL, dtype=torch.float32)
    np.testing.assert_allclose(fast.reset(seed=0)[0], ours.reset(seed=0)[0], atol=1e-5)
    for _ in range(4):
        np.testing.assert_allclose(fast.step(np.array([1, 3]))[0], ours.step(np.array([1, 3]))[0], atol=1e-4)


class TestStableBaselines:
    @pytest.fixture(autouse=True)
    def _installed(self):
        pytest.importorskip("stable_baselines3", reason="stable-baselines3 is not installed (extra: baselines)")

    def test_gives_what_its_own_vector_environment_gives(self):
        from stable_baselines3.common.vec_env import DummyVecEnv

        from drivecast.envs.batched.stable_baselines import BatchedHighwayVecEnv

        theirs = DummyVecEnv([lambda: mended_class("highway-fast-v0")(config=SMALL)] * 5)
        ours = BatchedHighwayVecEnv.make(5, "highway-fast-v0", SMALL)
        random = np.random.default_rng(0)
        theirs.seed(3)
        ours.seed(3)
        np.testing.assert_allclose(ours.reset(), theirs.reset(), atol=1e-6)
        ends: list[bool] = []
        for _ in range(20):
            actions = random.integers(5, size=5)
            expected, given = theirs.step(actions), ours.step(actions)
            for wanted, value in zip(expected[:3], given[:3], strict=True):
                assert value.dtype == wanted.dtype
                np.testing.assert_allclose(value.astype(float), wanted.astype(float), atol=1e-6)
            for wanted_info, info in zip(expected[3], given[3], strict=True):
                assert info["TimeLimit.truncated"] == wanted_info["TimeLimit.truncated"]
                assert info["speed"] == pytest.approx(wanted_info["speed"])
                assert info["crashed"] == wanted_info["crashed"]
                assert ("terminal_observation" in info) == ("terminal_observation" in wanted_info)
                if "terminal_observation" in info:
                    np.testing.assert_allclose(
                        info["terminal_observation"], wanted_info["terminal_observation"], atol=1e-6
                    )
                    ends.append(info["TimeLimit.truncated"])
        assert True in ends
        assert False in ends

    def test_ppo_learns_in_it(self):
        from stable_baselines3 import PPO
        from stable_baselines3.common.vec_env import VecMonitor

        from drivecast.envs.batched.stable_baselines import BatchedHighwayVecEnv

        environments = VecMonitor(BatchedHighwayVecEnv.make(8, "highway-fast-v0", SMALL))
        policy = PPO("MlpPolicy", environments, n_steps=32, batch_size=64, n_epochs=2, seed=0, device="cpu")
        before = [weights.detach().clone() for weights in policy.policy.parameters()]
        policy.learn(512)
        assert policy.num_timesteps == 512
        assert len(policy.ep_info_buffer) > 0
        after = list(policy.policy.parameters())
        assert all(bool(torch.isfinite(weights).all()) for weights in after)
        assert any(bool((a != b).any()) for a, b in zip(after, before, strict=True))

    def test_another_autoreset_mode_is_refused_with_one_line(self):
        from drivecast.envs.batched.stable_baselines import BatchedHighwayVecEnv

        with pytest.raises(InputError, match="expected SameStep, got NextStep"):
            BatchedHighwayVecEnv(BatchedHighwayVectorEnv(1, "highway-fast-v0", SMALL))
