"""`drivecast benchmark`: frozen suites, going on where it stopped, pooled trainings, and the check in highway-env."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from policies import write_policy
from recorded_scenes import Track, straight_store

import drivecast.envs.batched.traffic
import drivecast.scripts.figures.frontier
import drivecast.scripts.verbs.benchmark
from drivecast.envs.drivers.idm import IDMConfig
from drivecast.envs.evaluation.closed_loop import ClosedLoopConfig
from drivecast.envs.evaluation.results import frontier, mark_frontier, pool
from drivecast.envs.evaluation.suites import SUITES
from drivecast.envs.recorded.config import OTHERS
from drivecast.envs.recording.cast import VARIED_PARAMETERS
from drivecast.envs.replay.episode_file import read_config_hash
from drivecast.scripts.command import cli
from drivecast.scripts.driving import registry as model_registry
from drivecast.scripts.driving.drive import Drive
from drivecast.scripts.driving.drivers import HighwayConfig, TrafficSource
from drivecast.scripts.driving.snapshot import Snapshot, code_snapshot, driver_snapshot
from drivecast.scripts.figures.benchmark_table import COLUMNS, rows
from drivecast.scripts.tracking.console import Console
from drivecast.scripts.tracking.run import ConsoleRun
from drivecast.scripts.verbs.benchmark import BenchmarkConfig, Entrant, run
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.kinematics import within_limits


@pytest.fixture(autouse=True)
def code(tmp_path_factory, monkeypatch):
    """A file that stands for the code, which may be edited while these tests run."""
    file = tmp_path_factory.mktemp("code") / "traffic.py"
    file.write_text("one = 1")
    monkeypatch.setattr(drivecast.scripts.verbs.benchmark, "code_snapshot", lambda: Snapshot.of(file.parent, [file]))
    return file


@pytest.fixture
def drawn():
    """With the figure, which takes longer than a few episodes."""


@pytest.fixture(autouse=True)
def undrawn(request, monkeypatch):
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(
            drivecast.scripts.figures.frontier, "draw_frontier", lambda path, panels: path.write_bytes(b"")
        )


@pytest.fixture
def short_suites(monkeypatch):
    """The suites, with episodes of a second."""
    from dataclasses import replace

    for name, suite in SUITES.items():
        monkeypatch.setitem(SUITES, name, replace(suite, duration_s=1.0))


@pytest.fixture
def driven(monkeypatch):
    """Which seeds are driven from now on, by driver and simulator."""
    found: list[tuple[str, str, int]] = []
    drive = Drive.run

    def noted(self, *given):
        found.extend((self.driver, self.source.highway.simulator, seed) for seed in self.seeds)
        return drive(self, *given)

    monkeypatch.setattr(Drive, "run", noted)
    return found


def config_of(output, **given):
    settings = {"driver": ["idm", "constant-velocity"], "episodes": 3, "spot_check": 0, "workers": 1}
    return BenchmarkConfig(output, **(settings | given))


def results_of(output):
    return json.loads((output / "results.json").read_text())


def test_suites_are_frozen():
    assert {name: suite.seeds(3) for name, suite in SUITES.items()} == {
        "highway": (3_000_000_000, 3_000_000_001, 3_000_000_002),
        "highway-dense": (3_100_000_000, 3_100_000_001, 3_100_000_002),
        "highway-reactive": (3_300_000_000, 3_300_000_001, 3_300_000_002),
        "highway-dense-reactive": (3_400_000_000, 3_400_000_001, 3_400_000_002),
        "highway-mixed": (3_500_000_000, 3_500_000_001, 3_500_000_002),
        "merge": (3_200_000_000, 3_200_000_001, 3_200_000_002),
        "recorded": (0, 1, 2),
        "recorded-yielding": (0, 1, 2),
        "recorded-reactive": (0, 1, 2),
    }
    assert [SUITES[f"recorded{end}"].others for end in ("", "-yielding", "-reactive")] == list(OTHERS)
    suite = SUITES["highway-dense"]
    assert (suite.lanes, suite.vehicles, suite.density, suite.duration_s) == (4, 50, 1.5, 30.0)
    highway = HighwayConfig(suite.vehicles, suite.lanes, suite.density)
    scene = TrafficSource(suite.environment, highway=highway).open().reset(suite.seeds(1)).history
    assert scene.valid.sum() == 51
    # the first scene of the list: it must never become another one
    assert scene.position_m[0, 0, [0, 1, 50], 0].tolist() == pytest.approx(FIRST_SCENE_M, abs=1e-3)


def test_the_drivers_of_mixed_traffic_are_frozen_and_half_of_them_as_no_recording_has_them():
    suite = SUITES["highway-mixed"]
    highway = HighwayConfig(suite.vehicles, suite.lanes, suite.density, reactive=suite.reactive, mixed=suite.mixed)
    traffic = TrafficSource(suite.environment, highway=highway).open()
    traffic.reset(suite.seeds(40))
    drivers = traffic.simulator.drivers
    assert drivers.time_gap_s[0, :4].tolist() == pytest.approx(FIRST_GAPS_S, abs=1e-3)
    seen = torch.ones_like(drivers.time_gap_s, dtype=torch.bool)
    for name, (low, high) in VARIED_PARAMETERS.items():
        values = getattr(drivers, name)
        seen &= (values >= low) & (values <= high)
    assert 0.4 < seen[:, 1:].double().mean() < 0.6


FIRST_GAPS_S = [1.5, 1.568, 2.361, 1.48]
FIRST_SCENE_M = [179.314, 193.251, 865.459]


def test_results_name_suite_label_and_training_and_all_files_are_left(tmp_path, short_suites, drawn):
    console = ConsoleRun()
    run(config_of(tmp_path, suite=["highway", "merge"]), console)
    results = results_of(tmp_path)
    assert [(one["suite"], one["driver"]) for one in results] == [
        ("highway", "idm"),
        ("highway", "constant-velocity"),
        ("merge", "idm"),
        ("merge", "constant-velocity"),
    ]
    assert all(one["training_seed"] is None and one["episodes"] == 3 for one in results)
    assert set(results[0]["against"]) == {"constant-velocity"}  # of its own suite
    table = pd.read_parquet(tmp_path / "episodes.parquet")
    assert len(table) == 12
    assert set(table["seed"]) == {*SUITES["highway"].seeds(3), *SUITES["merge"].seeds(3)}
    text = (tmp_path / "table.md").read_text()
    assert text.count("## ") == 2
    assert text.count("| idm") == 2
    assert (tmp_path / "frontier.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path, _ in console.artifacts} >= {"results.json", "frontier.png", "table.md"}


def test_a_second_run_drives_only_what_is_missing(tmp_path, short_suites, driven):
    run(config_of(tmp_path, driver=["idm"], episodes=3), ConsoleRun())
    first = results_of(tmp_path)
    driven.clear()
    run(config_of(tmp_path, driver=["idm"], episodes=3), ConsoleRun())
    assert driven == []
    assert results_of(tmp_path) == first
    run(config_of(tmp_path, driver=["idm", "constant-velocity"], episodes=3), ConsoleRun())
    assert {driver for driver, _, _ in driven} == {"constant-velocity"}


def test_what_was_driven_before_a_crash_of_the_program_is_kept(tmp_path, short_suites, driven, monkeypatch):
    loop = ClosedLoopConfig(batch=2, keep="none")
    config = config_of(tmp_path, driver=["idm"], episodes=6, loop=loop)
    drive, seeds = Drive.run, SUITES["highway"].seeds(6)

    def dies(self, *given):
        if seeds[4] in self.seeds:
            raise KeyboardInterrupt
        return drive(self, *given)

    with monkeypatch.context() as context:
        context.setattr(Drive, "run", dies)
        with pytest.raises(KeyboardInterrupt):
            run(config, ConsoleRun())
    driven.clear()
    run(config, ConsoleRun())
    assert [seed for _, _, seed in driven] == list(seeds[4:])
    assert results_of(tmp_path)[0]["episodes"] == 6


def test_other_settings_are_driven_anew(tmp_path, short_suites, driven):
    run(config_of(tmp_path, driver=["idm"]), ConsoleRun())
    driven.clear()
    run(config_of(tmp_path, driver=["idm"], idm=IDMConfig(time_gap_s=0.8)), ConsoleRun())
    assert len(driven) == 3


def test_trainings_under_one_label_are_one_row(tmp_path, short_suites):
    run(config_of(tmp_path, driver=["idm", "slow=idm:15", "slow=idm:18"]), ConsoleRun())
    pooled = json.loads((tmp_path / "pooled.json").read_text())["highway"]
    results = {one["driver"]: one for one in results_of(tmp_path)}
    assert set(pooled) == {"idm", "slow"}
    assert pooled["slow"]["trainings"] == 2
    speeds = [results[f"idm:{speed}"]["mean_speed_mps"] for speed in (15, 18)]
    assert pooled["slow"]["mean_speed_mps"] == pytest.approx(sum(speeds) / 2)
    assert speeds[0] < speeds[1]
    assert "| slow" in (tmp_path / "table.md").read_text()


def test_the_spot_check_agrees_with_highway_env_and_notices_weaker_cars(tmp_path, short_suites, monkeypatch, driven):
    config = config_of(tmp_path, driver=["idm"], spot_check=2)
    run(config, ConsoleRun())
    check = results_of(tmp_path)[0]["spot_check"]
    assert check["episodes"] == 2
    assert check["disagreements"] == []
    assert check["largest_speed_difference_mps"] < 1e-5
    assert sum(simulator == "highway-env" for _, simulator, _ in driven) == 2

    def weaker(controls, speed_mps, dt_s):
        most = controls.acceleration_mps2.clamp_max(0.2)
        return within_limits(replace(controls, acceleration_mps2=most), speed_mps, dt_s)

    monkeypatch.setattr(drivecast.envs.batched.traffic, "within_limits", weaker)
    with pytest.raises(InputError, match="episodes end otherwise in highway-env itself"):
        run(config_of(tmp_path / "other", driver=["idm"], spot_check=2), ConsoleRun())
    assert results_of(tmp_path / "other")[0]["spot_check"]["disagreements"]


def test_a_spot_check_goes_on_with_the_episodes_that_are_missing(tmp_path, short_suites, driven):
    seeds = SUITES["highway"].seeds(4)
    for asked, expected in ((2, [seeds[0], seeds[2]]), (4, [seeds[1], seeds[3]]), (4, [])):
        driven.clear()
        run(config_of(tmp_path, driver=["idm"], episodes=4, spot_check=asked), ConsoleRun())
        assert [seed for _, simulator, seed in driven if simulator == "highway-env"] == expected
        assert results_of(tmp_path)[0]["spot_check"]["episodes"] == asked


def test_a_spot_check_leaves_the_kept_episodes_alone(tmp_path, short_suites):
    run(config_of(tmp_path, driver=["idm"], spot_check=3), ConsoleRun())
    assert len(list((tmp_path / "episodes" / "highway").glob("*.parquet"))) == 3


def test_kept_episodes_stay_when_a_driver_with_a_shorter_name_joins(tmp_path, short_suites):
    run(config_of(tmp_path, driver=["idm:20"], episodes=2), ConsoleRun())
    run(config_of(tmp_path, driver=["idm:20", "idm"], episodes=2), ConsoleRun())
    assert len(list((tmp_path / "episodes" / "highway").glob("highway-v0-idm-20-*.parquet"))) == 2


def test_a_damaged_part_is_driven_again(tmp_path, short_suites, driven):
    run(config_of(tmp_path, driver=["idm"]), ConsoleRun())
    first = results_of(tmp_path)
    (part,) = (tmp_path / "parts").glob("*.parquet")
    part.write_bytes(part.read_bytes()[:-100])
    driven.clear()
    run(config_of(tmp_path, driver=["idm"]), ConsoleRun())
    assert len(driven) == 3
    assert results_of(tmp_path)[0]["collision_rate"] == first[0]["collision_rate"]


def test_fewer_episodes_are_counted_as_fewer_and_more_come_back(tmp_path, short_suites, driven):
    loop = ClosedLoopConfig(batch=2, keep="none")
    found = []
    for episodes in (4, 3, 4):
        driven.clear()
        run(config_of(tmp_path, driver=["idm"], episodes=episodes, loop=loop), ConsoleRun())
        assert results_of(tmp_path)[0]["episodes"] == episodes
        found.append(results_of(tmp_path)[0]["distance_m"])
    assert driven == []
    assert found[0] == found[2] > found[1]


def test_metrics_are_named_by_labels_and_not_by_paths(tmp_path, short_suites, driven):
    one, two, lone = (write_policy(tmp_path / name, seed) for seed, name in enumerate(("a", "b", "lone")))
    console = ConsoleRun()
    run(config_of(tmp_path / "out", driver=["idm", f"mpur={one}", f"mpur={two}", lone], episodes=1), console)
    names = {name.rpartition("/")[0] for _, metrics in console.metrics for name in metrics}
    assert names == {"highway/idm", "highway/mpur-0", "highway/mpur-1", "highway/policy-lone"}


def test_a_registered_policy_is_driven_once_whatever_it_is_called(tmp_path, short_suites, driven, monkeypatch):
    policy = write_policy(tmp_path / "policy", 1)
    monkeypatch.setattr(model_registry, "resolve_model", lambda reference: Path(policy.removeprefix("policy:")))
    name = "policy:models:/driver/latest"
    run(config_of(tmp_path / "out", driver=["idm", f"mpur={name}"], episodes=1), ConsoleRun())
    result = results_of(tmp_path / "out")[1]
    assert (result["driver"], result["label"], result["training_seed"]) == (name, "mpur", 1)
    with pytest.raises(InputError, match="are the same training"):
        run(config_of(tmp_path / "out", driver=[name, policy], episodes=1), ConsoleRun())


def test_nothing_is_driven_twice_unless_it_is_asked_for():
    assert BenchmarkConfig(Path("out")).spot_check == 0


def test_another_training_under_the_same_path_is_driven_anew(tmp_path, short_suites, driven):
    files = []
    for seed in (1, 2):
        driven.clear()
        policy = write_policy(tmp_path / "policy", seed)
        files.append((tmp_path / "policy" / "policy.safetensors").read_bytes())
        run(config_of(tmp_path / "out", driver=["idm", policy]), ConsoleRun())
        assert [driver for driver, _, _ in driven if driver == policy] == [policy] * 3
        result = results_of(tmp_path / "out")[1]
        assert result["training_seed"] == seed
        kept = (tmp_path / "out" / "episodes" / "highway").glob("highway-v0-policy-*.parquet")
        assert {read_config_hash(file) for file in kept} == {result["config_hash"]}
    # and the first one's episodes are not lost, but its replays would be another driver's
    driven.clear()
    (tmp_path / "policy" / "policy.safetensors").write_bytes(files[0])
    run(config_of(tmp_path / "out", driver=["idm", policy]), ConsoleRun())
    assert driven == []
    assert not list((tmp_path / "out" / "episodes" / "highway").glob("highway-v0-policy-*.parquet"))


def test_a_training_that_changes_under_way_is_noticed(tmp_path, short_suites, monkeypatch, driven):
    policy = write_policy(tmp_path / "policy", 1)
    config = config_of(tmp_path / "out", driver=["idm", policy], suite=["highway", "merge"])
    drive = Drive.run

    def retrained(self, *given):
        if self.source.environment == "merge-v1":
            write_policy(tmp_path / "policy", 2)
        return drive(self, *given)

    with monkeypatch.context() as context:
        context.setattr(Drive, "run", retrained)
        with pytest.raises(InputError, match="the model changed since this began"):
            run(config, ConsoleRun())
    assert len(list((tmp_path / "out" / "parts").glob("highway-v0-*.parquet"))) == 2
    assert not list((tmp_path / "out" / "parts").glob("merge-v1-policy-*.parquet"))


def test_code_that_changes_under_way_is_noticed_and_driven_anew(tmp_path, short_suites, monkeypatch, driven, code):
    config = config_of(tmp_path, driver=["idm"], episodes=4, loop=ClosedLoopConfig(batch=2))
    drive = Drive.run

    def edited(self, *given):
        if self.first:
            code.write_text("one = 2")
        return drive(self, *given)

    with monkeypatch.context() as context:
        context.setattr(Drive, "run", edited)
        with pytest.raises(InputError, match=r"traffic\.py: the code changed since this began"):
            run(config, ConsoleRun())
    driven.clear()
    run(config, ConsoleRun())
    assert len(driven) == 4
    driven.clear()
    code.write_text("one = 1")
    run(config, ConsoleRun())
    assert len(driven) == 2  # what was driven before the change counts again


def test_episodes_depend_on_code_that_makes_drivers_and_on_a_models_card(tmp_path):
    names = {name for name, _ in code_snapshot().digests}
    assert {
        "scripts/driving/drivers.py",
        "envs/evaluation/closed_loop.py",
        "planner/policy/driver.py",
        "worldmodel/scene/road.py",
    } <= names
    (tmp_path / "model.zip").write_bytes(b"weights")
    found = []
    for card in ("{}", '{"policy_frequency_hz": 5}'):
        (tmp_path / "model.json").write_text(card)
        found.append(driver_snapshot(f"dqn:{tmp_path}").digest)
    assert found[0] != found[1]


def test_other_splits_of_the_same_recordings_are_driven_anew(tmp_path, driven):
    store = straight_store(tmp_path / "store", [Track(x_m=20 + 60 * i, speed_mps=20, last=60) for i in range(2)], 200)
    config = config_of(tmp_path / "out", suite=["recorded"], driver=["idle"], data=[store], split="all")
    run(config, ConsoleRun())
    driven.clear()
    run(config, ConsoleRun())
    assert driven == []
    splits = json.loads((store / "splits.json").read_text())
    (store / "splits.json").write_text(json.dumps(splits, indent=4) + "\n")
    run(config, ConsoleRun())
    assert driven
    assert "Recordings: store; split: all." in (tmp_path / "out" / "table.md").read_text()


def test_the_table_says_what_is_not_as_usual_and_what_is_still_to_be_driven(tmp_path, short_suites, monkeypatch):
    config = config_of(tmp_path, driver=["idm", "idle"], idm=IDMConfig(time_gap_s=0.8))
    drive, console = Drive.run, ConsoleRun(Console(io.StringIO()))

    def stopped(self, *given):
        if self.driver == "idle":
            raise KeyboardInterrupt
        return drive(self, *given)

    with monkeypatch.context() as context:
        context.setattr(Drive, "run", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(config, console)
    text = (tmp_path / "table.md").read_text()
    assert "idm.time_gap_s 0.8." in text
    assert "Still to be driven: idle." in text
    assert f"saved in {tmp_path}, and the same command goes on there" in console.console.stream.getvalue()
    run(config, console)
    assert "Still to be driven" not in (tmp_path / "table.md").read_text()


def test_one_training_under_two_paths_is_not_two_trainings(tmp_path):
    policy = write_policy(tmp_path / "policy", 1)
    twice = [f"mpur={policy}", f"mpur={policy}/policy.safetensors"]
    with pytest.raises(InputError, match="are the same training; give each once"):
        run(config_of(tmp_path / "out", driver=twice), ConsoleRun())


def test_the_reference_is_not_tested_against_itself():
    ends = {"p05": 1.0, "p50": 1.0, "p95": 1.0}
    found = [
        {**result(0.1, 20.0), "label": "ppo", "driver": f"ppo:{n}", "time_headway_s": ends, "against": {}} for n in "ab"
    ]
    found[1]["against"] = {"ppo:a": {"collision_p_value": 0.5, "speed_difference_mps": 1.0}}
    (row,) = rows(found, mark_frontier({"ppo": pool(found)}))
    assert row[COLUMNS.index("p collisions")] == row[COLUMNS.index("speed difference m/s")] == "-"


def test_labels():
    assert Entrant.of("mpur=policy:runs/a=b") == Entrant("policy:runs/a=b", "mpur")
    assert Entrant.of("policy:runs/a=b") == Entrant("policy:runs/a=b", "policy:runs/a=b")


def test_the_human_drives_only_where_somebody_was_recorded(tmp_path, short_suites):
    run(config_of(tmp_path, driver=["idm", "constant-velocity"], episodes=1), ConsoleRun())
    with pytest.raises(InputError, match="highway-v0 has no recorded human"):
        config_of(tmp_path, driver=["human"])
    BenchmarkConfig(tmp_path, suite=["highway", "recorded"], driver=["idm", "human"], data=[tmp_path])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--suite", "moon"], f"suite: expected one of {', '.join(SUITES)}; got 'moon'"),
        (["--suite", "recorded"], "data: the suite 'recorded' needs a recording store; give --data DIR"),
        (["--driver", "a=idm", "--driver", "b=idm"], "driver: expected each driver under one label only"),
        (["--driver", "x=policy:/nowhere"], "driver 'policy:/nowhere': no file or folder /nowhere"),
        (
            ["--driver", "a=idm", "--driver", "a=idle"],
            "trainings of one kind under the label 'a', got idm and idle",
        ),
        (
            ["--suite", "highway", "--suite", "recorded", "--data", ".", "--driver", "human"],
            "driver 'human': highway-v0 has no recorded human",
        ),
        (["--driver", "idm", "--spot_check_driver", "idle"], "spot_check_driver: expected one of idm; got 'idle'"),
    ],
)
def test_what_cannot_be_driven_is_refused_in_one_line(options, message, tmp_path, capsys):
    given = ["benchmark", "--output", str(tmp_path / "out"), "--tracking.enabled", "false", *options]
    assert cli.main(given) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def result(collision_rate, speed, episodes=100):
    rates = {f"{name}_rate": collision_rate for name in ("collision", "at_fault_collision", "off_road", "success")}
    rates |= {"front_rate": 0.0, "side_rate": 0.0, "rear_rate": collision_rate, "timed_out_rate": 0.0}
    rates |= {"short_ttc_rate": 0.0, "uncomfortable_rate": 0.5}
    speeds = {"mean_speed_mps": speed, "mean_speed_low_mps": speed - 1, "mean_speed_high_mps": speed + 1}
    return {"episodes": episodes, **rates, **speeds, "time_headway_s": {"p50": 1.0}}


def test_pooling_does_not_make_the_same_episodes_count_twice():
    pooled = pool([result(0.02, 20.0), result(0.04, 22.0)])
    alone = pool([result(0.03, 21.0)])
    for name in ("collision_rate", "collision_low", "collision_high", "mean_speed_mps"):
        assert pooled[name] == pytest.approx(alone[name])
    assert (pooled["collision_least"], pooled["collision_most"]) == (0.02, 0.04)


def test_the_frontier_has_those_whom_nobody_beats():
    drivers = {"safe": (0.0, 20.0), "fast": (0.1, 25.0), "worse": (0.1, 24.0), "slow": (0.0, 19.0), "twin": (0.0, 20.0)}
    assert frontier({name: result(*one) for name, one in drivers.items()}) == ["safe", "twin", "fast"]
