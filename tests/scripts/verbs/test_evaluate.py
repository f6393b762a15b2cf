"""`drivecast evaluate`: its results on disk, and what it refuses."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import pandas as pd
import pytest
from policies import write_policy
from recorded_scenes import Track, straight_store

from drivecast.envs.evaluation.closed_loop import ClosedLoopConfig
from drivecast.envs.replay.episode import Episode
from drivecast.planner.planning.driver import PlannerConfig
from drivecast.planner.planning.refinement import RefinementConfig
from drivecast.planner.planning.search import SearchConfig
from drivecast.scripts.command import cli
from drivecast.scripts.command.execution import recorded_run
from drivecast.scripts.driving.drive import Drive, episode_file, labels
from drivecast.scripts.driving.drivers import HighwayConfig
from drivecast.scripts.tracking.console import Console
from drivecast.scripts.tracking.run import ConsoleRun, TrackingConfig
from drivecast.scripts.verbs.evaluate import EvaluateConfig, run
from drivecast.worldmodel.errors import InputError

PROMISED = {
    "driver",
    "environment",
    "episodes",
    "collision_rate",
    "collision_low",
    "collision_high",
    "at_fault_collision_rate",
    "off_road_rate",
    "success_rate",
    "success_low",
    "success_high",
    "timed_out_rate",
    "mean_speed_mps",
    "distance_m",
    "min_ttc_s",
    "short_ttc_rate",
    "time_headway_s",
    "uncomfortable_rate",
    "decision_ms_p50",
    "decision_ms_p99",
    "against",
    "config_hash",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    # closing in on each other; the humans are gone just before they meet
    tracks = [Track(x_m=20 + 30 * i, speed_mps=20 - 4 * i, last=60) for i in range(3)]
    return straight_store(tmp_path_factory.mktemp("store") / "data", tracks, frames=200)


@pytest.fixture(scope="module")
def evaluated(store, tmp_path_factory):
    output = tmp_path_factory.mktemp("evaluated")
    console = ConsoleRun()
    run(EvaluateConfig(output, driver=["human", "constant-velocity"], data=[store], episodes=0), console)
    return output, console


def test_results_have_one_object_per_driver_with_the_promised_fields(evaluated):
    results = json.loads((evaluated[0] / "results.json").read_text())
    assert [result["driver"] for result in results] == ["human", "constant-velocity"]
    for result in results:
        assert set(result) >= PROMISED
        assert (result["environment"], result["episodes"]) == ("recorded", 3)
        assert 0 <= result["collision_low"] <= result["collision_rate"] <= result["collision_high"] <= 1
    assert results[0]["success_rate"] == 1.0
    assert results[0]["collision_high"] == pytest.approx(0.5615, abs=1e-3)  # Wilson, none of 3
    assert results[1]["against"]["human"]["speed_difference_mps"] == pytest.approx(0.0, abs=1e-3)


def test_every_documented_field_is_written_and_every_written_field_documented(evaluated):
    import re
    from pathlib import Path

    text = (Path(__file__).resolve().parents[3] / "docs" / "evaluation.md").read_text()
    documented = set(re.findall(r"`(\w+)`", text))
    results = json.loads((evaluated[0] / "results.json").read_text())
    table = pd.read_parquet(evaluated[0] / "episodes.parquet")
    assert {*results[0], *results[0]["against"]["constant-velocity"], *table.columns} <= documented


def test_episodes_table_and_kept_episodes_are_written_and_logged(evaluated):
    output, console = evaluated
    table = pd.read_parquet(output / "episodes.parquet")
    assert len(table) == 6
    kept = sorted((output / "episodes").glob("*.parquet"))
    assert len(kept) == 6
    episode = Episode.read(output / "episodes" / episode_file("constant-velocity", "recorded", 0))
    assert episode.metadata.driver == "constant-velocity"
    assert episode.metadata.config_hash == json.loads((output / "results.json").read_text())[0]["config_hash"]
    assert {path.name for path, _ in console.artifacts} >= {"results.json", "episodes.parquet", "episodes"}
    logged = {name for _, metrics in console.metrics for name in metrics}
    assert "recorded/human/collision_rate" in logged


def test_a_second_evaluation_leaves_no_episode_of_the_first(store, tmp_path):
    for keep, kept in (("all", 3), ("none", 0)):
        run(
            EvaluateConfig(tmp_path, driver=["idle"], data=[store], episodes=0, loop=ClosedLoopConfig(keep=keep)),
            ConsoleRun(),
        )
        assert len(list(tmp_path.glob("episodes/*.parquet"))) == kept


def contents(folder) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.*") if file.is_file()}


def test_an_evaluation_that_is_stopped_leaves_the_one_before_whole_and_shows_what_it_did_beside_it(
    store, tmp_path, monkeypatch
):
    run(EvaluateConfig(tmp_path, driver=["human"], data=[store], episodes=0), ConsoleRun())
    before = contents(tmp_path)
    drive = Drive.run

    def stopped(self, *given):
        if self.driver == "constant-velocity":
            raise KeyboardInterrupt
        return drive(self, *given)

    monkeypatch.setattr(Drive, "run", stopped)
    config = EvaluateConfig(tmp_path, driver=["idle", "constant-velocity"], data=[store], episodes=0)
    with pytest.raises(KeyboardInterrupt):
        run(config, ConsoleRun())
    after = contents(tmp_path)
    assert {name: after[name] for name in before} == before
    assert [result["driver"] for result in json.loads(after["stopped/results.json"])] == ["idle"]
    assert not list(tmp_path.glob(".unfinished*"))


def test_a_first_evaluation_that_is_stopped_leaves_the_results_of_whom_it_drove(store, tmp_path, monkeypatch):
    drive = Drive.run

    def stopped(self, *given):
        if self.driver == "constant-velocity":
            raise KeyboardInterrupt
        return drive(self, *given)

    monkeypatch.setattr(Drive, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(EvaluateConfig(tmp_path, driver=["idle", "constant-velocity"], data=[store], episodes=0), ConsoleRun())
    assert [result["driver"] for result in json.loads((tmp_path / "results.json").read_text())] == ["idle"]
    assert len(list((tmp_path / "episodes").glob("*.parquet"))) == 3


def test_a_policy_that_does_not_load_leaves_the_evaluation_before_as_it_is(store, tmp_path):
    run(EvaluateConfig(tmp_path / "out", driver=["idle"], data=[store], episodes=0), ConsoleRun())
    before = contents(tmp_path / "out")
    (tmp_path / "policy.safetensors").write_bytes(b"no weights")
    broken = EvaluateConfig(
        tmp_path / "out", driver=[f"policy:{tmp_path / 'policy.safetensors'}"], data=[store], episodes=0
    )
    with pytest.raises(InputError, match="safetensors"):
        run(broken, ConsoleRun())
    assert contents(tmp_path / "out") == before


def test_an_evaluation_that_cannot_begin_leaves_the_one_before_as_it_is(store, tmp_path):
    run(EvaluateConfig(tmp_path, driver=["idle"], data=[store], episodes=0), ConsoleRun())
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="not a recording store"):
        run(EvaluateConfig(tmp_path, driver=["idle"], data=[tmp_path / "typo"], episodes=0), ConsoleRun())
    assert sorted(tmp_path.rglob("*")) == before


def test_processes_give_the_same_results_as_one(tmp_path):
    tables = []
    for workers in (1, 2):
        config = EvaluateConfig(
            tmp_path / str(workers),
            driver=["idle"],
            environment=["highway-fast-v0"],
            episodes=10,
            workers=workers,
            loop=ClosedLoopConfig(keep_at_most=1),
            highway=HighwayConfig(duration_s=4.0),
        )
        run(config, ConsoleRun())
        tables.append(pd.read_parquet(config.output / "episodes.parquet"))
    pd.testing.assert_frame_equal(*tables)
    names = [sorted(path.name for path in (tmp_path / n / "episodes").iterdir()) for n in ("1", "2")]
    assert names[0] == names[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--driver", "human", "--environment", "highway-v0"], "driver 'human': highway-v0 has no recorded human"),
        (
            ["--driver", "teleport"],
            "driver 'teleport': expected one of idm, constant-velocity, idle, human, idm:SPEED, policy:PATH",
        ),
        (["--driver", "policy:/nowhere"], "driver 'policy:/nowhere': no file or folder /nowhere"),
        (["--driver", "idm", "--environment", "roundabout-v0"], "driver 'idm': roundabout-v0 asks for a route"),
        (
            ["--driver", "ppo:/nowhere", "--environment", "roundabout-v1"],
            "only constant-velocity and idle can be driven",
        ),
        (["--environment", "mars"], "environment: expected one of recorded, highway-v0"),
        (["--driver", "idle", "--driver", "idle"], "driver: expected each name once"),
        (["--loop.keep", "some"], "keep: expected one of none, sample, crashes, all"),
        (["--driver", "idle"], "data: environment 'recorded' needs a recording store; give --data DIR"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_one_line(options, message, tmp_path, capsys):
    given = ["evaluate", "--output", str(tmp_path / "out"), "--tracking.enabled", "false", *options]
    assert cli.main(given) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("environment", "driver"),
    [
        ("merge-v0", "idm"),
        ("merge-generic-v0", "idm"),
        ("merge-generic-v1", "constant-velocity"),
        ("exit-v0", "idm"),
        ("roundabout-v0", "idle"),
        ("roundabout-v1", "constant-velocity"),
    ],
)
def test_every_environment_that_can_be_driven_is_evaluated(environment, driver, tmp_path, monkeypatch):
    console, lines = ConsoleRun(), []
    monkeypatch.setattr(console, "say", lines.append)
    config = EvaluateConfig(
        tmp_path,
        driver=[driver],
        environment=[environment],
        episodes=2,
        workers=1,
        highway=HighwayConfig(duration_s=2.0),
    )
    run(config, console)
    (result,) = json.loads((tmp_path / "results.json").read_text())
    assert (result["environment"], result["episodes"]) == (environment, 2)
    assert result["distance_m"] > 5
    assert any("none completes it" in line for line in lines) == (environment == "exit-v0")


def test_a_registered_policy_drives_under_the_name_it_was_given(store, tmp_path, monkeypatch):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    local = write_policy(tmp_path / "trained", 1).removeprefix("policy:")
    tracking = TrackingConfig(uri=uri)
    config = EvaluateConfig(tmp_path / "trained")
    with recorded_run("train-policy", config, tracking, Console(io.StringIO()), True) as training:
        training.register_model(f"{local}/policy.safetensors", "driver")
    name = "policy:models:/driver/latest"
    config = EvaluateConfig(tmp_path / "out", driver=[name, "human"], data=[store], episodes=0, workers=2)
    console = ConsoleRun()
    run(config, console)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [(result["driver"], result["label"]) for result in results] == [
        (name, "policy-driver-latest"),
        ("human",) * 2,
    ]
    kept = Episode.read(tmp_path / "out" / "episodes" / "recorded-policy-driver-latest-00000.parquet")
    assert kept.metadata.driver == name
    assert "recorded/policy-driver-latest/collision_rate" in {key for _, metrics in console.metrics for key in metrics}
    with pytest.raises(InputError, match="no model is registered under the name 'nobody'"):
        run(EvaluateConfig(tmp_path / "out", driver=["policy:models:/nobody/1"], data=[store]), ConsoleRun())


def test_drivers_are_called_by_what_tells_them_apart():
    drivers = ["idm", "idm:22.5", "policy:runs/oracle", "policy:runs/demo/policy/policy.safetensors", "ppo:runs/ppo-0"]
    assert list(labels(drivers).values()) == ["idm", "idm:22.5", "policy-oracle", "policy", "ppo-0"]
    alike = labels(["policy:runs/a/policy", "policy:runs/b/policy", "dqn:models:/baseline-dqn/3"])
    assert len(set(alike.values())) == 3
    assert all(re.fullmatch("policy-policy-[0-9a-f]{6}", alike[f"policy:runs/{x}/policy"]) for x in "ab")
    assert alike["dqn:models:/baseline-dqn/3"] == "dqn-baseline-dqn-3"
    moved = labels(["policy:/elsewhere/oracle"])
    assert moved == {"policy:/elsewhere/oracle": "policy-oracle"}  # the same metric's name on another machine


def test_more_episodes_than_vehicles_are_not_counted_twice(store, tmp_path):
    run(EvaluateConfig(tmp_path, driver=["idle"], data=[store], episodes=50, seed=2), ConsoleRun())
    table = pd.read_parquet(tmp_path / "episodes.parquet")
    assert sorted(table["vehicle_id"]) == [1, 2, 3]


def test_failed_check_raises_input_error_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="episodes: expected at least 1 in highway-v0"):
        EvaluateConfig(tmp_path / "out", environment=["highway-v0"], episodes=0)
    assert not (tmp_path / "out").exists()


def test_a_planner_drives_around_a_world_model_by_its_path_its_policy_or_its_name(tmp_path):
    from imagined_scenes import write_world_model

    from drivecast.scripts.driving.drivers import beside_policy, check_policy_file
    from drivecast.scripts.driving.registry import located

    model = write_world_model(tmp_path / "model", 0)
    highway = HighwayConfig(vehicles=4, lanes=2, duration_s=2.0)
    config = EvaluateConfig(
        tmp_path / "out", driver=[f"planner:{model}", f"planner:{model.parent}"], environment=["highway-v0"], episodes=2
    )
    config = replace(config, highway=highway, loop=ClosedLoopConfig(keep="all"), workers=1)
    search, refinement = SearchConfig(horizon_s=1.5, beam=2), RefinementConfig(iterations=1)
    config = replace(config, planner=PlannerConfig(decide_every_s=1.0, search=search, refinement=refinement))
    run(config, ConsoleRun())
    one, other = json.loads((tmp_path / "out" / "results.json").read_text())
    assert one["mean_speed_mps"] == other["mean_speed_mps"]
    assert one["decision_ms_p99"] >= one["decision_ms_p50"] > 0
    kept = [Episode.read(file) for file in sorted((tmp_path / "out" / "episodes").glob("*.parquet"))]
    assert len(kept) == 4
    assert all(episode.imaginations for episode in kept)
    policy = tmp_path / "model" / "policy.safetensors"
    assert beside_policy(policy) == model
    assert located("planner:pretrained:highway").endswith("highway/world-model.safetensors")
    assert located("pretrained-planner:highway") == located("planner:pretrained:highway")
    assert located("sampling-planner:pretrained:highway").startswith("sampling-planner:/")
    assert located("pretrained:highway") == located("policy:pretrained:highway")
    with pytest.raises(InputError, match="pretrained:mars: no such model comes with drivecast; it has pretrained:"):
        located("pretrained:mars")
    assert located("pretrained:us101").endswith("us101/policy.safetensors")
    with pytest.raises(InputError, match="pretrained:mars: no such model"):
        located("planner:pretrained:mars")
    with pytest.raises(InputError, match="no file or folder /nowhere"):
        check_policy_file("planner:/nowhere")
