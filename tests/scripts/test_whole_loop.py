"""The four jobs by their commands, small, on traffic made here: each finds what the one before it left."""

from __future__ import annotations

import json
import os
import signal

import pytest
from traffic_scenes import platoon_store

from drivecast.scripts.command.cli import main
from drivecast.worldmodel.forecaster.model import MODEL_KIND
from drivecast.worldmodel.storage.checkpoint import load_model

WORLD_MODEL = ["--model.hidden", "16", "--training.steps", "4", "--training.batch", "2", "--training.max_agents", "6"]
WORLD_MODEL += ["--training.history_steps", "4", "--training.horizon_steps", "8", "--training.validation_windows", "4"]
POLICY = ["--training.steps", "2", "--training.batch", "4", "--training.horizon_steps", "8"]
POLICY += ["--training.validation_rollouts", "4", "--training.starts.max_agents", "6"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loop")
    platoon_store(folder / "data")
    data, off = ["--data", str(folder / "data")], ["--tracking.enabled", "false"]
    assert main(["train-world-model", *data, "--output", str(folder / "wm"), *WORLD_MODEL, *off]) == 0
    options = ["--world-model", str(folder / "wm"), "--output", str(folder / "policy"), *POLICY]
    assert main(["train-policy", *options, *data, *off]) == 0
    return folder, data, off


def test_training_leaves_models_and_curves(trained):
    folder, _, _ = trained
    for name in ("wm/world-model.safetensors", "policy/policy.safetensors", "policy/world-model.safetensors"):
        assert (folder / name).is_file(), name
    for name in ("wm/training-curves.png", "policy/training-curves.png"):
        assert (folder / name).stat().st_size > 5_000, name
    logged = [json.loads(line) for line in (folder / "wm/metrics.jsonl").read_text().splitlines()]
    text = json.dumps(logged)
    for name in ("val/latent_gap", "val/ego_gap", "val/kl_dim_0", "val/active_units", "val/sampled_collision_rate"):
        assert name in text, name


def test_a_training_that_is_interrupted_says_where_it_goes_on(trained, tmp_path, monkeypatch, capsys):
    folder, data, off = trained
    from drivecast.planner.policy.training import PolicyTrainer

    step = PolicyTrainer._step

    def interrupted(self):
        if self.optimisation.done_steps == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self)

    options = ["--world-model", str(folder / "wm"), "--output", str(tmp_path / "policy"), *POLICY]
    options += ["--training.steps", "9", *data, *off]
    with monkeypatch.context() as patched:
        patched.setattr(PolicyTrainer, "_step", interrupted)
        assert main(["train-policy", *options]) == 130
    assert "stopped; the same command goes on at step 2 of 9" in capsys.readouterr().out
    assert main(["train-policy", *options]) == 0
    assert "resumed at step 2 of 9" in capsys.readouterr().out


def test_a_world_model_goes_on_from_one_that_comes_with_drivecast(trained, tmp_path):
    _, data, off = trained
    options = [*WORLD_MODEL, "--training.eventful_share", "0.25", *data, *off]
    assert (
        main(["train-world-model", "--start-from", "pretrained:us101", *options, "--output", str(tmp_path / "wm")]) == 0
    )
    config = load_model(tmp_path / "wm", MODEL_KIND).config
    assert config["hidden"] == 32, "the architecture is that of the model, not of --model.hidden"
    assert config["temperature"] == 1.0


def test_forecast_writes_the_promised_fields(trained):
    folder, data, off = trained
    options = ["--model", str(folder / "wm"), *data, "--split", "test", "--output", str(folder / "forecast")]
    assert main(["forecast", *options, "--evaluation.samples", "2", "--evaluation.stride", "5", *off]) == 0
    result = json.loads((folder / "forecast/forecast.json").read_text())
    assert result["horizons_s"] == list(range(1, 9))
    for name in ("rmse_m", "constant_velocity_rmse_m", "min_ade_m", "min_fde_m", "windows"):
        assert len(result[name]) == 8, name
    assert result["samples"] == 2
    assert (folder / "forecast/forecasts.png").stat().st_size > 20_000


def test_the_policy_drives_in_recorded_traffic_and_is_replayed_with_its_imagination(trained):
    folder, data, off = trained
    options = ["--driver", f"policy:{folder / 'policy'}", "--driver", "human", "--environment", "recorded", *data]
    options += ["--split", "test", "--episodes", "2", "--output", str(folder / "evaluation"), "--loop.keep", "all"]
    assert main(["evaluate", *options, *off]) == 0
    results = json.loads((folder / "evaluation/results.json").read_text())
    assert [result["driver"] for result in results] == [f"policy:{folder / 'policy'}", "human"]
    assert results[1]["collision_rate"] == 0.0
    episode = next(path for path in (folder / "evaluation/episodes").glob("*.parquet") if "policy" in path.name)
    assert main(["replay", str(episode), "-o", str(folder / "replay.html"), *off]) == 0
    assert (folder / "replay.html").stat().st_size > 30_000


def test_a_trained_model_is_not_mistaken_for_a_policy(trained, capsys):
    folder, data, off = trained
    wrong = ["--driver", f"policy:{folder / 'wm/world-model.safetensors'}", "--output", str(folder / "wrong")]
    assert main(["evaluate", *wrong, "--episodes", "1", *data, *off]) == 2
    assert "expected a model of kind 'policy', found 'world-model'" in capsys.readouterr().err


def test_training_started_again_with_other_settings_is_refused_in_one_line(trained, capsys):
    folder, data, off = trained
    changed = [*WORLD_MODEL, "--training.learning_rate", "0.1"]
    assert main(["train-world-model", *data, "--output", str(folder / "wm"), *changed, *off]) == 2
    assert "belongs to a run with other settings" in capsys.readouterr().err
