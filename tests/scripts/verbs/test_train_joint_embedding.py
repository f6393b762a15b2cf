"""`drivecast train-world-model --kind joint-embedding`: what it leaves, and that a planner drives by it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from traffic_scenes import platoon_store

from drivecast.planner.costs.readout import COST_READOUT_FILE, load_readout
from drivecast.planner.planning.proposal_planner import ProposalPlanner
from drivecast.scripts.command.cli import main
from drivecast.scripts.driving.drivers import IDMConfig, make_driver
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.joint_embedding.loading import JOINT_EMBEDDING_FILE, load_joint_embedding

OFF = ("--tracking.enabled", "false")
SMALL = [
    option
    for name, value in {
        "model.dims": 8,
        "model.hidden": 16,
        "training.steps": 4,
        "training.batch": 8,
        "training.max_agents": 6,
        "training.horizon_steps": 20,
        "training.validate_every": 2,
        "training.validation_windows": 16,
        "readout.windows": 20,
        "readout.batch": 10,
        "readout.steps": 5,
    }.items()
    for option in (f"--joint_embedding.{name}", str(value))
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("joint")
    platoon_store(folder / "store")
    assert train(folder, folder / "model") == 0
    return folder


def train(folder: Path, output: Path, *more: str) -> int:
    data = ("--data", str(folder / "store"), "--output", str(output))
    return main(["train-world-model", "--kind", "joint-embedding", *data, *SMALL, *more, *OFF])


def test_training_leaves_a_model_its_readout_and_its_curves(folder):
    names = {file.name for file in (folder / "model").iterdir()}
    assert {JOINT_EMBEDDING_FILE, COST_READOUT_FILE, "training-curves.png", "training-curves.csv"} <= names
    model = load_joint_embedding(folder / "model")
    assert load_readout(folder / "model", model).config.dims == model.config.dims == 8


def test_started_again_it_changes_nothing(folder, capsys):
    before = {name: (folder / "model" / name).read_bytes() for name in (JOINT_EMBEDDING_FILE, COST_READOUT_FILE)}
    assert train(folder, folder / "model") == 0
    assert {name: (folder / "model" / name).read_bytes() for name in before} == before
    assert "resumed at step 4 of 4" in capsys.readouterr().out


def test_a_lost_readout_is_fitted_again(folder, tmp_path):
    assert train(folder, tmp_path / "model") == 0
    (tmp_path / "model" / COST_READOUT_FILE).unlink()
    with pytest.raises(InputError, match="finish its training"):
        make_driver(f"planner:{tmp_path / 'model'}", IDMConfig())
    assert train(folder, tmp_path / "model") == 0
    assert (tmp_path / "model" / COST_READOUT_FILE).is_file()


def test_planner_takes_it_where_a_world_model_goes(folder):
    driver = make_driver(f"planner:{folder / 'model'}", IDMConfig())
    assert isinstance(driver, ProposalPlanner)
    assert driver.name == f"planner:{folder / 'model'}"


def test_the_same_proposals_are_judged_by_a_generative_model(folder):
    driver = make_driver("proposal-planner:" + str(folder / "model"), IDMConfig())
    other = make_driver("proposal-planner:src/drivecast/worldmodel/pretrained/highway", IDMConfig())
    assert isinstance(driver, ProposalPlanner)
    assert isinstance(other, ProposalPlanner)
    assert type(driver.cost) is not type(other.cost)
    assert driver.config == other.config


def test_it_is_evaluated_and_replayed_like_any_driver(folder, tmp_path):
    arguments = ["--environment", "highway-fast-v0", "--episodes", "2", "--highway.duration_s", "2"]
    driver = ("--driver", f"planner:{folder / 'model'}")
    assert main(["evaluate", *arguments, *driver, "--output", str(tmp_path / "run"), "--workers", "1", *OFF]) == 0
    (result,) = json.loads((tmp_path / "run" / "results.json").read_text())
    assert result["episodes"] == 2
    assert result["decision_ms_p50"] > 0.0
    episode = next((tmp_path / "run" / "episodes").rglob("*.parquet"))
    assert main(["replay", str(episode), "--output", str(tmp_path / "replay.html")]) == 0
    assert (tmp_path / "replay.html").stat().st_size > 10_000


def test_what_it_cannot_do_is_refused_in_one_line(folder, tmp_path, capsys):
    assert train(folder, tmp_path / "model", "--start_from", "pretrained:highway") == 2
    assert "joint embedding starts from random weights" in capsys.readouterr().err
    assert train(folder, tmp_path / "other", "--joint_embedding.model.dims", "1") == 2
    assert "joint_embedding.model.dims" in capsys.readouterr().err


def test_weights_of_another_model_are_not_read_by_this_readout(folder, tmp_path):
    assert train(folder, tmp_path / "model", "--seed", "1") == 0
    (tmp_path / "model" / COST_READOUT_FILE).write_bytes((folder / "model" / COST_READOUT_FILE).read_bytes())
    with pytest.raises(InputError, match="other weights"):
        make_driver(f"planner:{tmp_path / 'model'}", IDMConfig())


def test_costs_that_are_read_are_learned(folder):
    """Of a readout fitted longer, on embeddings that nobody trained: they say how the ego moves, so something."""
    from drivecast.planner.planning.readout_fitting import ReadoutFittingConfig, fit_readout
    from drivecast.worldmodel.joint_embedding.network import JointEmbedding, JointEmbeddingConfig
    from drivecast.worldmodel.recordings.sampling import WindowRequest, WindowSampler
    from drivecast.worldmodel.recordings.store import WindowStore

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = JointEmbedding(JointEmbeddingConfig(dims=32, hidden=32)).eval().requires_grad_(False)
    sampler = WindowSampler([WindowStore.open(folder / "store")], "train", WindowRequest(20, 20, 6))
    briefly, longer = (ReadoutFittingConfig(windows=400, batch=100, steps=n, rows=64) for n in (2, 500))
    before, after = (fit_readout(model, sampler, config)[1] for config in (briefly, longer))
    assert after["imposed"] < 0.9 * before["imposed"]
    assert after["contact"] < before["contact"]
