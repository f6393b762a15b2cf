"""`drivecast train-baseline`: what it leaves, and that it drives."""

from __future__ import annotations

import json
import os
import signal
import zipfile

import numpy as np
import pytest
import torch

from drivecast.envs.batched.vector_env import BatchedHighwayVectorEnv
from drivecast.envs.drivers.idm import IDMConfig
from drivecast.envs.drivers.learned.settings import BaselineTrainingConfig, DQNSettings, PPOSettings, TQCSettings
from drivecast.envs.drivers.learned.training import TRAINING_SEED, BaselineTrainer
from drivecast.envs.evaluation.closed_loop import run_episodes
from drivecast.envs.evaluation.suites import SUITES
from drivecast.scripts.driving.drivers import (
    HighwayConfig,
    TrafficSource,
    check_driver,
    check_policy_file,
    highway_of,
    make_driver,
)
from drivecast.scripts.tracking.run import ConsoleRun
from drivecast.scripts.verbs.train_baseline import TrainBaselineConfig, run
from drivecast.worldmodel.errors import InputError

pytest.importorskip("stable_baselines3", reason="needs the extra 'baselines'")

LEARNING = BaselineTrainingConfig(
    net_arch=(16, 16),
    validation_episodes=4,
    ppo=PPOSettings(rollout=64, epochs=2),
    dqn=DQNSettings(learning_starts=16),
    tqc=TQCSettings(learning_starts=16, batch=16),
)
QUICK = {"steps": 64, "environments": 8, "vehicles": 4, "training": LEARNING}


@pytest.fixture(scope="module", params=["ppo", "dqn", "tqc"])
def trained(request, tmp_path_factory):
    output, console = tmp_path_factory.mktemp(request.param) / "model", ConsoleRun()
    run(TrainBaselineConfig(request.param, output, seed=1, **QUICK), console)
    return request.param, output, console


def weights(path):
    with zipfile.ZipFile(path) as archive, archive.open("policy.pth") as file:
        return torch.load(file, weights_only=True)


def test_it_leaves_a_model_with_what_it_was_trained_on(trained):
    algorithm, output, console = trained
    card = json.loads((output / "model.json").read_text())
    assert card["algorithm"] == algorithm
    assert card["environment"] == "highway-fast-v0"
    assert card["config"]["vehicles_count"] == 4
    assert card["policy_frequency_hz"] == (5 if algorithm == "tqc" else 1)
    assert card["action"]["type"] == ("ContinuousAction" if algorithm == "tqc" else "DiscreteMetaAction")
    assert card["seed"] == 1
    assert card["steps"] >= 64
    assert card["settings"]["gamma"] == (0.95 if algorithm == "tqc" else 0.8)
    assert (output / "training-curves.png").stat().st_size > 0
    assert console.models == [(output / "model.zip", f"baseline-{algorithm}")]
    assert any("validation/crash_share" in metrics for _, metrics in console.metrics)


@pytest.mark.parametrize("algorithm", ["ppo", "dqn", "tqc"])
def test_a_training_that_is_interrupted_leaves_what_it_has_learned(tmp_path, monkeypatch, algorithm):
    console, lines = ConsoleRun(), []
    monkeypatch.setattr(console, "say", lines.append)
    log = console.log_metrics

    def interrupt(metrics, step=None):
        log(metrics, step)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(console, "log_metrics", interrupt)
    config = TrainBaselineConfig(algorithm, tmp_path / "model", **{**QUICK, "steps": 4096})
    with pytest.raises(KeyboardInterrupt):
        run(config, console)
    assert not (tmp_path / "model" / "model.zip").exists()
    card = json.loads((tmp_path / "model" / "stopped" / "model.json").read_text())
    assert 0 < card["steps"] < 4096
    assert f"drives as {algorithm}:{tmp_path / 'model' / 'stopped'}; the same command begins anew" in lines[-1]
    check_policy_file(f"{algorithm}:{tmp_path / 'model' / 'stopped'}")


def test_it_drives_by_its_name(trained):
    algorithm, output, _ = trained
    name = f"{algorithm}:{output}"
    check_driver(name, "highway-v0")
    check_policy_file(name)
    traffic = TrafficSource("highway-fast-v0", highway=HighwayConfig(vehicles=4, duration_s=3.0)).open()
    driver = make_driver(name, IDMConfig(dt_s=traffic.dt_s))
    assert driver.name == name
    table = run_episodes(traffic, driver, [0, 1, 2]).table
    assert len(table) == 3
    if algorithm != "tqc":  # meta-actions keep to lanes, whoever chooses them
        assert (table["outcome"] != "off_road").all()


def test_it_is_trained_where_a_suite_is_driven(tmp_path):
    config = TrainBaselineConfig("ppo", tmp_path / "model", suite="highway-dense", **{**QUICK, "vehicles": 0})
    suite = TrafficSource("highway-v0", highway=highway_of(SUITES["highway-dense"])).open()
    run(config, ConsoleRun())
    card = json.loads((tmp_path / "model" / "model.json").read_text())
    assert card["environment"] == "highway-v0"
    ours = BatchedHighwayVectorEnv(1, card["environment"], card["config"]).simulator.config
    for name in ("lanes_count", "vehicles_count", "vehicles_density", "duration", "simulation_frequency"):
        assert ours[name] == suite.simulator.config[name], name
    with pytest.raises(InputError, match="leave out vehicles, lanes and density"):
        TrainBaselineConfig("ppo", tmp_path, suite="highway", lanes=3)
    with pytest.raises(InputError, match=r"suite: expected one of highway, .*; got 'recorded'"):
        TrainBaselineConfig("ppo", tmp_path, suite="recorded")


def test_a_finished_model_is_not_overwritten(trained):
    algorithm, output, _ = trained
    before = (output / "model.zip").read_bytes()
    with pytest.raises(InputError, match="is trained already"):
        run(TrainBaselineConfig(algorithm, output, **QUICK), ConsoleRun())
    assert (output / "model.zip").read_bytes() == before


def test_the_same_seed_gives_the_same_model_and_another_one_another(trained, tmp_path):
    algorithm, output, _ = trained
    run(TrainBaselineConfig(algorithm, tmp_path / "same", seed=1, **QUICK), ConsoleRun())
    run(TrainBaselineConfig(algorithm, tmp_path / "other", seed=2, **QUICK), ConsoleRun())
    first, same, other = (weights(path / "model.zip") for path in (output, tmp_path / "same", tmp_path / "other"))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_scenes_of_training_are_not_those_of_small_seeds(tmp_path):
    """Evaluations and benchmarks count their seeds from 0."""
    config = BaselineTrainingConfig(net_arch=(8,))
    model = BaselineTrainer("dqn", "highway-fast-v0", tmp_path, config, 1, 3, 5)._model()
    environments = model.env
    trained_on = environments.reset()
    assert min(environments.environments.np_random_seed) >= TRAINING_SEED
    environments.seed(5)
    assert not np.array_equal(environments.reset(), trained_on)


def test_what_cannot_be_trained_is_refused_with_one_line(tmp_path):
    with pytest.raises(InputError, match="algorithm: expected one of ppo, dqn, tqc; got 'sac'"):
        run(TrainBaselineConfig("sac", tmp_path, **QUICK), ConsoleRun())
    with pytest.raises(InputError, match="seed: expected from 0 to"):
        run(TrainBaselineConfig("dqn", tmp_path, seed=-1, **QUICK), ConsoleRun())
    with pytest.raises(InputError, match="environment: expected one of highway-v0"):
        run(TrainBaselineConfig("dqn", tmp_path, environment="racetrack-v0", **QUICK), ConsoleRun())


@pytest.mark.parametrize("name", ["idm:", "idm:fast", "idm:-3", "idm:nan", "idm:inf", "idm:0"])
def test_a_bad_desired_speed_is_refused_with_one_line(name):
    with pytest.raises(InputError, match="expected idm:SPEED with a speed above zero in m/s") as caught:
        check_driver(name, "highway-v0")
    assert "\n" not in str(caught.value)


def test_idm_with_a_speed_of_its_own_drives_at_it_whatever_is_asked():
    traffic = TrafficSource("highway-v0", highway=HighwayConfig(vehicles=1, duration_s=4.0)).open()
    speeds = {}
    for name in ("idm", "idm:22"):
        check_driver(name, "highway-v0")
        driver = make_driver(name, IDMConfig(dt_s=traffic.dt_s))
        assert driver.name == name
        speeds[name] = run_episodes(traffic, driver, [0]).table["mean_speed_mps"].item()
    assert speeds["idm"] > 25.2
    assert 22 < speeds["idm:22"] < 24.5


@pytest.mark.parametrize("name", ["policy:nowhere", "ppo:nowhere", "dqn:nowhere"])
def test_a_trained_driver_that_is_not_there_is_refused_with_one_line(name):
    with pytest.raises(InputError, match="no file or folder nowhere; train one with `drivecast train-"):
        check_policy_file(name)


def test_an_unknown_driver_is_told_what_there_is():
    with pytest.raises(InputError, match="idm:SPEED, policy:PATH, planner:PATH, sampling-planner:PATH"):
        check_driver("sac:there", "highway-v0")
