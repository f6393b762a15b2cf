"""`drivecast tune-idm`, and the drivers that its files make."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from recorded_scenes import Track, straight_store

from drivecast.envs.drivers.idm import IDMConfig
from drivecast.envs.evaluation.suites import SUITES
from drivecast.scripts.command.cli import main
from drivecast.scripts.driving.drivers import check_driver, idm_of, make_driver
from drivecast.scripts.driving.snapshot import driver_snapshot
from drivecast.scripts.tracking.run import ConsoleRun
from drivecast.scripts.verbs.tune_idm import FIRST_SEED, RANGES, Search, TuneIdmConfig, run, source_of
from drivecast.worldmodel.errors import InputError

SMALL = {"candidates": 8, "episodes": 32, "rounds": 2, "workers": 1}


@pytest.fixture
def quick(monkeypatch):
    """Episodes of two seconds."""
    import drivecast.scripts.verbs.tune_idm

    def short(config):
        from dataclasses import replace

        source = source_of(config)
        return replace(source, highway=replace(source.highway, duration_s=2.0, vehicles=6))

    monkeypatch.setattr(drivecast.scripts.verbs.tune_idm, "source_of", short)


def test_it_leaves_a_file_that_drives_and_what_it_was_chosen_from(tmp_path, quick):
    console = ConsoleRun()
    run(TuneIdmConfig(tmp_path / "mine.yaml", suite="highway", **SMALL), console)
    config = idm_of(f"idm:{tmp_path / 'mine.yaml'}", IDMConfig(dt_s=0.2))
    assert config.dt_s == 0.2
    assert config != IDMConfig(dt_s=0.2)
    table = pd.read_csv(tmp_path / "mine.candidates.csv")
    last = table[table["round"] == 2]
    assert (last["episodes"] == 32).all()
    assert last["utility"].is_monotonic_decreasing
    assert last["time_gap_s"].iloc[0] == config.time_gap_s
    assert (tmp_path / "mine.frontier.png").stat().st_size > 10_000
    assert "drive it as idm:" in str(console.console.stream) or console.metrics
    # its own file it writes again, another it does not
    run(TuneIdmConfig(tmp_path / "mine.yaml", suite="highway", **SMALL), ConsoleRun())
    (tmp_path / "notes.yaml").write_text("# parameters of IDM and MOBIL from the paper\ntime_gap_s: 1.0\n")
    with pytest.raises(InputError, match="was not made by drivecast"):
        run(TuneIdmConfig(tmp_path / "notes.yaml", suite="highway", **SMALL), ConsoleRun())


@pytest.mark.parametrize("name", ["x.candidates.csv", "x.frontier.png", "x.yaml"])
def test_nothing_beside_the_file_is_written_over(tmp_path, quick, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match="was not made by drivecast"):
        run(TuneIdmConfig(tmp_path / "x.yaml", suite="highway", **SMALL), ConsoleRun())
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(name, "mine")]


def test_seeds_are_those_of_training_and_never_a_suites():
    search = Search(
        TuneIdmConfig(Path("x.yaml"), suite="highway"), source_of(TuneIdmConfig(Path("x.yaml"), suite="highway"))
    )
    seeds = {seed for number in range(4) for seed in search.episodes(number)}
    assert min(seeds) == FIRST_SEED
    assert len(search.episodes(3)) == 1000
    for suite in SUITES.values():
        assert not seeds & set(suite.seeds(1000)) or suite.environment == "recorded"


def test_recordings_are_tuned_on_their_train_split(tmp_path):
    straight_store(tmp_path / "data", [Track(0.0, 10.0), Track(40.0, 10.0)], frames=100)
    assert source_of(TuneIdmConfig(tmp_path / "x.yaml", data=[tmp_path / "data"])).split == "train"


def test_candidates_stay_within_the_ranges_and_the_best_go_on():
    config = TuneIdmConfig(Path("x.yaml"), suite="highway", candidates=16)
    search = Search(config, source_of(config))
    first = search.draw(0)
    assert first[0] == IDMConfig()
    for candidate in first[1:]:
        for name, (low, high) in RANGES.items():
            assert low * 0.99 <= getattr(candidate, name) <= high * 1.01, name
    rows = [
        {"candidate": n, "collided": n == 3, "at_fault": False, "distance_m": 20.0 + n, "duration_s": 1.0}
        for n in range(16)
    ]
    ranking = search.rank(first, pd.DataFrame(rows))
    assert ranking["mean_speed_mps"].iloc[0] == 35.0
    assert search.survivors[-1] == first[3]
    second = search.draw(1)
    assert second[:2] == [first[15], first[14]]
    assert len(second) == 8


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("time_gap_s: soon\n", "expected 'name: number' lines"),
        ("[1, 2]\n", "expected"),
        ("gap: 1\n", "gap: unknown key"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, text, told):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InputError, match=told):
        idm_of(f"idm:{tmp_path / 'x.yaml'}", IDMConfig())


def test_names_of_idm_drivers(tmp_path):
    assert idm_of("idm:25", IDMConfig()).desired_speed_mps == 25
    assert make_driver("idm:25", IDMConfig()).name == "idm:25"
    for wrong in ("idm:", "idm:-3", "idm:nan", "idm:nowhere"):
        with pytest.raises(InputError, match="expected idm:SPEED"):
            check_driver(wrong, "highway-v0")
    file = tmp_path / "mine.yaml"
    file.write_text("time_gap_s: 0.9\n")
    assert make_driver(f"idm:{file}", IDMConfig()).configs[0].time_gap_s == 0.9
    before = driver_snapshot(f"idm:{file}").digest
    file.write_text("time_gap_s: 0.8\n")
    assert driver_snapshot(f"idm:{file}").digest != before  # so the benchmark drives it anew


def test_one_of_suite_and_data_is_asked_for(tmp_path, capsys):
    assert main(["tune-idm", "--output", str(tmp_path / "x.yaml")]) == 2
    assert "expected one of the two" in capsys.readouterr().err
    assert main(["tune-idm", "--output", str(tmp_path / "x.yaml"), "--suite", "moon"]) == 2
    assert "suite: expected one of highway" in capsys.readouterr().err
