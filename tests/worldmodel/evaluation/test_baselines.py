"""Claims about forecasters that others are compared with."""

import torch
from traffic_scenes import platoon_store

from drivecast.worldmodel.evaluation.baselines import FittedNoise, constant_velocity_guess
from drivecast.worldmodel.evaluation.forecasts import ForecastEvaluationConfig, evaluate_forecasts


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
