"""Behaviour cloning: what it imitates, in which units, and that it drives without a world model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from traffic_scenes import history_of, platoon_recording, platoon_store, scene

from drivecast.planner.policy.cloning import (
    CAREFUL,
    CloningConfig,
    CloningTrainer,
    DecisionSampler,
)
from drivecast.planner.policy.driver import ReactiveDriver, load_driver
from drivecast.planner.policy.network import PolicyConfig
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.recordings.store_writer import write_store
from drivecast.worldmodel.scene.driver import ImaginingDriver
from drivecast.worldmodel.scene.kinematics import bicycle_step, lateral_acceleration
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import Goal

SHORT = CloningConfig(steps=6, batch=16, validate_every=3, validation_decisions=32, checkpoint_every=3)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return platoon_store(tmp_path_factory.mktemp("platoons") / "store")


def trainer(store: WindowStore, output: Path, config: CloningConfig = SHORT) -> CloningTrainer:
    return CloningTrainer(PolicyConfig(hidden=32), config, [store], output)


def drive(driver: ReactiveDriver, *vehicles: tuple[float, float, float], wish_mps: float = 22.0) -> float:
    goal = Goal(torch.tensor([wish_mps]), torch.tensor([NO_LANE]))
    controls = driver.act(history_of(scene(*vehicles), 2), Road.straight(3), goal)
    assert abs(float(controls.steering_rad)) < 0.02
    return float(controls.acceleration_mps2)


def test_the_clone_brakes_where_the_recorded_drivers_brake(store, tmp_path):
    config = replace(SHORT, steps=300, batch=128, validate_every=100, checkpoint_every=300, learning_rate=5e-3)
    logged = {}
    driver = load_driver(trainer(store, tmp_path, config).train(lambda step, values: logged.update(values)))
    assert logged["val/acceleration_unexplained"] < 0.5
    closing = drive(driver, (0, -4, 20), (17, -4, 15))
    opening = drive(driver, (0, -4, 18), (30, -4, 20))
    assert closing < -0.3
    assert opening > closing + 0.5


def test_a_clone_drives_without_a_world_model_and_imagines_nothing(store, tmp_path):
    driver = load_driver(trainer(store, tmp_path).train(lambda step, values: None))
    assert type(driver) is ReactiveDriver
    assert not isinstance(driver, ImaginingDriver)
    assert driver.energy.config.weights.proximity > 0  # drives can be scored


def test_resume_is_bit_exact(store, tmp_path):
    whole = trainer(store, tmp_path / "whole")
    whole.train(lambda step, values: None)

    class StoppedError(Exception):
        pass

    def stop_at_five(step, _values):
        if step == 5:
            raise StoppedError

    with pytest.raises(StoppedError):
        trainer(store, tmp_path / "halves").train(lambda step, values: None, stop_at_five)
    second = trainer(store, tmp_path / "halves")
    assert second.resume() == 3
    second.train(lambda step, values: None)
    for name, weights in whole.network.state_dict().items():
        assert torch.equal(weights, second.network.state_dict()[name]), name


def test_decisions_are_the_controls_that_bring_the_next_recorded_scene(store):
    policy = PolicyConfig(max_acceleration_mps2=20.0, max_braking_mps2=20.0)
    sampler = DecisionSampler([store], "train", policy, CAREFUL)
    (drawn,) = sampler.draw(200, torch.Generator().manual_seed(0))
    speed = drawn.scene.speed_mps[:, 0]
    rows = sampler.windows.rows[0]
    recorded = store.window(store.frame_of(rows), 2, 1, 1, rows)
    change = (recorded.future.speed_mps[:, 0, 0] - recorded.history.speed_mps[:, -1, 0]) / store.dt_s
    assert drawn.forward_mps2.min() >= change.min() - 1e-4
    assert drawn.forward_mps2.max() <= change.max() + 1e-4
    assert drawn.forward_mps2.std() > 0.3
    assert (drawn.goal.desired_speed_mps >= speed - 1e-5).all()
    assert (drawn.goal.lane == NO_LANE).all()
    assert drawn.lateral_mps2.abs().max() < 1e-3  # they drive straight


def test_lateral_acceleration_is_that_of_the_bicycle():
    speed, length, steering = torch.tensor([20.0]), torch.tensor([5.0]), torch.tensor([0.02])
    _, heading, _ = bicycle_step(torch.zeros(1, 2), torch.zeros(1), speed, length, torch.zeros(1), steering, 0.1)
    assert float(lateral_acceleration(steering, speed, length)) == pytest.approx(float(heading * speed / 0.1), rel=1e-5)


def simulated_store(folder: Path) -> WindowStore:
    """Three recordings whose ego is vehicle 1; one of the egos drives badly on purpose."""
    about = {"platoon-0": "idm", "platoon-1": "noise", "platoon-2": "idm-any-speed"}
    recordings = [
        replace(platoon_recording(name, seed), metadata={"behaviour": behaviour})
        for seed, (name, behaviour) in enumerate(about.items())
    ]
    write_store(folder, iter(recordings), {"train": list(about), "val": [], "test": []})
    rows = [(name, 1, 0.1 * step, 0.0, 0.0) for name in about for step in range(5)]
    columns = ["recording", "vehicle_id", "time_s", "acceleration_mps2", "steering_rad"]
    pd.DataFrame(rows, columns=columns).to_parquet(folder / "drives.parquet")
    return WindowStore.open(folder)


def test_egos_that_drive_badly_on_purpose_are_not_imitated(tmp_path):
    store = simulated_store(tmp_path / "store")

    def imitated(behaviours: tuple[str, ...]) -> set[tuple[int, int]]:
        rows = DecisionSampler([store], "train", PolicyConfig(), behaviours).windows.rows[0]
        return set(zip(store.recording_of(rows).tolist(), store.vehicle_id(rows).tolist(), strict=True))

    everyone = imitated((*CAREFUL, "noise"))
    assert everyone - imitated(CAREFUL) == {(1, 1)}
    assert everyone - imitated(()) == {(0, 1), (1, 1), (2, 1)}


def test_top_speed_is_that_of_the_whole_track(store):
    tracks = pd.read_parquet(store.directory / "tracks.parquet")
    rows = store.rows("all", 1, 0)
    top = tracks.groupby(["recording", "vehicle_id"])["speed_mps"].max()
    names = np.array(store.recordings)[store.recording_of(rows).numpy()]
    expected = [top[name, vehicle] for name, vehicle in zip(names, store.vehicle_id(rows).tolist(), strict=True)]
    np.testing.assert_allclose(store.top_speed_mps[rows].numpy(), expected, rtol=1e-5)


def test_another_time_step_is_refused_with_one_line(store, tmp_path):
    with pytest.raises(InputError, match=r"at 0\.1 s per step, the policy at 0\.2 s"):
        CloningTrainer(PolicyConfig(dt_s=0.2), SHORT, [store], tmp_path)
