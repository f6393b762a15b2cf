"""Claims about how forecasts are scored."""

import pytest
import torch
from traffic_scenes import platoon_store

from drivecast.worldmodel.evaluation.figure import draw_forecasts
from drivecast.worldmodel.evaluation.forecasts import ForecastEvaluationConfig, evaluate_forecasts
from drivecast.worldmodel.forecaster.model import WorldModel, WorldModelConfig
from drivecast.worldmodel.forecaster.sampler import ModelSampler


def test_an_untrained_model_scores_like_constant_speed_and_is_drawn(tmp_path):
    store = platoon_store(tmp_path / "store")
    torch.manual_seed(0)
    model = WorldModel(WorldModelConfig(hidden=16)).eval()
    result = evaluate_forecasts(ModelSampler(model), store, "test", ForecastEvaluationConfig(samples=2, stride=5))
    windows = result["windows"]
    # 15 cars; each moment with 3 s of past and the horizon ahead counts: 8 s recordings have none at 5 s
    assert windows[0] == 15 * 8
    assert windows[3] == 15 * 2
    assert windows[4] == 0
    assert result["rmse_m"][4] is None
    # same positions but for the half second over which the baseline's speed is averaged
    assert abs(result["rmse_m"][1] / result["constant_velocity_rmse_m"][1] - 1) < 0.5
    assert result["min_fde_m"][0] == result["fde_m"][0], "an untrained model's samples are all alike"
    # ... so a joint future is as good as each vehicle's own, a single guess's CRPS is its error along the road,
    # and the truth lies beyond all samples, or in the middle of them where it is equal
    assert result["joint_min_fde_m"][1] == pytest.approx(result["fde_m"][1], rel=1e-5)
    assert result["crps_m"][1] == pytest.approx(result["fde_m"][1], rel=0.05)
    assert result["energy_score_m"][1] > result["fde_m"][1]
    assert sum(result["rank_histogram"]["along"][0]) == windows[0]
    assert result["coverage"][1] < 0.2
    assert result["ideal_coverage"] == [1 / 3] * len(result["horizons_s"])
    assert result["recorded_lane_changes"][0] == 0
    assert result["lane_change_recall"][0] is None, "nobody changes lane in a platoon"
    draw_forecasts(model, store, "test", result, tmp_path / "forecasts.png")
    assert (tmp_path / "forecasts.png").stat().st_size > 20_000


def test_withholding_the_newest_history_costs_accuracy_but_no_window(tmp_path):
    store = platoon_store(tmp_path / "store")
    torch.manual_seed(0)
    model = WorldModel(WorldModelConfig(hidden=16)).eval()
    fresh, stale = (
        evaluate_forecasts(
            ModelSampler(model), store, "test", ForecastEvaluationConfig(samples=2, stride=5, withheld_s=withheld)
        )
        for withheld in (0.0, 0.5)
    )
    assert stale["windows"] == fresh["windows"]
    assert stale["constant_velocity_rmse_m"] == fresh["constant_velocity_rmse_m"]
    assert stale["rmse_m"][1] > fresh["rmse_m"][1]
