"""Claims about corrupted futures and how they are told from recorded ones."""

from __future__ import annotations

import json
import math

import pytest
import torch
from traffic_scenes import platoon_store

from drivecast.scripts.tools.energy_table import main
from drivecast.worldmodel.evaluation.auroc import auroc
from drivecast.worldmodel.evaluation.corruptions import CORRUPTIONS
from drivecast.worldmodel.forecaster.model import MODEL_KIND, WorldModel, WorldModelConfig
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.storage.checkpoint import save_model

KINDS = {corruption.name: corruption for corruption in CORRUPTIONS}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> WindowStore:
    return platoon_store(tmp_path_factory.mktemp("platoons") / "store")


@pytest.fixture(scope="module")
def window(store):
    """Windows of every car at one moment."""
    rows = store.rows("test", 21, 30)
    rows = rows[store.frame_of(rows) == store.frame_of(rows)[0]]
    return store.window(store.frame_of(rows), 21, 30, 16, rows)


def test_the_area_under_the_curve_is_that_of_pairs_counted_by_hand():
    low, high = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0])
    # 2 is above 1, equal to 2, below 3; 4 is above all
    assert auroc(low, high) == pytest.approx((1 + 0.5 + 0 + 3) / 6)
    assert auroc(high, low) == pytest.approx(1 - (1 + 0.5 + 0 + 3) / 6)
    assert auroc(low, low) == 0.5
    assert math.isnan(auroc(low, low[:0]))


def moved(window, name: str):
    """Offsets of agent 0 from what it did, along its heading and to the left; and who has such a future."""
    future, applies = KINDS[name].apply(window, 0.1)
    torch.testing.assert_close(future.position_m[:, :, 1:], window.future.position_m[:, :, 1:], rtol=0, atol=0)
    offset = future.position_m[:, :, 0] - window.future.position_m[:, :, 0]
    assert bool(torch.isfinite(future.position_m).all())
    return offset, applies


def test_shifted_and_scaled_futures_are_late_and_slow(window):
    late, applies = moved(window, "time-shifted")
    assert bool(applies.all())
    torch.testing.assert_close(late[:, 9, 0], (window.present.position_m - window.future.position_m[:, 9])[:, 0, 0])
    slow, _ = moved(window, "slower x0.7")
    gone = window.future.position_m[:, :, 0] - window.present.position_m[:, :1]
    torch.testing.assert_close(slow, -0.3 * gone, rtol=1e-3, atol=1e-3)


def test_an_overlapping_future_ends_where_the_leader_does_and_a_first_car_has_none(window):
    _, applies = moved(window, "overlapping")
    future, _ = KINDS["overlapping"].apply(window, 0.1)
    assert bool(applies.any())
    assert not bool(applies.all())
    nearest = (future.position_m[:, -1, 1:] - future.position_m[:, -1, :1]).norm(dim=-1).amin(-1)
    assert bool((nearest[applies] < 1e-3).all())
    assert bool((nearest[~applies] > 3).all())


def test_a_drifting_future_leaves_the_road_on_the_nearer_side(window):
    offset, _ = moved(window, "off-road")
    lane_y = window.present.position_m[:, 0, 1]
    assert bool((offset[lane_y > -1, -1, 1] > 8.9).all()), "the leftmost lane is left to the left"
    assert bool((offset[lane_y < -7, -1, 1] < -8.9).all())
    future, _ = KINDS["off-road"].apply(window, 0.1)
    assert bool((window.road.off_road_m(future.position_m[:, -1, :1]) > 0).all())


def test_a_teleported_vehicle_jumps_five_metres_half_way(window):
    offset, _ = moved(window, "teleport")
    assert bool((offset[:, :15].abs() < 1e-6).all())
    torch.testing.assert_close(offset[:, 15:, 0], torch.full((len(offset), 15), 5.0), rtol=1e-3, atol=1e-3)


def test_only_who_braked_behind_a_leader_that_braked_can_have_not_answered(store):
    rows = store.rows("all", 21, 30)[::7]
    window = store.window(store.frame_of(rows), 21, 30, 16, rows)
    future, applies = KINDS["no answer to braking"].apply(window, 0.1)
    assert bool(applies.any())
    lost = window.present.speed_mps[applies, 0] - window.future.speed_mps[applies, :, 0].amin(1)
    assert bool((lost > 0.5).all())
    steady = window.present.speed_mps[applies, :1].expand(-1, 30)
    torch.testing.assert_close(future.speed_mps[applies, :, 0], steady, rtol=1e-3, atol=1e-3)


def test_the_tool_writes_and_prints_a_table(store, tmp_path, capsys):
    torch.manual_seed(0)
    model = WorldModel(WorldModelConfig(hidden=16, latent_dims=2))
    save_model(tmp_path / "m.safetensors", model, MODEL_KIND, model.config)
    arguments = ["--model", str(tmp_path / "m.safetensors"), "--data", str(store.directory), "--split", "test"]
    main([*arguments, "--vehicles", "4", "--horizons", "1", "3", "--output", str(tmp_path / "table.json")])
    table = json.loads((tmp_path / "table.json").read_text())
    assert table["horizons_s"] == [1, 3]
    assert set(table["corruptions"]) == set(KINDS)
    # an untrained model goes straight on, as platoons nearly do: whoever jumps or drifts away is told from them
    assert table["corruptions"]["teleport"]["auroc"] == [1.0, 1.0]
    assert table["corruptions"]["off-road"]["paired"] == [1.0, 1.0]
    printed = capsys.readouterr().out
    assert "off-road *" in printed
    assert "1.000 / 1.000 (4, 4)" in printed
