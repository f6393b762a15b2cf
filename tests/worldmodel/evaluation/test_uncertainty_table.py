"""Claims about measures of what a model does not know, and how they are compared."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from traffic_scenes import history_of, platoon_store, scene

from drivecast.scripts.tools.uncertainty_table import main
from drivecast.worldmodel.energy.model_energy import ModelEnergy
from drivecast.worldmodel.evaluation.auroc import rank_correlation
from drivecast.worldmodel.evaluation.uncertainty_table import ANOMALIES
from drivecast.worldmodel.evaluation.unsureness import UnsurenessConfig, measures, spread_m2
from drivecast.worldmodel.forecaster.model import MODEL_KIND, WorldModel, WorldModelConfig
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.storage.checkpoint import save_model

ROAD = Road.straight(3)
SHORT = UnsurenessConfig(ahead_s=1.0, seen_s=0.5, masks=4, samples=4, search_steps=2)
SPOILS = {anomaly.name: anomaly.spoil for anomaly in ANOMALIES}


def model(seed: int = 0, **config) -> WorldModel:
    torch.manual_seed(seed)
    made = WorldModel(WorldModelConfig(hidden=16, latent_process="autoregressive", **config)).eval()
    torch.nn.init.normal_(made.decoder_out.weight, std=0.5)
    return made.requires_grad_(False)


def test_ranks_correlate_whatever_the_scale():
    one = torch.tensor([1.0, 5.0, 2.0, 9.0])
    assert rank_correlation(one, one.exp()) == pytest.approx(1.0)
    assert rank_correlation(one, -one) == pytest.approx(-1.0)
    assert rank_correlation(one, torch.tensor([1.0, 5.0, 9.0, 2.0])) == pytest.approx(-0.2 + 0.4)


def test_models_that_agree_are_sure_and_masks_that_drop_nothing_are_too():
    past = history_of(scene((0, -4, 20), (20, -4, 18), (5, 0, 22)), 12)
    same = measures([ModelEnergy(model(feature_dropout=0.0))] * 2, SHORT)
    for name in ("ensemble", "dropout, one memory", "dropout, forked"):
        torch.testing.assert_close(same[name](past, ROAD), torch.zeros(1, 3), atol=1e-6, rtol=0)
    other = measures([ModelEnergy(model(seed, feature_dropout=0.3)) for seed in (0, 1)], SHORT)
    for name, measure in other.items():
        found = measure(past, ROAD)
        assert found.shape == (1, 3), name
        assert bool((found > 0).all()), name
    alone = other["free energy"](past, ROAD)
    assert not torch.equal(other["ensemble, mean free energy"](past, ROAD), alone)


def test_spread_is_the_variance_of_positions():
    apart = torch.zeros(2, 1, 5, 1, 2)
    apart[1, ..., 0] = 2.0
    torch.testing.assert_close(spread_m2(apart), torch.tensor([[2.0]]))


def test_anomalies_spoil_the_past_of_one_vehicle_alone():
    past = history_of(scene((0, -4, 20), (20, -4, 18), (5, 0, 22)), 12)
    for name, spoil in SPOILS.items():
        spoilt = spoil(past, ROAD, 5)
        if name == "leader unseen":
            assert not spoilt.valid[0, -5:, 1].any()
            assert spoilt.valid[0, :-5, 1].all()
            torch.testing.assert_close(spoilt.position_m, past.position_m, rtol=0, atol=0)
        else:
            for field in ("position_m", "speed_mps", "heading_rad"):
                torch.testing.assert_close(getattr(spoilt, field)[:, :, 1:], getattr(past, field)[:, :, 1:])
    gone = SPOILS["jumps 2 m"](past, ROAD, 5).position_m[0, :, 0, 0].diff()
    torch.testing.assert_close(gone, torch.where(torch.arange(11) == 6, 4.0, 2.0))
    drift = SPOILS["drifts at 1.6 m/s"](past, ROAD, 5).position_m[0, :, 0, 1].diff()
    torch.testing.assert_close(drift[-5:], torch.full((5,), 0.16))
    assert SPOILS["speed off by 1.3"](past, ROAD, 5).speed_mps[0, -1, 0] == pytest.approx(26.0)


def test_the_table_names_every_measure_and_problem(tmp_path, capsys):
    store = platoon_store(tmp_path / "store")
    for seed in (0, 1):
        net = model(seed, feature_dropout=0.2)
        save_model(tmp_path / f"{seed}.safetensors", net, MODEL_KIND, net.config)
    given = ["--model", *(str(tmp_path / f"{seed}.safetensors") for seed in (0, 1)), "--data", str(store.directory)]
    given += ["--other", str(store.directory), "--scenes", "4", "--output", str(tmp_path / "table.json")]
    assert main([*given, "--split", "test"]) == 0
    table = json.loads((tmp_path / "table.json").read_text())["table"]
    assert set(table) == set(measures([ModelEnergy(model())], SHORT))
    for row in table.values():
        assert set(row) == {"another road", "pushed", "error", *SPOILS}
        assert all(0.0 <= value <= 1.0 for name, value in row.items() if name != "error")
    assert "| ensemble |" in capsys.readouterr().out
    assert main([*given, "--split", "nowhere"]) == 2


def test_what_drives_differently_from_the_model_costs_more_free_energy():
    net = model(feature_dropout=0.0)
    net.decoder_out.weight.zero_()  # everybody goes straight on
    past = history_of(scene((0, -4, 20), (20, -4, 18)), 12)
    measure = measures([ModelEnergy(net)], replace(SHORT, search_steps=5))["free energy"]
    calm, spoilt = (measure(each, ROAD) for each in (past, SPOILS["jumps 2 m"](past, ROAD, 3)))
    assert spoilt[0, 0] > 10 * calm[0, 0] + 1
    assert spoilt[0, 1] == pytest.approx(float(calm[0, 1]), abs=1e-3)
