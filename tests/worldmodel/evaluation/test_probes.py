"""Linear probes find what lies open, and nothing else; what they are asked is what a scene shows."""

from __future__ import annotations

import pytest
import torch
from recorded_scenes import DT_S, Track, straight_scene
from traffic_scenes import platoon_store

from drivecast.worldmodel.evaluation.probe_table import ProbeConfig, probe_table
from drivecast.worldmodel.evaluation.probe_targets import FURTHEST_GAP_M, probe_targets, scene_quantities
from drivecast.worldmodel.evaluation.probes import ridge_probe, scored
from drivecast.worldmodel.evaluation.representations import of_encoder, of_joint_embedding, of_memory, of_raw_state
from drivecast.worldmodel.forecaster.model import WorldModel, WorldModelConfig
from drivecast.worldmodel.joint_embedding.network import JointEmbedding, JointEmbeddingConfig
from drivecast.worldmodel.recordings.window import Window


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def probed(features: torch.Tensor, target: torch.Tensor) -> float:
    parts = features[:600], features[600:800], features[800:]
    predicted, _ = ridge_probe((parts[0], parts[1], parts[2]), (target[:600], target[600:800], target[800:]))
    return scored(predicted, target[800:].double(), torch.arange(200), binary=False).score


def test_what_is_linear_is_read_and_what_is_not_there_is_not():
    features = drawn(0, 1000, 8)
    linear = features @ drawn(1, 8) + 3.0
    assert probed(features, linear) > 0.999
    assert abs(probed(features, drawn(2, 1000))) < 0.15


def test_what_is_not_linear_is_not_read():
    features = drawn(0, 1000, 4)
    assert probed(features, features[:, 0] * features[:, 1]) < 0.2


def test_units_and_constant_features_do_not_matter():
    features = drawn(0, 1000, 4)
    target = features[:, 0] - features[:, 1]
    other_units = torch.cat([features * torch.tensor([1e3, 1e-3, 1.0, 5.0]), torch.ones(1000, 1)], 1)
    assert probed(other_units, target) == pytest.approx(probed(features, target), abs=1e-3)


def test_the_interval_holds_the_score_and_is_wider_where_samples_go_together():
    truth = drawn(0, 400).double()
    predicted = truth + drawn(1, 400).double()
    alone = scored(predicted, truth, torch.arange(400), binary=False)
    assert alone.low < alone.score < alone.high
    # eight groups with an error of their own each
    group = torch.arange(400) // 50
    shared = truth + 2.0 * drawn(2, 8).double()[group]
    together, apart = (scored(shared, truth, g, binary=False) for g in (group, torch.arange(400)))
    assert together.high - together.low > 1.5 * (apart.high - apart.low)


def test_a_binary_quantity_is_scored_by_its_ranking():
    truth = torch.tensor([0.0, 0.0, 1.0, 1.0])
    assert scored(torch.tensor([0.1, 0.2, 0.3, 0.4]), truth, torch.arange(4), binary=True).score == 1.0


def recorded(*tracks: Track, past: int = 20, future: int = 80) -> Window:
    scene = straight_scene(tracks, frames=past + future)
    states, nothing = scene.states.map(lambda values: values[None]), torch.zeros(1, dtype=torch.long)
    return Window(states[:, :past], states[:, past:], scene.road, nothing[:, None], nothing, nothing)


def test_quantities_are_those_of_the_scene():
    window = recorded(Track(0.0, 20.0), Track(40.0, 15.0))
    found = scene_quantities(window.present, window.road)
    assert found["speed"].item() == 20.0
    # 40 m between the centres at first, 5 m/s of closing for 1.9 s, and 5 m of vehicle
    assert found["gap"].item() == pytest.approx(40.0 - 5.0 - 5.0 * 19 * DT_S, abs=0.01)
    assert found["urgency"].item() == pytest.approx(5.0 / found["gap"].item(), rel=0.02)


def test_who_follows_nobody_has_the_furthest_gap_and_no_urgency():
    window = recorded(Track(0.0, 20.0), Track(40.0, 15.0, lane=1))
    found = scene_quantities(window.present, window.road)
    assert found["gap"].item() == FURTHEST_GAP_M
    assert found["urgency"].item() == 0.0


def test_targets_look_as_far_ahead_as_they_say():
    window = recorded(Track(0.0, 20.0), Track(40.0, 15.0))
    found = probe_targets(window, (1, 3, 5), DT_S)
    gaps = found["gap"][0]
    assert (gaps[0] - gaps[1]).item() == pytest.approx(10.0, abs=0.01)
    assert found["lane_change"].tolist() == [[0.0, 0.0, 0.0]]


def test_a_lane_change_is_one_within_three_seconds():
    window = recorded(Track(0.0, 20.0))
    window.future.position_m[:, 55:, 0, 1] = -4.0  # on the next lane from 5.6 s on
    assert probe_targets(window, (1, 2, 3, 5), DT_S)["lane_change"].tolist() == [[0.0, 0.0, 1.0, 1.0]]


def test_all_representations_are_probed_on_the_same_windows(tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        joint = JointEmbedding(JointEmbeddingConfig(dims=8, hidden=16)).eval()
        model = WorldModel(WorldModelConfig(hidden=8, latent_dims=2)).eval()
    store = platoon_store(tmp_path / "store")
    representations = {
        "predicted": of_joint_embedding(joint),
        "encoder": of_encoder(joint),
        "raw": of_raw_state(joint),
        "memory": of_memory(model),
    }
    config = ProbeConfig(seconds=(1, 2), windows=120, max_agents=6, batch=60)
    table = probe_table(representations, store, config)
    again = probe_table({"raw": representations["raw"]}, store, config)
    assert table["raw"]["speed"] == again["raw"]["speed"]
    # the ego's moves say how fast it will be; the raw state lies open, so it must be read
    assert table["raw"]["speed"][1].score > 0.95
    assert {name: len(row["gap"]) for name, row in table.items()} == dict.fromkeys(representations, 2)
