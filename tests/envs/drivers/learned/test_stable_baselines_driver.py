"""Stable-Baselines3's models as drivers see and do what highway-env would have them see and do."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from drivecast.envs.batched.observation import KinematicsConfig
from drivecast.envs.drivers.learned.card import BaselineCard
from drivecast.envs.drivers.learned.continuous_actions import ContinuousActions
from drivecast.envs.drivers.learned.driver import StableBaselinesDriver, load_baseline, untrained_policy
from drivecast.envs.drivers.learned.meta_actions import MetaActions
from drivecast.envs.drivers.learned.observation import HighwayObservation
from drivecast.envs.drivers.learned.settings import TQCSettings
from drivecast.envs.highway.road import road_of, through_lanes
from drivecast.envs.highway.simulator import mended_class, read_state, road_users
from drivecast.envs.recorded.traffic import RecordedTraffic
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.rules.steering import lane_keeping_steering
from drivecast.worldmodel.scene.kinematics import MAX_STEERING_RAD
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import Goal, TrafficState

NAMES = ("LANE_LEFT", "IDLE", "LANE_RIGHT", "FASTER", "SLOWER")
ENVIRONMENTS = ("highway-fast-v0", "highway-v0", "merge-v1")
FEW = {"vehicles_count": 15}
CONTINUOUS = TQCSettings().highway_config()


def scene_of(simulator: Any) -> TrafficState:
    """highway-env's scene in ours, in float64."""
    state = torch.from_numpy(read_state(road_users(simulator)))[None]
    valid = torch.ones(state.shape[:2], dtype=torch.bool)
    return TrafficState(state[..., :2], state[..., 2], state[..., 3], state[..., 4], state[..., 5], valid)


def road_in(simulator: Any) -> Road:
    return road_of(through_lanes(simulator.road.network)).map(lambda t: t.double() if t.is_floating_point() else t)


def goal(batch: int = 1) -> Goal:
    return Goal(torch.full((batch,), 30.0), torch.full((batch,), NO_LANE))


def history(scene: TrafficState) -> TrafficState:
    return TrafficState.stack([scene], 1)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("seen_of", [{"type": "Kinematics"}, CONTINUOUS["observation"]], ids=["default", "tqc"])
def test_observations_equal_highway_env_on_the_same_scenes(environment, seen_of):
    traffic = FEW if environment.startswith("highway") else {}
    simulator = mended_class(environment)(config={**traffic, "observation": seen_of})
    compared = 0
    for seed in range(4):
        random = np.random.default_rng(seed)
        seen, _ = simulator.reset(seed=seed)
        observation, road = HighwayObservation(KinematicsConfig.of(seen_of)), road_in(simulator)
        observation.start(scene_of(simulator), road)
        for _ in range(8):
            ours = observation.observe(scene_of(simulator), road)[0]
            np.testing.assert_allclose(ours.numpy(), seen, atol=1e-5)
            assert seen[1:, 0].any()  # somebody is seen
            compared += 1
            seen, _, terminated, truncated, _ = simulator.step(int(random.integers(5)))
            if terminated or truncated:
                break
    assert compared > 20


def test_an_empty_road_is_seen_as_zeros():
    simulator = mended_class("highway-v0")(config={"vehicles_count": 0})
    seen, _ = simulator.reset(seed=0)
    observation, scene, road = HighwayObservation(), scene_of(simulator), road_in(simulator)
    observation.start(scene, road)
    np.testing.assert_allclose(observation.observe(scene, road)[0].numpy(), seen, atol=1e-5)
    assert not observation.observe(scene, road)[0, 1:].any()


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_controls_equal_those_of_highway_envs_meta_actions(environment):
    """The same scenes frame by frame, many a meta-action before the last one is carried out."""
    simulator = mended_class(environment)(config=FEW if environment.startswith("highway") else {})
    lane_changes = speed_changes = compared = 0
    for seed in range(4):
        random = np.random.default_rng(seed)
        simulator.reset(seed=seed)
        ego, road = simulator.vehicle, road_in(simulator)
        lanes = through_lanes(simulator.road.network)
        meta = MetaActions()
        meta.start(scene_of(simulator), road)
        for frame in range(60):
            scene = scene_of(simulator)
            if frame % 3 == 0:  # before the last one is done with
                action = int(random.integers(5))
                before = ego.target_lane_index, ego.target_speed
                ego.act(NAMES[action])
                meta.choose(scene, road, torch.tensor([action]))
                lane_changes += before[0] != ego.target_lane_index
                speed_changes += before[1] != ego.target_speed
            simulator.road.act()
            controls = meta.controls(scene, road)
            assert ego.target_lane_index in lanes[int(meta.lane)].segments
            assert float(controls.acceleration_mps2) == pytest.approx(ego.action["acceleration"], abs=1e-5)
            # the wheels of our cars turn less far
            steering = np.clip(ego.action["steering"], -MAX_STEERING_RAD, MAX_STEERING_RAD)
            assert float(controls.steering_rad) == pytest.approx(-steering, abs=1e-5)
            compared += 1
            simulator.road.step(0.1)
            if ego.crashed:
                break
    assert lane_changes > 3
    assert speed_changes > 3
    assert compared > 100


def test_controls_equal_those_of_highway_envs_continuous_actions():
    simulator = mended_class("highway-v0")(config={"action": CONTINUOUS["action"]})
    simulator.reset(seed=0)
    actions, road = ContinuousActions(CONTINUOUS["action"]), road_in(simulator)
    actions.start(scene_of(simulator), road)
    for chosen in ([0.5, -1.0], [-1.0, 0.25], [1.0, 1.0], [0.1, 0.0]):
        simulator.action_type.act(np.array(chosen))
        actions.choose(scene_of(simulator), road, torch.tensor([chosen]))
        controls = actions.controls(scene_of(simulator), road)
        theirs = simulator.vehicle.action
        assert float(controls.acceleration_mps2) == pytest.approx(theirs["acceleration"], abs=1e-6)
        assert float(controls.steering_rad) == pytest.approx(-theirs["steering"], abs=1e-6)


class Recorder:
    """Plays a policy: keeps what it was shown, answers from a list."""

    def __init__(self, *actions: int) -> None:
        self.actions, self.shown = list(actions), []

    def predict(self, seen: np.ndarray, deterministic: bool = False) -> tuple[np.ndarray, None]:
        assert deterministic
        self.shown.append(seen)
        return np.full(len(seen), self.actions[(len(self.shown) - 1) % len(self.actions)]), None


def card(**values: Any) -> BaselineCard:
    return BaselineCard("dqn", "highway-fast-v0", **{"net_arch": (8, 8), **values})


def test_one_model_call_a_second_for_the_whole_batch():
    policy = Recorder(3)
    driver = StableBaselinesDriver(policy, card(), dt_s=0.1)
    state = torch.tensor([[[0.0, 0.0], [30.0, 0.0]]]).expand(6, -1, -1)
    flat = torch.zeros(6, 2)
    scene = TrafficState(state, flat, flat + 25, flat + 5, flat + 2, torch.ones(6, 2).bool())
    road = Road.straight(3, batch=6)
    driver.reset(scene, road, goal(6))
    for _ in range(21):
        controls = driver.act(history(scene), road, goal(6))
    assert [seen.shape for seen in policy.shown] == [(6, 5, 5)] * 3
    assert controls.acceleration_mps2.tolist() == pytest.approx([5 / 0.6] * 6)


def test_lane_changes_of_a_batch_are_each_its_own():
    meta = MetaActions()
    position = torch.tensor([[[0.0, 0.0]], [[0.0, -4.0]], [[0.0, -8.0]]])
    flat = torch.zeros(3, 1)
    scene = TrafficState(position, flat, flat + 25, flat + 5, flat + 2, torch.ones(3, 1).bool())
    road = Road.straight(3, batch=3)
    meta.start(scene, road)
    meta.choose(scene, road, torch.tensor([0, 0, 2]))  # left of the leftmost and right of the rightmost: stay
    assert meta.lane.tolist() == [0, 0, 2]
    expected = lane_keeping_steering(scene[:, 0], road, meta.lane)
    assert torch.equal(meta.controls(scene, road).steering_rad, expected)
    assert meta.controls(scene, road).steering_rad[1] > 0


def test_it_drives_recorded_traffic(platoons):
    """Any road with lanes will do: nearest lanes, the axis of the leftmost one."""
    traffic = RecordedTraffic.open((platoons,), "test")
    driver = StableBaselinesDriver(Recorder(1, 0, 3), card(), dt_s=traffic.dt_s)
    start = traffic.reset([0, 1, 2])
    state = start.history[:, -1]
    driver.reset(state, start.road, start.goal)
    for _ in range(25):
        controls = driver.act(history(state), start.road, start.goal)
        assert torch.isfinite(controls.acceleration_mps2).all()
        assert torch.isfinite(controls.steering_rad).all()
        state = traffic.step(controls).state
    assert len(driver.policy.shown) == 3
    assert np.abs(np.stack(driver.policy.shown)).max() <= 1.0


@pytest.fixture(scope="module")
def platoons(tmp_path_factory) -> Path:
    from traffic_scenes import platoon_store

    folder = tmp_path_factory.mktemp("platoons") / "store"
    platoon_store(folder)
    return folder


def saved(folder: Path, algorithm: str = "dqn") -> Path:
    """An untrained model as Stable-Baselines3 itself saves it, and its card."""
    sb3 = pytest.importorskip("stable_baselines3", reason="needs the extra 'baselines'")
    from drivecast.envs.batched.stable_baselines import BatchedHighwayVecEnv

    contrib = pytest.importorskip("sb3_contrib", reason="needs the extra 'baselines'")
    make = {"ppo": sb3.PPO, "dqn": sb3.DQN, "tqc": contrib.TQC}[algorithm]
    own = {name: CONTINUOUS[name] for name in ("observation", "action")} if algorithm == "tqc" else {}
    environments = BatchedHighwayVecEnv.make(1, "highway-v0", own)
    model = make("MlpPolicy", environments, policy_kwargs={"net_arch": [8, 8]}, seed=3)
    model.save(folder / "model.zip")
    BaselineCard(algorithm, "highway-v0", (8, 8), **own).write(folder / "model.zip")
    return folder / "model.zip"


@pytest.mark.parametrize("algorithm", ["ppo", "dqn", "tqc"])
def test_a_loaded_model_answers_as_stable_baselines_does(tmp_path, algorithm):
    import sb3_contrib
    import stable_baselines3

    path = saved(tmp_path, algorithm)
    theirs = {"ppo": stable_baselines3.PPO, "dqn": stable_baselines3.DQN, "tqc": sb3_contrib.TQC}[algorithm].load(path)
    ours = load_baseline(tmp_path, algorithm).policy
    shape = theirs.observation_space.shape
    seen = np.random.default_rng(0).uniform(-1, 1, (64, *shape)).astype(np.float32)
    answers = theirs.predict(seen, deterministic=True)[0]
    np.testing.assert_array_equal(ours.predict(seen, deterministic=True)[0], answers)
    assert len(np.unique(answers)) > 1


def test_what_is_not_known_of_a_model_is_refused_with_one_line(tmp_path):
    path = saved(tmp_path)
    written = json.loads(path.with_suffix(".json").read_text())

    def refused(match: str, **changes: Any) -> None:
        path.with_suffix(".json").write_text(json.dumps({**written, **changes}))
        with pytest.raises(InputError, match=match) as caught:
            load_baseline(path, "dqn")
        assert "\n" not in str(caught.value)

    refused("is a ppo model", algorithm="ppo")
    refused("expected highway-env's Kinematics", observation={"type": "OccupancyGrid"})
    refused("expected highway-env's Kinematics", observation={"type": "Kinematics", "absolute": True})
    refused("features: expected some of presence", observation={"type": "Kinematics", "features": ["x", "long_off"]})
    refused("expected ContinuousAction with acceleration_range", action={"type": "ContinuousAction"})
    refused("expected DiscreteMetaAction of dqn", action=CONTINUOUS["action"])
    refused("expected highway-env's default DiscreteMetaAction", action={"type": "DiscreteAction"})
    refused("weights do not fit the network", net_arch=[16, 8])
    refused("nothing but", colour="red")
    path.with_suffix(".json").write_text("{")
    with pytest.raises(InputError, match="not readable as JSON"):
        load_baseline(path, "dqn")
    path.with_suffix(".json").unlink()
    with pytest.raises(InputError, match=r"what model\.zip observes is not known"):
        load_baseline(path, "dqn")


def test_a_missing_or_foreign_file_is_refused_with_one_line(tmp_path):
    with pytest.raises(InputError, match="expected a model of Stable-Baselines3, found nothing"):
        load_baseline(tmp_path / "nothing.zip", "ppo")
    card().write(tmp_path / "model.zip")
    (tmp_path / "model.zip").write_bytes(b"no zip")
    with pytest.raises(InputError, match="not a model of Stable-Baselines3"):
        load_baseline(tmp_path, "dqn")
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr("data", "{}")
    with pytest.raises(InputError, match="not a model of Stable-Baselines3"):
        load_baseline(tmp_path, "dqn")


def test_without_stable_baselines_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "stable_baselines3.common.policies", None)
    with pytest.raises(InputError, match=r"install it by `pip install 'drivecast\[baselines\]'`"):
        untrained_policy(card())
