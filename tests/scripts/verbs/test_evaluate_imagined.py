"""`drivecast evaluate --environment imagined`."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from imagined_scenes import write_world_model
from policies import write_policy
from traffic_scenes import platoon_store

from drivecast.scripts.command import cli

OFF = ["--tracking.enabled", "false"]


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imagined")
    platoon_store(folder / "data")
    write_world_model(folder / "wm", 0)
    write_world_model(folder / "other", 1)
    return folder


def evaluate(given, output, *options: str, model: str = "wm") -> int:
    where = ["--environment", "imagined", "--model", str(given / model), "--data", str(given / "data")]
    short = ["--imagined.duration_s", "3", "--output", str(output), "--workers", "1"]
    return cli.main(["evaluate", *where, *short, *OFF, *options])


def test_drivers_drive_imagined_traffic_and_kept_episodes_replay(given, tmp_path, capsys):
    drivers = ["idm", "constant-velocity", "rule", write_policy(tmp_path / "policy", 1)]
    named = [part for driver in drivers for part in ("--driver", driver)]
    assert evaluate(given, tmp_path / "out", "--episodes", "3", "--loop.keep", "all", *named) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [(result["driver"], result["environment"], result["episodes"]) for result in results] == [
        (driver, "imagined", 3) for driver in drivers
    ]
    table = pd.read_parquet(tmp_path / "out" / "episodes.parquet")
    assert set(table) >= {"recording", "vehicle_id", "start_s"}
    assert table.groupby("seed")["vehicle_id"].nunique().max() == 1  # all drive from the same starts
    assert (table["outcome"] == "completed").any()
    kept = sorted((tmp_path / "out" / "episodes").glob("*.parquet"))
    assert len(kept) == 12
    capsys.readouterr()
    assert cli.main(["replay", str(kept[0]), "--output", str(tmp_path / "page.html"), *OFF]) == 0
    assert "on imagined, platoon-5 vehicle" in capsys.readouterr().out


def test_processes_imagine_the_same_as_one(given, tmp_path):
    tables = []
    for workers in ("1", "2"):
        output = tmp_path / workers
        assert evaluate(given, output, "--episodes", "20", "--driver", "idle", "--workers", workers) == 0
        tables.append(pd.read_parquet(output / "episodes.parquet"))
    pd.testing.assert_frame_equal(*tables)


def test_the_config_hash_is_of_the_weights(given, tmp_path):
    hashes = {}
    model = given / "swapped"
    for name in ("wm", "other", "wm"):
        model.mkdir(exist_ok=True)
        (model / "world-model.safetensors").write_bytes((given / name / "world-model.safetensors").read_bytes())
        assert evaluate(given, tmp_path / "out", "--episodes", "1", "--driver", "idle", model="swapped") == 0
        (result,) = json.loads((tmp_path / "out" / "results.json").read_text())
        assert hashes.setdefault(name, result["config_hash"]) == result["config_hash"]
    assert hashes["wm"] != hashes["other"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--driver", "human"], "driver 'human': imagined has no recorded human"),
        (["--model", "/nowhere"], "/nowhere: expected a model file or folder"),
        (["--episodes", "0"], "episodes: expected at least 1 in imagined, got 0"),
        (["--imagined.duration_s", "-1"], "imagined.duration_s: expected more than 0"),
    ],
)
def test_what_cannot_be_imagined_is_refused_in_one_line(options, message, given, tmp_path, capsys):
    assert evaluate(given, tmp_path / "out", *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("missing", "message"),
    [("--model", "environment 'imagined' needs a world model; give --model"), ("--data", "give --data DIR")],
)
def test_a_missing_model_or_store_is_told_in_one_line(missing, message, given, tmp_path, capsys):
    options = {"--model": str(given / "wm"), "--data": str(given / "data"), "--output": str(tmp_path / "out")}
    del options[missing]
    flat = [part for pair in options.items() for part in pair]
    assert cli.main(["evaluate", "--environment", "imagined", *flat, *OFF]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
