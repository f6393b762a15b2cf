"""The demo does each stage once, anew where its settings or what it builds on changed, and reports on one page."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from drivecast.scripts.command import stages as staging
from drivecast.scripts.command.stages import Stages
from drivecast.scripts.figures.report import Report, write_report
from drivecast.scripts.tracking.run import ConsoleRun, TrackingConfig
from drivecast.scripts.verbs.demo import DemoConfig
from drivecast.worldmodel.errors import InputError


@dataclass(frozen=True)
class Settings:
    steps: int = 1


@pytest.fixture
def executed(monkeypatch) -> list[str]:
    """The verbs that were run; each one writes its product unless it is told to fail."""
    verbs: list[str] = []

    def execute(verb, config, tracking):
        verbs.append(verb.name)
        if config.steps < 0:
            raise InputError("failed half-way")
        (Path.cwd() / verb.name).mkdir(exist_ok=True)
        (Path.cwd() / verb.name / "product").write_text(str(config.steps))

    monkeypatch.setattr(staging, "execute", execute)
    return verbs


@pytest.fixture
def pipeline(tmp_path, monkeypatch, executed):
    monkeypatch.chdir(tmp_path)

    def run(record: Settings, train: Settings) -> list[str]:
        executed.clear()
        stages = Stages(tmp_path, ConsoleRun(), TrackingConfig(), total=2)
        for verb, settings in (("record", record), ("train-policy", train)):
            stages.do(verb, settings, tmp_path / verb, tmp_path / verb / "product")
        return list(executed)

    return run


def test_what_is_done_is_not_done_again(pipeline):
    assert pipeline(Settings(), Settings()) == ["record", "train-policy"]
    assert pipeline(Settings(), Settings()) == []


def test_a_changed_stage_is_done_again_with_all_that_follow(pipeline):
    pipeline(Settings(), Settings())
    assert pipeline(Settings(), Settings(2)) == ["train-policy"]
    assert pipeline(Settings(2), Settings(2)) == ["record", "train-policy"]


def test_a_stage_that_lost_its_product_is_done_again(pipeline, tmp_path):
    pipeline(Settings(), Settings())
    (tmp_path / "train-policy" / "product").unlink()
    assert pipeline(Settings(), Settings()) == ["train-policy"]


def test_an_interrupted_stage_goes_on_in_its_folder(pipeline, tmp_path, monkeypatch):
    pipeline(Settings(), Settings())
    states = json.loads((tmp_path / "stages.json").read_text())
    states["train-policy"]["done"] = False
    (tmp_path / "stages.json").write_text(json.dumps(states))
    (tmp_path / "train-policy" / "training-state.pt").write_text("half")
    assert pipeline(Settings(), Settings()) == ["train-policy"]
    assert (tmp_path / "train-policy" / "training-state.pt").exists()
    pipeline(Settings(), Settings(3))
    assert not (tmp_path / "train-policy" / "training-state.pt").exists()


def test_a_failed_stage_is_tried_again(pipeline):
    with pytest.raises(InputError):
        pipeline(Settings(), Settings(-1))
    assert pipeline(Settings(), Settings(1)) == ["train-policy"]


def test_a_folder_of_somebody_else_is_left_alone(pipeline, tmp_path):
    (tmp_path / "record").mkdir()
    (tmp_path / "record" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="was not made by `drivecast demo`"):
        pipeline(Settings(), Settings())
    assert (tmp_path / "record" / "thesis.tex").exists()


def test_the_demo_goes_on_with_its_run_unless_its_settings_changed(tmp_path):
    stages = Stages(tmp_path, ConsoleRun(), TrackingConfig(), total=2)
    config = DemoConfig(tmp_path)
    assert stages.run_before(config) == ""
    stages.go_under("abc", config)
    assert stages.tracking.parent == "abc"
    again = Stages(tmp_path, ConsoleRun(), TrackingConfig(), total=2)
    assert again.run_before(config) == "abc"
    assert again.run_before(DemoConfig(tmp_path, tracking=TrackingConfig(experiment="other"))) == ""


def test_the_report_is_one_page_with_intervals_and_figures(tmp_path):
    result = {"driver": "policy:<x>", "environment": "highway-v0", "episodes": 50, "mean_speed_mps": 23.456}
    for name in ("collision", "at_fault_collision", "off_road", "success"):
        result |= {f"{name}_rate": 0.02, f"{name}_low": 0.004, f"{name}_high": 0.105}
    (tmp_path / "results.json").write_text(json.dumps([result]))
    forecast = {"horizons_s": [1, 2], "rmse_m": [0.5, None], "constant_velocity_rmse_m": [0.7, 1.8]}
    forecast |= {"min_fde_m": [0.2, 0.4], "samples": 6}
    (tmp_path / "forecast.json").write_text(json.dumps(forecast))
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    report = Report(
        tmp_path,
        tmp_path / "results.json",
        tmp_path / "forecast.json",
        [("Curves", tmp_path / "a.png")],
        tmp_path / "replays" / "index.html",
    )
    page = write_report(report).read_text()
    for part in ("2.0 [0.4, 10.5]", "23.46", "policy-&lt;x&gt;", 'href="replays/index.html"', "0.70"):
        assert part in page
    assert base64.b64encode(b"\x89PNG").decode() in page
    assert "<x>" not in page
    assert "http" not in page
