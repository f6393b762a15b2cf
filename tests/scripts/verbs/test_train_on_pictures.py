"""Pictures from the command line: a raster predictor, a policy through it, its drive, and the lecture's figure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from traffic_scenes import platoon_store

from drivecast.scripts.command.cli import main
from drivecast.scripts.driving.drivers import IDMConfig, make_driver, training_seed
from drivecast.scripts.tools import picture_forecasts
from drivecast.worldmodel.forecaster.loading import PICTURE_POLICY_FILE
from drivecast.worldmodel.raster.loading import RASTER_FILE

OFF = ("--tracking.enabled", "false")


def options(values: dict[str, object]) -> list[str]:
    return [option for name, value in values.items() for option in (f"--{name}", str(value))]


SMALL = options(
    {
        "raster.model.hidden": 4,
        "raster.model.latent_dims": 2,
        "raster.training.steps": 2,
        "raster.training.batch": 2,
        "raster.training.max_agents": 6,
        "raster.training.validate_every": 2,
        "raster.training.validation_clips": 4,
    }
)
POLICY = options(
    {
        "picture_policy.channels": 2,
        "picture_policy.hidden": 8,
        "training.steps": 2,
        "training.batch": 2,
        "training.horizon_steps": 3,
        "training.validate_every": 2,
        "training.validation_rollouts": 2,
        "training.starts.max_agents": 6,
        "training.uncertainty.masks": 2,
    }
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    platoon_store(folder / "store")
    data = ("--data", str(folder / "store"))
    assert main(["train-world-model", "--kind", "raster", *data, "--output", str(folder / "raster"), *SMALL, *OFF]) == 0
    policy = ("--config", "train-policy-raster", "--world-model", str(folder / "raster"), "--seed", "3")
    assert main(["train-policy", *policy, *data, "--output", str(folder / "policy"), *POLICY, *OFF]) == 0
    return folder


def test_trainings_leave_models_and_curves(folder):
    for name, file in (("raster", RASTER_FILE), ("policy", PICTURE_POLICY_FILE)):
        found = {each.name for each in (folder / name).iterdir()}
        assert {file, "training-curves.png", "training-curves.csv"} <= found


def test_the_policy_drives_by_its_name(folder):
    name = f"policy:{folder / 'policy'}"
    assert make_driver(name, IDMConfig()).name == name
    assert training_seed(name) == 3
    where = ("--environment", "highway-fast-v0", "--episodes", "2", "--highway.duration_s", "2", "--workers", "1")
    assert main(["evaluate", "--driver", name, *where, "--output", str(folder / "drive"), *OFF]) == 0
    (result,) = json.loads((folder / "drive" / "results.json").read_text())
    assert result["episodes"] == 2


def test_the_figure_shows_recorded_mean_and_five_latents(folder, capsys):
    given = ("--model", str(folder / "raster"), "--data", str(folder / "store"), "--split", "train")
    picture_forecasts.main(
        [*given, "--output", str(folder / "figure"), "--clips", "3", "--samples", "2", "--scenes", "1"]
    )
    said = capsys.readouterr().out
    assert "z = 0" in said
    assert "constant velocity, drawn" in said
    with Image.open(folder / "figure" / "futures.gif") as film:
        assert film.n_frames > 15
    result = json.loads((folder / "figure" / "pictures.json").read_text())
    assert result["clips"] == 3
    # an untrained model holds the last picture
    assert result["error"]["z = 0"][-1][0] == pytest.approx(result["error"]["last picture held"][-1][0], rel=0.2)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--start-from", "pretrained:us101"], "expected a model of kind 'raster-model'"),
        (["--raster.training.first_horizon_steps", "99"], "first_horizon_steps: expected at most horizon_steps"),
        (["--raster.model.picture.rows", "50"], "picture.rows: expected a multiple of 8, got 50"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_a_line(folder, tmp_path, capsys, given, said):
    data = ("--data", str(folder / "store"), "--output", str(tmp_path / "other"))
    assert main(["train-world-model", "--kind", "raster", *data, *SMALL, *given, *OFF]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "other" / RASTER_FILE).exists()


def test_a_lane_asked_of_it_and_a_raster_predictor_as_a_planner_are_refused(folder, tmp_path, capsys):
    policy = ("--world-model", str(folder / "raster"), "--data", str(folder / "store"), "--output", str(tmp_path / "p"))
    assert main(["train-policy", *policy, *POLICY, *OFF]) == 2
    assert "can be told no lane; give 0, as the preset train-policy-raster does" in capsys.readouterr().err
    planner = ("--driver", f"planner:{folder / 'raster'}", "--environment", "highway-fast-v0", "--episodes", "1")
    assert main(["evaluate", *planner, "--output", str(tmp_path / "e"), *OFF]) == 2
    assert "expected one .safetensors model of kind 'world-model'" in capsys.readouterr().err
