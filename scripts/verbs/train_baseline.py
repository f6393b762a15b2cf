"""`drivecast train-baseline`: Stable-Baselines3's PPO or DQN, trained in the batched simulator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from drivecast.envs.drivers.learned.training import BaselineTrainer, BaselineTrainingConfig
from drivecast.scripts.command.device import available_device
from drivecast.scripts.figures.curves import Curves
from drivecast.scripts.tracking.mlflow_server import MODEL_FOLDER
from drivecast.scripts.tracking.run import Run

PANELS = [
    ("reward of an episode", ["train/episode_reward"]),
    ("length of an episode, decisions", ["train/episode_length"]),
    ("share of episodes that crash", ["train/crash_share"]),
]


@dataclass(frozen=True)
class TrainBaselineConfig:
    """Train a baseline, Stable-Baselines3's PPO or DQN, on highway-env's observation, meta-actions and reward.

    Settings are those of highway-env's own scripts, but for more steps and more environments at a time. Leaves
    OUTPUT/model.zip, with model.json that says what it was trained on, and training-curves.png; it then drives as
    ppo:OUTPUT or dqn:OUTPUT. Needs stable-baselines3 (`pip install 'drivecast[baselines]'`).

    Args:
        algorithm: Which one: ppo or dqn.
        output: Folder of the model.
        seed: Seed of weights, scenes and exploration.
        steps: Decisions in all; highway-env's scripts take 20,000.
        environment: Where: highway-fast-v0, highway-v0, merge-v1, ...
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
    environments: int = 64
    vehicles: int = 0
    lanes: int = 0
    density: float = 0.0
    device: str = "cpu"
    training: BaselineTrainingConfig = field(default_factory=BaselineTrainingConfig)
    name: str = ""

    def overrides(self) -> dict[str, float]:
        """Of highway-env's configuration."""
        given = {"vehicles_count": self.vehicles, "lanes_count": self.lanes, "vehicles_density": self.density}
        return {name: value for name, value in given.items() if value}


def run(config: TrainBaselineConfig, run: Run) -> None:
    """Train, report and register."""
    trainer = BaselineTrainer(
        config.algorithm,
        config.environment,
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
        f"{config.algorithm} after {done} decisions, on new episodes of {config.environment}",
        ["measure", "value"],
        [(name, f"{value:.4f}") for name, value in curves.last("validation").items()],
    )
    run.say(f"{config.algorithm}: {path}; drive it as {config.algorithm}:{config.output}")
