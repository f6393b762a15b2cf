"""`drivecast train-baseline`: Stable-Baselines3's PPO, DQN or TQC, trained in the batched simulator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from drivecast.envs.batched.simulator import SPAWNS
from drivecast.envs.drivers.learned.settings import BaselineTrainingConfig
from drivecast.envs.drivers.learned.training import BaselineTrainer
from drivecast.envs.evaluation.suites import SUITES
from drivecast.scripts.command.device import available_device
from drivecast.scripts.figures.curves import Curves
from drivecast.scripts.tracking.mlflow_server import MODEL_FOLDER
from drivecast.scripts.tracking.run import Run
from drivecast.worldmodel.errors import InputError

FRAMES_PER_S = 10  # of the suites
PANELS = [
    ("reward of an episode", ["train/episode_reward"]),
    ("length of an episode, decisions", ["train/episode_length"]),
    ("share of episodes that crash", ["train/crash_share"]),
]


@dataclass(frozen=True)
class TrainBaselineConfig:
    """Train a baseline, Stable-Baselines3's PPO, DQN or TQC, on highway-env's observation, actions and reward.

    PPO and DQN choose meta-actions, with settings of highway-env's own scripts, but for more steps and more
    environments at a time; TQC (sb3-contrib) chooses acceleration and steering. Leaves OUTPUT/model.zip, with
    model.json that says what it was trained on, and training-curves.png; it then drives as ppo:OUTPUT, dqn:OUTPUT or
    tqc:OUTPUT. Needs stable-baselines3 and sb3-contrib (`pip install 'drivecast[baselines]'`).

    Args:
        algorithm: Which one: ppo, dqn or tqc.
        output: Folder of the model.
        seed: Seed of weights, scenes and exploration.
        steps: Decisions in all; highway-env's scripts take 20,000.
        environment: Where: highway-fast-v0, highway-v0, merge-v1, ...
        suite: Train in this suite's road and number of cars at 10 Hz, among highway-env's own drivers: highway,
            highway-dense, ...; instead of environment, vehicles, lanes and density. Empty: in those.
        environments: Episodes side by side.
        vehicles: Number of cars beside the ego; 0: highway-env's own.
        lanes: Number of lanes; 0: highway-env's own.
        density: Of the traffic at the start, highway-env's measure; 0: its own, 1.
        device: Where the networks are computed: cpu, or cuda where there is one.
        training: Settings of the learning.
        name: Name under which the model is registered; empty: baseline-ALGORITHM.
    """

    algorithm: str
    output: Path
    seed: int = 0
    steps: int = 100_000
    environment: str = "highway-fast-v0"
    suite: str = ""
    environments: int = 64
    vehicles: int = 0
    lanes: int = 0
    density: float = 0.0
    device: str = "cpu"
    training: BaselineTrainingConfig = field(default_factory=BaselineTrainingConfig)
    name: str = ""

    def __post_init__(self) -> None:
        known = [suite.name for suite in SUITES.values() if suite.environment in SPAWNS]
        if self.suite and self.suite not in known:
            raise InputError(f"suite: expected one of {', '.join(known)}; got '{self.suite}'")
        if self.suite and (self.vehicles or self.lanes or self.density):
            raise InputError("suite: says how many cars and lanes there are; leave out vehicles, lanes and density")

    @property
    def trains_in(self) -> str:
        """highway-env's name of the environment."""
        return SUITES[self.suite].environment if self.suite else self.environment

    def overrides(self) -> dict[str, float]:
        """Of highway-env's configuration."""
        of = SUITES[self.suite] if self.suite else self
        given = {"vehicles_count": of.vehicles, "lanes_count": of.lanes, "vehicles_density": of.density}
        if self.suite:
            given.update(simulation_frequency=FRAMES_PER_S, duration=SUITES[self.suite].duration_s)
        return {name: value for name, value in given.items() if value}


def run(config: TrainBaselineConfig, run: Run) -> None:
    """Train, report and register."""
    trainer = BaselineTrainer(
        config.algorithm,
        config.trains_in,
        config.output,
        config.training,
        config.steps,
        config.environments,
        config.seed,
        config.overrides(),
        available_device(config.device),
    )
    curves = Curves(config.output / "training-curves.csv")
    done = 0

    try:
        with run.progress(config.steps, f"training {config.algorithm}") as progress:

            def on_step(step: int, values: Mapping[str, float]) -> None:
                nonlocal done
                progress.advance(step - done, **values)
                done = step

            def log(step: int, values: Mapping[str, float]) -> None:
                run.log_metrics(values, step)
                curves.add(step, values)

            path = trainer.train(log, on_step)
    except KeyboardInterrupt:
        if trainer.stopped.exists():
            run.say(
                f"stopped after {done} of {config.steps} decisions; what it has learned so far drives as "
                f"{config.algorithm}:{trainer.stopped.parent}; the same command begins anew"
            )
        raise
    run.log_figure(curves.draw(config.output / "training-curves.png", PANELS))
    run.log_artifact(path.with_suffix(".json"), MODEL_FOLDER)
    run.register_model(path, config.name or f"baseline-{config.algorithm}")
    run.table(
        f"{config.algorithm} after {done} decisions, on new episodes of {config.suite or config.environment}",
        ["measure", "value"],
        [(name, f"{value:.4f}") for name, value in curves.last("validation").items()],
    )
    run.say(f"{config.algorithm}: {path}; drive it as {config.algorithm}:{config.output}")
