"""The models that come with drivecast."""

from pathlib import Path

import pytest
import torch
from traffic_scenes import history_of, scene

from drivecast import worldmodel
from drivecast.worldmodel.evaluation.forecasts import ForecastEvaluationConfig, evaluate_forecasts
from drivecast.worldmodel.forecaster.loading import FOLDER, load_world_model
from drivecast.worldmodel.forecaster.sampler import ModelSampler
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.recordings.store_writer import write_store
from drivecast.worldmodel.recordings.tidy import read_tidy
from drivecast.worldmodel.scene.contact import parallel_overlap_m
from drivecast.worldmodel.scene.road import Road

NAMES = sorted(path.parent.name for path in FOLDER.glob("*/world-model.safetensors"))


def test_those_that_are_named_in_the_documentation_are_there_each_with_a_card():
    assert {"us101", "highway"} <= {*NAMES}
    for name in NAMES:
        assert (FOLDER / name / "card.md").read_text().startswith(f"# `pretrained:{name}`")


@pytest.mark.parametrize("name", NAMES)
def test_followers_of_a_car_that_brakes_to_a_stop_hardly_ever_touch_anybody_in_sampled_futures(name: str):
    loaded = worldmodel.load(f"pretrained:{name}")
    present = scene((60, -4, 15), (35, -4, 15), (5, -4, 15), (20, 0, 15))  # agent 0 leads the next two
    stopping = history_of(present, 1).map(lambda tensor: tensor.repeat_interleave(60, 1))
    time = 0.1 * torch.arange(1, 61)
    speed = (15 - 6 * time).clamp_min(0.0)
    stopping.speed_mps[0, :, 0] = speed
    stopping.position_m[0, :, 0, 0] = 60 + (0.1 * speed).cumsum(0)
    road = Road.straight(3)
    drawn = loaded.sample(history_of(present, 20), road, 20, 60, stopping, torch.Generator().manual_seed(0))
    along, across, pairs = parallel_overlap_m(drawn)
    depth = torch.minimum(along, across).masked_fill(~pairs, 0.0)
    touched = (depth > 0.1).flatten(2).any(-1)  # (batch, sample), whether the follower stops or passes
    assert touched.float().mean() <= 0.15  # without bounds .35 (highway) and 1.0 (us101)
    assert depth.max() < 0.6  # m
    assert (drawn.position_m[0, :, 20, 1, 0] - drawn.position_m[0, :1, 20, 1, 0]).abs().max() > 0.1  # futures differ


def test_that_of_us101_errs_much_less_than_constant_velocity_where_it_was_not_trained(ngsim_data: Path, tmp_path: Path):
    recordings, splits = read_tidy(ngsim_data / "us101")
    write_store(tmp_path / "store", recordings, splits)
    model = load_world_model("pretrained:us101")
    store = WindowStore.open(tmp_path / "store")
    found = evaluate_forecasts(ModelSampler(model), store, "test", ForecastEvaluationConfig(samples=6, stride=10))
    ratio = [ours / theirs for ours, theirs in zip(found["rmse_m"], found["constant_velocity_rmse_m"], strict=True)]
    assert max(ratio[1:5]) < 0.7  # at 2 to 5 s
    assert found["off_road_rate"][2] < 0.02
    assert found["touch_rate"][2] < 0.01
