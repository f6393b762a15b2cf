"""What is done to windows before they are learned from."""

from pathlib import Path

import torch
from traffic_scenes import platoon_store

from drivecast.worldmodel.forecaster.model import WorldModelConfig
from drivecast.worldmodel.recordings.sampling import WindowRequest, WindowSampler, scaled, scaled_road
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
