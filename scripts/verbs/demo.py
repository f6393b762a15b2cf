"""`drivecast demo`: traffic, world model, policy, closed loop, replay and report, one after the other."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from drivecast.scripts.command.stages import Stages, in_stages
from drivecast.scripts.figures.report import Report, write_report
from drivecast.scripts.tracking.mlflow_server import absolute_uri, tracking_uri
from drivecast.scripts.tracking.run import Run, TrackingConfig
from drivecast.scripts.verbs.distil_planner import DistilPlannerConfig
from drivecast.scripts.verbs.evaluate import EvaluateConfig
from drivecast.scripts.verbs.forecast import ForecastConfig
from drivecast.scripts.verbs.record import RecordConfig
from drivecast.scripts.verbs.replay import ReplayConfig
from drivecast.scripts.verbs.train_policy import TrainPolicyConfig
from drivecast.scripts.verbs.train_world_model import TrainWorldModelConfig
from drivecast.worldmodel.forecaster.loading import POLICY_FILE, WORLD_MODEL_FILE

HERE = Path("set by the demo")


@dataclass(frozen=True)
class DemoConfig:
    """Record simulated traffic, train a world model and a policy, let the planner teach it, evaluate, replay, report.

    What is done already with the same settings is not done again; a training that was interrupted goes on. The paths
    of the stages (their output, data and models) are set by the demo and lie in OUTPUT.

    Args:
        output: Folder for everything.
        record: Traffic to learn from.
        train_world_model: The world model.
        forecast: Its forecasts, on recordings it did not see.
        train_policy: The policy.
        distil_planner: What the planner teaches it.
        evaluate: The closed loop; the policy, and the planner around the world model, are added to its drivers.
        tracking: Where the stages are recorded, each as a run.
    """

    output: Path = Path("runs/demo")
    record: RecordConfig = field(default_factory=lambda: RecordConfig(HERE))
    train_world_model: TrainWorldModelConfig = field(default_factory=lambda: TrainWorldModelConfig([HERE], HERE))
    forecast: ForecastConfig = field(default_factory=lambda: ForecastConfig("", HERE, HERE))
    train_policy: TrainPolicyConfig = field(default_factory=lambda: TrainPolicyConfig("", [HERE], HERE))
    distil_planner: DistilPlannerConfig = field(default_factory=lambda: DistilPlannerConfig("", HERE))
    evaluate: EvaluateConfig = field(default_factory=lambda: EvaluateConfig(HERE, environment=["highway-v0"]))
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


def run(config: DemoConfig, run: Run) -> None:
    """Do what is not done yet; say where everything is."""
    started_s = time.monotonic()
    with in_stages("demo", config, config.output, config.tracking, 7, run) as (stages, recorded):
        report, replays = _do(config, stages)
        recorded.log_artifact(report)
        recorded.log_metrics({"demo/seconds": time.monotonic() - started_s})
    for line in _where(config, report, replays, time.monotonic() - started_s):
        run.say(line)


def _do(config: DemoConfig, stages: Stages) -> tuple[Path, Path]:
    """All stages; the report and the index of the replays."""
    output = config.output
    traffic, models, reactive, policies = (
        output / name for name in ("traffic", "world-model", "reactive-policy", "policy")
    )
    forecasts, evaluation, replays = output / "forecast", output / "evaluation", output / "replays"
    model, policy = models / WORLD_MODEL_FILE, policies / POLICY_FILE

    stages.do("record", replace(config.record, output=traffic), traffic, traffic / "meta.json")
    world_model = replace(config.train_world_model, data=[traffic], output=models)
    stages.do("train-world-model", world_model, models, model)
    forecast = replace(config.forecast, model=str(model), data=traffic, output=forecasts)
    stages.do("forecast", forecast, forecasts, forecasts / "forecast.json")
    training = replace(config.train_policy, world_model=str(model), data=[traffic], output=reactive)
    stages.do("train-policy", training, reactive, reactive / POLICY_FILE)
    lessons = replace(config.distil_planner, policy=str(reactive), output=policies)
    stages.do("distil-planner", lessons, policies, policy)
    own = [f"policy:{policy}", f"planner:{model}"]
    drivers = [*own, *(name for name in config.evaluate.driver if name.partition(":")[0] not in ("policy", "planner"))]
    closed_loop = replace(config.evaluate, driver=drivers, output=evaluation)
    stages.do("evaluate", closed_loop, evaluation, evaluation / "results.json")
    index = replays / "index.html"
    stages.do("replay", ReplayConfig(evaluation / "episodes", replays), replays, index)

    report = Report(output, evaluation / "results.json", forecasts / "forecast.json", _figures(output), index)
    return write_report(report), index


def _figures(output: Path) -> list[tuple[str, Path]]:
    named = [
        ("Collisions against speed", output / "evaluation" / "collisions.png"),
        ("Recorded futures and sampled ones", output / "forecast" / "forecasts.png"),
        ("Training of the world model", output / "world-model" / "training-curves.png"),
        ("Training of the policy", output / "reactive-policy" / "training-curves.png"),
        ("What the planner taught it", output / "policy" / "distillation.png"),
    ]
    return [(title, path) for title, path in named if path.exists()]


def _where(config: DemoConfig, report: Path, replays: Path, seconds: float) -> list[str]:
    uri = absolute_uri(tracking_uri(config.tracking.uri))
    mlflow = Path(sys.executable).parent / "mlflow"
    runs = f"{mlflow} ui --backend-store-uri {uri}" if uri.startswith("sqlite:") else uri
    lines = [
        f"done in {seconds / 60:.1f} min",
        f"report:  {report.absolute()}",
        f"replays: {replays.absolute()}",
    ]
    return [*lines, f"runs:    {runs}"] if config.tracking.enabled else lines
