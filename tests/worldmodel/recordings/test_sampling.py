"""What is done to windows before they are learned from."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from traffic_scenes import platoon_store

from drivecast.worldmodel.forecaster.model import WorldModelConfig
from drivecast.worldmodel.recordings.lane import Lane
from drivecast.worldmodel.recordings.recording import Recording
from drivecast.worldmodel.recordings.sampling import (
    WindowRequest,
    WindowSampler,
    eventful_rows,
    scaled,
    scaled_road,
)
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.recordings.store_writer import write_store
from drivecast.worldmodel.scene.neighbours import find_neighbours
from drivecast.worldmodel.training.trainer import WorldModelTrainer, WorldModelTrainingConfig


def test_a_scaled_world_has_the_same_times_and_shares(tmp_path: Path):
    store = platoon_store(tmp_path)
    (window,) = WindowSampler([store], "train", WindowRequest(3, 10, 16)).draw(6, torch.Generator().manual_seed(0))
    window.history.position_m[..., 1] += 0.5  # off the lane's centre
    factor = torch.tensor([0.5, 0.8, 1.0, 1.2, 1.5, 2.0])
    road, history = scaled_road(window.road, factor), scaled(window.history, factor)
    plain, larger = window.history[:, -1], history[:, -1]
    on_plain, on_larger = window.road.project(plain.position_m), road.project(larger.position_m)
    assert torch.equal(on_plain.lane, on_larger.lane)
    share, larger_share = on_plain.across_m / on_plain.width_m, on_larger.across_m / on_larger.width_m
    torch.testing.assert_close(larger_share, share, atol=1e-4, rtol=1e-4)

    leader, larger_leader = find_neighbours(plain, on_plain), find_neighbours(larger, on_larger)
    both = leader.present[..., 0] & larger_leader.present[..., 0]
    assert both.any()
    headway_s = leader.gap_m[..., 0] / plain.speed_mps
    torch.testing.assert_close(
        (larger_leader.gap_m[..., 0] / larger.speed_mps)[both], headway_s[both], atol=1e-3, rtol=1e-3
    )
    # what moves straight on arrives where the scaled one does
    step_m = history.position_m[:, -1] - history.position_m[:, -2]
    there = history.valid[:, -2] & history.valid[:, -1]
    torch.testing.assert_close(step_m[there], (0.1 * larger.velocity_mps)[there], atol=0.05, rtol=0.05)


def test_training_in_scaled_worlds_learns_something_else(tmp_path: Path):
    store = platoon_store(tmp_path / "store")
    weights = []
    for name, scale in (("plain", 0.0), ("scaled", 0.5), ("again", 0.5)):
        config = WorldModelTrainingConfig(steps=2, batch=4, horizon_steps=10, scale=scale)
        trainer = WorldModelTrainer(WorldModelConfig(hidden=8), config, [store], tmp_path / name)
        trainer.train(lambda *_: None)
        weights.append(torch.cat([each.detach().flatten() for each in trainer.network.parameters()]))
    assert torch.isfinite(torch.stack(weights)).all()
    assert not torch.equal(weights[0], weights[1])
    assert torch.equal(weights[1], weights[2])


def some_do_what_few_do(folder: Path) -> WindowStore:
    """Twenty recordings of one car at 20 m/s: in the first it brakes from 2 s on, in the second it moves 3 m aside."""
    time = 0.1 * np.arange(80)
    late = np.clip(time - 2.0, 0.0, None)
    recordings = []
    for number in range(20):
        braking = 4.0 * late * (number == 0)
        speed = (20.0 - braking).clip(0.0)
        x = 20.0 * time - 0.5 * braking.clip(0.0, 20.0) * late
        y = 3.0 * np.clip(late / 3.0, 0.0, 1.0) * (number == 1)
        columns = {"time_s": time, "x_m": x, "y_m": y, "speed_mps": speed, "accel_mps2": 0.0, "heading_rad": 0.0}
        table = pd.DataFrame(
            {"vehicle_id": 1, **columns, "length_m": 5.0, "width_m": 2.0, "class": "car", "lane_id": 1}
        )
        lane = Lane(1, np.array([[0.0, 0.0], [1000.0, 0.0]]), np.array([4.0, 4.0]))
        recordings.append(Recording(f"r{number:02d}", table, (lane,)))
    splits = {"train": [each.name for each in recordings], "val": [], "test": []}
    write_store(folder, iter(recordings), splits=splits)
    return WindowStore.open(folder)


def test_eventful_windows_are_those_of_who_brakes_or_changes_lane(tmp_path: Path):
    store = some_do_what_few_do(tmp_path / "store")
    rows = store.rows("all", 1, 30)
    names = [store.recordings[number] for number in store.recording_of(eventful_rows(store, rows, 30)).tolist()]
    most = round(0.05 * len(rows))
    assert len(names) == 3 * most
    assert set(names[:most]) == {"r00"}
    assert set(names[most : 2 * most]) == {"r01"}


def test_how_far_off_constant_velocity_a_vehicle_comes(tmp_path: Path):
    store = some_do_what_few_do(tmp_path / "store")
    first, second = store.rows("all", 1, 30).view(20, 50)[:2, 20]  # when they begin
    along, left = store.off_constant_velocity_m(torch.stack([first, second]), 30)
    torch.testing.assert_close(along, torch.tensor([-18.0, 0.0]), atol=1e-3, rtol=0)
    torch.testing.assert_close(left, torch.tensor([0.0, 3.0]), atol=1e-3, rtol=0)


def test_who_is_faster_than_those_around_it_is_eventful(tmp_path: Path):
    store = platoon_store(tmp_path / "store")
    rows = store.rows("train", 1, 10)
    faster = store.faster_than_others_mps(rows)
    found = eventful_rows(store, rows, 10)[-max(round(0.05 * len(rows)), 1) :]
    assert faster[torch.isin(rows, found)].min() >= faster[~torch.isin(rows, found)].max() - 1e-5
    frame = store.frame_of(rows[:1])
    window = store.window(frame, 1, 1, 99)
    speeds = window.present.speed_mps[window.present.valid]
    expected = store.window(frame, 1, 1, 99, rows[:1]).present.speed_mps[0, 0] - speeds.mean()
    torch.testing.assert_close(faster[0], expected, atol=1e-4, rtol=1e-4)


def test_so_many_windows_are_eventful_as_is_asked_and_their_egos_are_known(tmp_path: Path):
    store = some_do_what_few_do(tmp_path / "store")
    sampler = WindowSampler([store, store], "all", WindowRequest(3, 30, 4), eventful_share=0.25)
    drawn = sampler.draw_marked(40, torch.Generator().manual_seed(0))
    assert sum(len(marks) for *_, marks in drawn) == 40
    assert sum(int(marks.sum()) for *_, marks in drawn) == 10
    for _, window, marks in drawn:
        names = {store.recordings[number] for number in window.recording[marks].tolist()}
        assert len(names & {"r00", "r01"}) > 0
    without = WindowSampler([store], "all", WindowRequest(3, 30, 4))
    assert not torch.cat([marks for *_, marks in without.draw_marked(40, torch.Generator().manual_seed(0))]).any()
