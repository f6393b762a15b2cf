"""`drivecast benchmark`: frozen suites, going on where it stopped, pooled trainings, and the check in highway-env."""

from __future__ import annotations

import json

import pandas as pd
import pytest

import envs.batched.traffic
from envs.results import frontier, pool
from envs.suites import SUITES
from scripts import cli
from scripts.benchmark import BenchmarkConfig, Entrant, run
from scripts.drivers import HighwayConfig, TrafficSource
from scripts.driving import Drive
from scripts.tracking import ConsoleRun
from worldmodel.errors import InputError


@pytest.fixture
def short_suites(monkeypatch):
    """The suites, with episodes of 3 s."""
    from dataclasses import replace

    for name, suite in SUITES.items():
        monkeypatch.setitem(SUITES, name, replace(suite, duration_s=3.0))


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
        "merge": (3_200_000_000, 3_200_000_001, 3_200_000_002),
        "recorded": (0, 1, 2),
    }
    suite = SUITES["highway-dense"]
    assert (suite.lanes, suite.vehicles, suite.density, suite.duration_s) == (4, 50, 1.5, 30.0)
    highway = HighwayConfig(suite.vehicles, suite.lanes, suite.density)
    scene = TrafficSource(suite.environment, highway=highway).open().reset(suite.seeds(1)).history
    assert scene.valid.sum() == 51
    # the first scene of the list: it must never become another one
    assert scene.position_m[0, 0, [0, 1, 50], 0].tolist() == pytest.approx(FIRST_SCENE_M, abs=1e-3)


FIRST_SCENE_M = [179.314, 193.251, 865.459]


def test_results_name_suite_label_and_training_and_all_files_are_left(tmp_path, short_suites):
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
    from envs.closed_loop import ClosedLoopConfig

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
    from envs.drivers.idm import IDMConfig

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

    monkeypatch.setattr(envs.batched.traffic, "MAX_ACCELERATION_MPS2", 0.2)
    with pytest.raises(InputError, match="episodes end otherwise in highway-env itself"):
        run(config_of(tmp_path / "other", driver=["idm"], spot_check=2), ConsoleRun())
    assert results_of(tmp_path / "other")[0]["spot_check"]["disagreements"]


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
        (["--suite", "moon"], "suite: expected one of highway, highway-dense, merge, recorded; got 'moon'"),
        (["--suite", "recorded"], "data: the suite 'recorded' needs a recording store; give --data DIR"),
        (["--driver", "a=idm", "--driver", "b=idm"], "driver: expected each driver under one label only"),
        (["--driver", "x=policy:/nowhere"], "driver 'policy:/nowhere': no file or folder /nowhere"),
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
    rates |= {"timed_out_rate": 0.0, "short_ttc_rate": 0.0, "uncomfortable_rate": 0.5}
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
