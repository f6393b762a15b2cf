"""The paper's ablations: each variant differs from the reference in what it is called after, and in nothing else."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from drivecast.scripts.command import stages as staging
from drivecast.scripts.tools import ablations
from drivecast.scripts.verbs import benchmark


@pytest.fixture
def trained(tmp_path, monkeypatch) -> dict[str, dict]:
    """Settings of what was trained, by folder; nothing is."""
    done: dict[str, dict] = {}

    def execute(verb, config, tracking):
        done["/".join(Path(config.output).parts[-2:])] = asdict(config)
        Path(config.output).mkdir(parents=True)
        for name in ("world-model.safetensors", "policy.safetensors"):
            (Path(config.output) / name).write_text("made")

    def drive(config, run):
        labels = [text.partition("=")[0] for text in config.driver]
        done["drivers"] = {"labels": labels, "suite": config.suite}
        config.output.mkdir(exist_ok=True)
        figures = {"trainings": 2, "success_rate": 0.8, "success_least": 0.7, "success_most": 0.9}
        pooled = {"recorded": dict.fromkeys(labels, figures)}
        (config.output / "pooled.json").write_text(json.dumps(pooled))

    monkeypatch.setattr(staging, "execute", execute)
    monkeypatch.setattr(benchmark, "run", drive)
    return done


def differing(one: dict, other: dict, prefix: str = "") -> set[str]:
    found = set()
    for name, value in one.items():
        if isinstance(value, dict):
            found |= differing(value, other[name], f"{prefix}{name}.")
        elif value != other[name]:
            found.add(prefix + name)
    return found


def test_variants_differ_in_one_thing(tmp_path, trained):
    assert ablations.main(["--data", "data/real", "--output", str(tmp_path), "--seeds", "2"]) == 0
    reference = trained["policy/length-40-0"]
    assert reference["training"]["horizon_steps"] == 40
    assert (reference["policy"]["feedback"], reference["training"]["lane_choice"]["enabled"]) == ("none", False)
    expected = {
        "policy/length-5-0": {"training.horizon_steps"},
        "policy/no-uncertainty-0": {"training.use_uncertainty"},
        "policy/deterministic-0": {"world_model"},
        "policy/no-latent-dropout-0": {"world_model"},
        "policy/ppuu-0": {"world_model", "training.horizon_steps"},
        "policy/length-40-1": {"seed"},
    }
    for folder, names in expected.items():
        assert differing(trained[folder], reference) == names | {"output"}, folder
    whole = trained["world-model/dropout"]
    assert differing(trained["world-model/no-dropout"], whole) == {"output", "training.objective.latent_dropout"}
    assert differing(trained["world-model/deterministic"], whole) == {"output", "model.latent_dims"}
    assert trained["world-model/no-dropout"]["training"]["objective"]["latent_dropout"] == 0.0
    assert trained["drivers"]["suite"] == ["recorded"]
    assert trained["drivers"]["labels"].count("length-60") == 2
    assert (tmp_path / "ablations.png").stat().st_size > 10_000


def test_what_is_trained_is_not_trained_again_and_seeds_can_be_added(tmp_path, trained):
    call = ["--data", "data/real", "--output", str(tmp_path), "--only", "length-1", "length-40"]
    ablations.main([*call, "--seeds", "1"])
    trained.clear()
    ablations.main([*call, "--seeds", "2"])
    assert set(trained) == {"policy/length-1-1", "policy/length-40-1", "drivers"}


def test_policies_are_trained_again_where_their_world_model_is(tmp_path, trained, monkeypatch):
    call = ["--data", "data/real", "--output", str(tmp_path), "--only", "length-40", "deterministic", "--seeds", "1"]
    ablations.main(call)
    trained.clear()
    changed = {**ablations.WORLD_MODELS, "dropout": ("--training.steps", "900")}
    monkeypatch.setattr(ablations, "WORLD_MODELS", changed)
    ablations.main(call)
    assert set(trained) == {"world-model/dropout", "policy/length-40-0", "drivers"}


def test_what_is_missing_is_said_in_one_line(tmp_path, capsys):
    assert ablations.main(["--data", str(tmp_path / "nowhere"), "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("ablations: ")
    assert "nowhere" in said
