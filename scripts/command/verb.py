"""The verbs of the command. Their modules are imported only when they are used."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Verb:
    """One verb: `scripts/verbs/<module>.py` with a config dataclass and `run(config, run)`."""

    name: str
    summary: str
    positional: tuple[str, ...] = ()  # fields that may be given without their option
    short: tuple[tuple[str, str], ...] = ()  # such as ("-o", "output")
    output_is_folder: bool = True  # where metrics.jsonl goes
    tracked: bool = True  # as a run of MLflow
    preset: str | None = None  # of configs/, where no --config is given
    shared: bool = False  # by processes that torchrun starts
    writes: str = ""  # kind of its output, which another output of the same kind may replace; none given: its name

    @property
    def kind(self) -> str:
        return self.writes or self.name

    @property
    def module_name(self) -> str:
        return "drivecast.scripts.verbs." + self.name.replace("-", "_")

    def load(self) -> tuple[ModuleType, type[Any]]:
        """The verb's module and its config dataclass."""
        module = import_module(self.module_name)
        title = "".join(word.capitalize() for word in self.name.split("-"))
        return module, getattr(module, f"{title}Config")


VERBS = {
    verb.name: verb
    for verb in (
        Verb("ingest", "Read recorded traffic (tidy tables, NGSIM files) into a store.", writes="store"),
        Verb("record", "Drive highway-env and write the traffic into a store.", writes="store"),
        Verb("train-world-model", "Learn how traffic moves from the recordings of stores.", shared=True),
        Verb("forecast", "Measure a world model's forecasts against constant velocity."),
        Verb(
            "surprise", "Find the moments of recordings that a world model finds most surprising.", positional=("data",)
        ),
        Verb("train-policy", "Train a driver by backpropagating a cost through imagined futures.", shared=True),
        Verb("train-concepts", "Train the energy under which concepts are taught by a few demonstrations."),
        Verb("teach", "Teach a concept by a few demonstrations.", output_is_folder=False),
        Verb("distil-planner", "Teach a policy which lanes to choose by what the planner finds in imagination."),
        Verb("train-oracle", "Train the same driver through the simulator itself, to compare with."),
        Verb("train-baseline", "Train Stable-Baselines3's PPO, DQN or TQC in the batched simulator, to compare with."),
        Verb("clone-policy", "Train a driver by imitating recorded vehicles, to compare with."),
        Verb("tune-idm", "Search parameters of IDM and MOBIL that drive fast and safely.", output_is_folder=False),
        Verb("export", "Write a policy or a world model as ONNX, checked in onnxruntime.", output_is_folder=False),
        Verb("evaluate", "Drive closed-loop episodes and report collision rates."),
        Verb("benchmark", "Drive frozen suites with many drivers: collisions against speed."),
        Verb(
            "replay",
            "Turn an episode into a page or a film.",
            positional=("episode",),
            short=(("-o", "output"),),
            output_is_folder=False,
        ),
        Verb(
            "train-loop",
            "Train world model and policy in rounds, each on what the last one drove.",
            preset="train-loop",
            tracked=False,
        ),
        Verb("demo", "All of it on simulated traffic, with a report.", preset="demo", tracked=False),
        Verb("measure-simulator", "Time the batched simulator against highway-env itself."),
        Verb(
            "sync-metrics",
            "Send a tracking server what it missed while it did not answer.",
            positional=("folder",),
            tracked=False,
        ),
    )
}
