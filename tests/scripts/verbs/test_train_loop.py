"""`drivecast train-loop`: who learns from what in which round, and what is done again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from drivecast.scripts.command import stages as staging
from drivecast.scripts.tracking.run import ConsoleRun, TrackingConfig
from drivecast.scripts.verbs.record import RecordConfig
from drivecast.scripts.verbs.train_loop import TrainLoopConfig, run
from drivecast.worldmodel.errors import InputError

HORIZONS = [1, 2, 3, 4]


@pytest.fixture
def executed(monkeypatch) -> list[tuple[str, object]]:
    """The stages that were run; each leaves what the next ones read."""
    done: list[tuple[str, object]] = []

    def execute(verb, config, tracking):
        done.append((verb.name, config))
        output = Path(config.output)
        output.mkdir(parents=True)
        products = {
            "record": "meta.json",
            "train-world-model": "world-model.safetensors",
            "train-policy": "policy.safetensors",
            "distil-planner": "policy.safetensors",
        }
        if verb.name in products:
            (output / products[verb.name]).write_text("made")
        if verb.name == "forecast":
            error = 0.5 if "after" in output.name else 0.9
            report = {"horizons_s": HORIZONS, "rmse_m": [0.1, 0.2, error, 2.0]}
            (output / "forecast.json").write_text(json.dumps(report))
        if verb.name == "evaluate":
            rows = [
                {
                    "driver": name,
                    "environment": "highway-v0",
                    "episodes": 10,
                    "collision_rate": 0.1,
                    "collision_low": 0.0,
                    "collision_high": 0.4,
                    "mean_speed_mps": 24.0 + number,
                }
                for number, name in enumerate(config.driver)
            ]
            (output / "results.json").write_text(json.dumps(rows))

    monkeypatch.setattr(staging, "execute", execute)
    return done


def loop(output: Path, **values) -> TrainLoopConfig:
    return TrainLoopConfig([Path("data/highway")], output, tracking=TrackingConfig(enabled=False), **values)


def names(executed) -> list[str]:
    return [Path(config.output).name for _, config in executed]


def test_a_round_learns_from_what_the_policies_before_it_drove(tmp_path, executed):
    run(loop(tmp_path, rounds=3, refresh_steps=17), ConsoleRun())
    of_round = ["world-model", "forecast-before", "forecast-after", "reactive", "policy", "drives"]
    first, second = ([f"{what}-{number}" for what in of_round] for number in (1, 2))
    third = [f"{what}-3" for what in of_round if what != "drives"]
    assert names(executed) == [name for name in first if "forecast" not in name] + second + third + ["evaluation"]
    by_name = {Path(config.output).name: config for _, config in executed}
    last = by_name["world-model-3"]
    assert last.data == [Path("data/highway"), tmp_path / "drives-1", tmp_path / "drives-2"]
    assert by_name["reactive-3"].data == last.data
    assert last.start_from == str(tmp_path / "world-model-2" / "world-model.safetensors")
    assert (by_name["world-model-1"].start_from, last.training.steps) == ("", 17)
    assert by_name["reactive-3"].world_model == str(tmp_path / "world-model-3" / "world-model.safetensors")
    assert by_name["drives-2"].driver == f"policy:{tmp_path / 'policy-2'}"
    assert by_name["drives-2"].seed != by_name["drives-1"].seed
    # the same drives, foretold by the model that has not learned from them and by the one that has
    before, after = by_name["forecast-before-3"], by_name["forecast-after-3"]
    assert (before.data, after.data) == (tmp_path / "drives-2", tmp_path / "drives-2")
    assert [Path(config.model).parent.name for config in (before, after)] == ["world-model-2", "world-model-3"]
    assert by_name["evaluation"].driver[:3] == [f"policy:{tmp_path / f'policy-{number}'}" for number in (1, 2, 3)]


def test_it_says_what_each_round_brought(tmp_path, executed, capfd):
    run(loop(tmp_path), ConsoleRun())
    rounds = json.loads((tmp_path / "rounds.json").read_text())
    assert [one["closed_loop"][0]["mean_speed_mps"] for one in rounds] == [24.0, 25.0]
    assert "forecast_before_m" not in rounds[0]
    assert (rounds[1]["forecast_before_m"], rounds[1]["forecast_after_m"]) == (0.9, 0.5)
    assert (tmp_path / "rounds.png").stat().st_size > 10_000
    assert f"drive it as policy:{tmp_path / 'policy-2'}" in "".join(capfd.readouterr())


def test_rounds_can_be_added(tmp_path, executed):
    run(loop(tmp_path, rounds=1), ConsoleRun())
    assert names(executed) == ["world-model-1", "reactive-1", "policy-1", "evaluation"]
    executed.clear()
    run(loop(tmp_path, rounds=2), ConsoleRun())
    assert names(executed)[0] == "drives-1"
    assert "policy-1" not in names(executed)
    assert names(executed)[-1] == "evaluation"
    executed.clear()
    run(loop(tmp_path, rounds=2), ConsoleRun())
    assert executed == []


def test_without_a_teacher_the_policy_is_what_backpropagation_makes_of_it(tmp_path, executed):
    run(loop(tmp_path, rounds=1, distil=False, start_from="pretrained:highway", refresh_steps=9), ConsoleRun())
    assert [verb for verb, _ in executed] == ["train-world-model", "train-policy", "evaluate"]
    model = executed[0][1]
    assert (model.start_from, model.training.steps) == ("pretrained:highway", 9)
    assert Path(executed[1][1].output).name == "policy-1"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rounds": 0}, "rounds: expected at least 1"),
        ({"record": RecordConfig(Path("x"), driver="idm")}, "leave both out"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, values, message):
    with pytest.raises(InputError, match=message):
        loop(tmp_path, **values)
