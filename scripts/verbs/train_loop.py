"""`drivecast train-loop`: drive, learn from it how the others answer, train in that again; round by round."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from drivecast.scripts.command.stages import Stages, in_stages
from drivecast.scripts.figures.rounds import draw_rounds
from drivecast.scripts.tracking.run import Run, TrackingConfig
from drivecast.scripts.verbs.distil_planner import DistilPlannerConfig
from drivecast.scripts.verbs.evaluate import EvaluateConfig
from drivecast.scripts.verbs.forecast import ForecastConfig
from drivecast.scripts.verbs.record import RecordConfig
from drivecast.scripts.verbs.train_policy import TrainPolicyConfig
from drivecast.scripts.verbs.train_world_model import TrainWorldModelConfig
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.loading import POLICY_FILE, WORLD_MODEL_FILE
from drivecast.worldmodel.storage.files import atomic_file

HERE = Path("set by the loop")
COLUMNS = ["round", "collisions %", "speed m/s", "forecast error m, before", "after"]
HORIZON_S = 3.0  # at which forecasts before and after are compared


@dataclass(frozen=True)
class TrainLoopConfig:
    """Train world model and policy in rounds: what the policy of a round drives is what the next one learns from too.

    A round is: a world model (the first one from DATA, or from START_FROM; a later one goes on from the one before, on
    DATA and all drives so far), a policy through it, what the planner teaches that policy, and drives of it in the
    simulator. It ends with all rounds' policies on the same seeds. What is done already with the same settings is not
    done again; a training that was stopped goes on, and more rounds can be added later.

    Args:
        data: Recording stores to begin with; of simulated traffic.
        output: Folder for everything; the last policy is OUTPUT/policy-ROUNDS.
        rounds: How many.
        start_from: World model of the first round, in the place of training one: pretrained:highway, a file, ...
        refresh_steps: Training steps of the world model in later rounds.
        distil: Let the planner teach each round's policy; else the policy is what backpropagation alone makes of it.
        train_world_model: The world model of the first round, and how it is trained in all of them.
        train_policy: The policy.
        distil_planner: What the planner teaches it.
        record: The drives; half of their egos start among the others, and each has a speed of its own to reach.
        forecast: Forecasts of the others in drives of the round before, by the world models before and after them.
        evaluate: The closed loop at the end; the rounds' policies are added to its drivers.
        tracking: Where the stages are recorded, each as a run.
    """

    data: list[Path]
    output: Path
    rounds: int = 2
    start_from: str = ""
    refresh_steps: int = 400
    distil: bool = True
    train_world_model: TrainWorldModelConfig = field(default_factory=lambda: TrainWorldModelConfig([HERE], HERE))
    train_policy: TrainPolicyConfig = field(default_factory=lambda: TrainPolicyConfig("", [HERE], HERE))
    distil_planner: DistilPlannerConfig = field(default_factory=lambda: DistilPlannerConfig("", HERE))
    record: RecordConfig = field(default_factory=lambda: RecordConfig(HERE, episodes=200))
    forecast: ForecastConfig = field(default_factory=lambda: ForecastConfig("", HERE, HERE))
    evaluate: EvaluateConfig = field(default_factory=lambda: EvaluateConfig(HERE, environment=["highway-v0"]))
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        for name in ("rounds", "refresh_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.record.driver or self.record.behaviour:
            raise InputError("record.driver, record.behaviour: the policies of the rounds drive; leave both out")


@dataclass(frozen=True)
class Places:
    """Where a round's products lie, `number` from 1 on."""

    output: Path
    number: int

    def of(self, what: str) -> Path:
        return self.output / f"{what}-{self.number}"

    @property
    def world_model(self) -> Path:
        return self.of("world-model") / WORLD_MODEL_FILE


def run(config: TrainLoopConfig, run: Run) -> None:
    """Do what is not done yet; say what became of it."""
    per_round = 4 if config.distil else 3
    total = per_round * config.rounds + 2 * (config.rounds - 1)  # no drives after the last, one evaluation of all
    with in_stages("train-loop", config, config.output, config.tracking, total, run) as (stages, recorded):
        for number in range(1, config.rounds + 1):
            _round(config, stages, Places(config.output, number))
        places = [Places(config.output, number) for number in range(1, config.rounds + 1)]
        policies = [f"policy:{place.of('policy')}" for place in places]
        evaluation = config.output / "evaluation"
        closed_loop = replace(config.evaluate, driver=[*policies, *config.evaluate.driver], output=evaluation)
        stages.do("evaluate", closed_loop, evaluation, evaluation / "results.json")
        rounds = [_outcome(place, evaluation) for place in places]
        with atomic_file(config.output / "rounds.json") as temporary:
            temporary.write_text(json.dumps(rounds, indent=2) + "\n", encoding="utf-8")
        recorded.log_figure(draw_rounds(config.output / "rounds.png", rounds))
        for one in rounds:
            recorded.log_metrics({f"loop/{name}": value for name, value in _numbers(one).items()}, one["round"])
    run.table("round by round", COLUMNS, _rows(rounds))
    run.say(f"policy: drive it as {policies[-1]}; figure: {config.output / 'rounds.png'}")


def _round(config: TrainLoopConfig, stages: Stages, here: Places) -> None:
    before = Places(config.output, here.number - 1)
    drives = [Places(config.output, number).of("drives") for number in range(1, here.number)]
    data, model = [*config.data, *drives], here.of("world-model")
    start = str(before.world_model) if drives else config.start_from
    training = replace(config.train_world_model, data=data, output=model, start_from=start)
    if start:
        training = replace(training, training=replace(training.training, steps=config.refresh_steps))

    def stage(verb: str, given: Any, folder: Path, file: str) -> None:
        stages.do(verb, given, folder, folder / file, folder.name)

    stage("train-world-model", training, model, WORLD_MODEL_FILE)
    for when, place in (("before", before), ("after", here)) if drives else ():
        forecast = here.of(f"forecast-{when}")
        stage(
            "forecast",
            replace(config.forecast, model=str(place.world_model), data=drives[-1], output=forecast),
            forecast,
            "forecast.json",
        )
    reactive, policy = here.of("reactive" if config.distil else "policy"), here.of("policy")
    of_policy = replace(config.train_policy, world_model=str(here.world_model), data=data, output=reactive)
    stage("train-policy", of_policy, reactive, POLICY_FILE)
    if config.distil:
        stage(
            "distil-planner",
            replace(config.distil_planner, policy=str(reactive), output=policy),
            policy,
            POLICY_FILE,
        )
    if here.number < config.rounds:
        drive = replace(config.record, driver=f"policy:{policy}", output=here.of("drives"))
        stage("record", replace(drive, seed=config.record.seed + here.number), here.of("drives"), "meta.json")


# ---- what became of it ------------------------------------------------------------------------------------------


def _outcome(place: Places, evaluation: Path) -> dict[str, Any]:
    """A round: how its policy drove, and how well the drives before it are foretold without and with them."""
    results = json.loads((evaluation / "results.json").read_text(encoding="utf-8"))
    driver = f"policy:{place.of('policy')}"
    names = ("environment", "episodes", "collision_rate", "collision_low", "collision_high", "mean_speed_mps")
    drove = [{name: result[name] for name in names} for result in results if result["driver"] == driver]
    outcome: dict[str, Any] = {"round": place.number, "closed_loop": drove}
    for when in ("before", "after"):
        file = place.of(f"forecast-{when}") / "forecast.json"
        if place.number > 1:
            outcome[f"forecast_{when}_m"] = _error_m(json.loads(file.read_text(encoding="utf-8")))
    return outcome


def _error_m(forecast: dict[str, Any]) -> float:
    """Root mean square error of the likeliest future at `HORIZON_S`."""
    errors = dict(zip(forecast["horizons_s"], forecast["rmse_m"], strict=True))
    return float(errors[HORIZON_S])


def _numbers(outcome: dict[str, Any]) -> dict[str, float]:
    found = {name: value for name, value in outcome.items() if name.startswith("forecast")}
    for drove in outcome["closed_loop"]:
        for name in ("collision_rate", "mean_speed_mps"):
            found[f"{drove['environment']}/{name}"] = drove[name]
    return found


def _rows(rounds: list[dict[str, Any]]) -> list[list[object]]:
    rows: list[list[object]] = []
    for one in rounds:
        errors = [f"{one[name]:.2f}" if name in one else "-" for name in ("forecast_before_m", "forecast_after_m")]
        for drove in one["closed_loop"]:
            rate, low, high = (100 * drove[f"collision_{name}"] for name in ("rate", "low", "high"))
            interval = f"{rate:.1f} [{low:.1f}, {high:.1f}]"
            rows.append([one["round"], interval, f"{drove['mean_speed_mps']:.2f}", *errors])
    return rows
