"""`drivecast clone-policy`: what it leaves, and that it drives."""

from __future__ import annotations

import pytest
from traffic_scenes import platoon_store

from drivecast.envs.drivers.idm import IDMConfig
from drivecast.envs.evaluation.closed_loop import run_episodes
from drivecast.planner.policy.cloning import CloningConfig
from drivecast.planner.policy.network import PolicyConfig
from drivecast.scripts.driving.drivers import TrafficSource, check_policy_file, make_driver, realised_score
from drivecast.scripts.tracking.run import ConsoleRun
from drivecast.scripts.verbs.clone_policy import ClonePolicyConfig, run

SHORT = CloningConfig(steps=20, batch=32, validate_every=10, validation_decisions=64, checkpoint_every=10)


@pytest.fixture(scope="module")
def cloned(tmp_path_factory):
    folder, console = tmp_path_factory.mktemp("clone"), ConsoleRun()
    platoon_store(folder / "store")
    config = ClonePolicyConfig([folder / "store"], folder / "clone", policy=PolicyConfig(hidden=16), training=SHORT)
    run(config, console)
    return config, console


def test_it_leaves_a_registered_policy_and_its_curves(cloned):
    config, console = cloned
    assert console.models == [(config.output / "policy.safetensors", "cloned-policy")]
    assert (config.output / "training-curves.png").stat().st_size > 0
    assert any("val/acceleration_error_mps2" in metrics for _, metrics in console.metrics)


def test_started_again_it_has_nothing_left_to_do(cloned):
    config, _ = cloned
    before, console = (config.output / "policy.safetensors").read_bytes(), ConsoleRun()
    run(config, console)
    assert (config.output / "policy.safetensors").read_bytes() == before
    assert not any("train/loss" in metrics for _, metrics in console.metrics)


def test_it_drives_and_is_scored_by_its_name(cloned):
    config, _ = cloned
    name = f"policy:{config.output}"
    check_policy_file(name)
    traffic = TrafficSource("recorded", tuple(config.data)).open()
    driver = make_driver(name, IDMConfig(dt_s=traffic.dt_s))
    table = run_episodes(traffic, driver, [0, 1, 2], score=realised_score(name, "cpu", traffic.dt_s)).table
    assert len(table) == 3
    assert table["cost_proximity"].notna().all()
    assert "imagined_cost" not in table
