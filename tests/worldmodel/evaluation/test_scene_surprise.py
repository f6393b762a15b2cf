"""Scenes are spoilt as said, in nothing else; and who is told apart is told apart by what was spoilt."""

from __future__ import annotations

import pytest
import torch
from recorded_scenes import Track, straight_scene
from traffic_scenes import platoon_store

from drivecast.worldmodel.energy.model_energy import ModelEnergy
from drivecast.worldmodel.evaluation.scene_corruptions import BRAKES_MPS2, JUMP_M, SCENE_CORRUPTIONS
from drivecast.worldmodel.evaluation.scene_surprise import SurpriseConfig, of_jerks, of_scene_model, scene_surprise
from drivecast.worldmodel.forecaster.model import WorldModel, WorldModelConfig
from drivecast.worldmodel.recordings.window import Window

BY_NAME = {each.name: each for each in SCENE_CORRUPTIONS}
PAST, FUTURE = 10, 30


def window() -> Window:
    """Two scenes: in the second nobody is near."""
    near = straight_scene([Track(0.0, 20.0), Track(30.0, 18.0), Track(-30.0, 22.0, lane=1)], PAST + FUTURE)
    alone = straight_scene([Track(0.0, 21.0), Track(400.0, 18.0), Track(-30.0, 22.0, lane=1)], PAST + FUTURE)
    states = type(near.states).stack([near.states, alone.states])
    nothing = torch.zeros(2, dtype=torch.long)
    road = near.road[nothing]
    return Window(states[:, :PAST], states[:, PAST:], road, nothing[:, None].expand(-1, 3), nothing, nothing)


@pytest.mark.parametrize("name", ["teleport", "phantom brake", "removed neighbour"])
def test_only_the_nearest_ahead_is_spoilt_and_only_in_the_second_half(name: str):
    given = window()
    spoilt, applies = BY_NAME[name].spoilt(given, 0.1)
    assert applies.tolist() == [True, False]
    for field in ("position_m", "speed_mps", "heading_rad", "valid"):
        before, after = getattr(given.future, field), getattr(spoilt, field)
        assert torch.equal(before[0, : FUTURE // 2], after[0, : FUTURE // 2])
        assert torch.equal(before[0, :, [0, 2]], after[0, :, [0, 2]])
    changed = [
        not torch.equal(getattr(given.future, field)[0, FUTURE // 2 :, 1], getattr(spoilt, field)[0, FUTURE // 2 :, 1])
        for field in ("position_m", "valid")
    ]
    assert any(changed)


def test_a_teleport_is_a_jump_ahead():
    given = window()
    spoilt, _ = BY_NAME["teleport"].spoilt(given, 0.1)
    moved = spoilt.position_m[0, -1, 1] - given.future.position_m[0, -1, 1]
    assert moved.tolist() == [JUMP_M, 0.0]


def test_a_phantom_brake_is_motion_under_that_braking():
    spoilt, _ = BY_NAME["phantom brake"].spoilt(window(), 0.1)
    speed, x = spoilt.speed_mps[0, :, 1], spoilt.position_m[0, :, 1, 0]
    assert speed.diff().min().item() == pytest.approx(-BRAKES_MPS2 * 0.1, abs=1e-3)
    torch.testing.assert_close(x.diff() / 0.1, speed[1:], atol=2e-2, rtol=0.0)


def test_swapped_egos_go_each_others_way_from_where_they_are():
    given = window()
    spoilt, applies = BY_NAME["swapped controls"].spoilt(given, 0.1)
    assert applies.all()
    assert torch.equal(spoilt.position_m[:, :, 1:], given.future.position_m[:, :, 1:])
    assert spoilt.speed_mps[:, 0, 0].tolist() == [21.0, 20.0]
    gone = spoilt.position_m[0, -1, 0] - given.present.position_m[0, 0]
    torch.testing.assert_close(gone, given.future.position_m[1, -1, 0] - given.present.position_m[1, 0])


def test_jumps_are_told_by_jerks_and_what_nobody_can_see_is_not(tmp_path):
    store = platoon_store(tmp_path / "store")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = WorldModel(WorldModelConfig(hidden=8, latent_dims=2)).eval().requires_grad_(False)
    energies = {
        "jerks": of_jerks(),
        "model": of_scene_model(ModelEnergy(model), 2),
        "coin": lambda given: torch.rand(len(given.frame), generator=torch.Generator().manual_seed(len(given.frame))),
    }
    config = SurpriseConfig(windows=60, horizon_s=2.0, history_s=1.0, max_agents=6, batch=30)
    table = scene_surprise(energies, store, "train", config)
    assert table["jerks"]["teleport"].auroc > 0.99
    assert table["model"]["teleport"].auroc > 0.9
    assert table["coin"]["teleport"].auroc == pytest.approx(0.5, abs=0.01)
    noticed = table["model"]["teleport"]
    assert noticed.low <= noticed.auroc <= noticed.high
    assert noticed.scenes > 20
