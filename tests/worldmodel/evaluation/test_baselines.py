"""Claims about forecasters that others are compared with."""

from dataclasses import replace

import torch
from traffic_scenes import platoon_store

from drivecast.worldmodel.evaluation.baselines import Alone, FittedNoise, constant_velocity_guess
from drivecast.worldmodel.evaluation.forecasts import ForecastEvaluationConfig, evaluate_forecasts
from drivecast.worldmodel.forecaster.model import WorldModel, WorldModelConfig
from drivecast.worldmodel.forecaster.sampler import ModelSampler


def test_fitted_noise_is_as_wide_as_the_errors_of_the_guess(tmp_path):
    store = platoon_store(tmp_path / "store")
    sampler = FittedNoise.fitted(constant_velocity_guess(store.dt_s), store, stride=2)
    window = store.window(store.frames("train", 31, 10)[::10], 31, 10, 16)
    futures = sampler.sample(window.history, window.road, 400, 10, torch.Generator().manual_seed(0))
    assert futures.position_m.shape == (len(window.frame), 400, 10, *window.history.position_m.shape[2:])
    guess = sampler.likeliest(window.history, window.road, 10)
    spread = (futures.position_m - guess.position_m[:, None])[:, :, -1, :, 0].std(1)
    torch.testing.assert_close(spread, sampler.spread_m[9, 0].expand_as(spread), rtol=0.2, atol=0.0)
    assert bool((sampler.spread_m[1:] >= sampler.spread_m[:-1]).all()), "an error of 1 s goes on"


def test_noise_makes_a_guess_score_better_than_without(tmp_path):
    store = platoon_store(tmp_path / "store")
    noisy = FittedNoise.fitted(constant_velocity_guess(store.dt_s), store, stride=2)
    silent = FittedNoise(noisy.guess, torch.zeros_like(noisy.spread_m))
    config = ForecastEvaluationConfig(samples=20, stride=5)
    results = [evaluate_forecasts(sampler, store, "test", config) for sampler in (noisy, silent)]
    assert results[0]["rmse_m"] == results[1]["rmse_m"]
    assert results[0]["crps_m"][2] < 0.95 * results[1]["crps_m"][2]


def test_alone_a_vehicle_is_forecast_as_if_nobody_else_were_there(tmp_path):
    torch.manual_seed(0)
    model = WorldModel(WorldModelConfig(hidden=16)).eval().requires_grad_(False)
    torch.nn.init.normal_(model.decoder_out.weight, std=0.5)
    store = platoon_store(tmp_path / "store")
    window = store.window(store.frames("test", 11, 20)[:2], 11, 20, 8)
    together, alone = ModelSampler(model), Alone(ModelSampler(model))
    found = alone.likeliest(window.history, window.road, 20)
    assert found.position_m.shape == window.future.position_m.shape
    for agent in range(window.row.shape[1]):
        gone = torch.arange(window.row.shape[1]) != agent
        history = replace(window.history, valid=window.history.valid & ~gone)
        there = window.history.valid[:, -1, agent]
        expected = together.likeliest(history, window.road, 20).position_m[:, :, agent]
        torch.testing.assert_close(found.position_m[there, :, agent], expected[there], atol=1e-3, rtol=1e-5)
    assert (together.likeliest(window.history, window.road, 20).position_m - found.position_m).abs().max() > 0.1
    assert alone.sample(window.history, window.road, 3, 20).position_m.shape == (2, 3, *found.position_m.shape[1:])
