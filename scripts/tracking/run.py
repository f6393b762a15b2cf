"""What a verb may say and store while it works: the `Run` protocol, and the run that only talks to the console."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from drivecast.scripts.tracking.console import Console, Progress
from drivecast.worldmodel.errors import InputError

FINISHED, FAILED, KILLED = "FINISHED", "FAILED", "KILLED"


@dataclass(frozen=True)
class TrackingConfig:
    """Where a run is recorded.

    Args:
        enabled: Record the run with MLflow; false: on the console (and in OUTPUT/metrics.jsonl) only.
        uri: MLflow's tracking server or database. Empty: `MLFLOW_TRACKING_URI`, else `sqlite:///mlflow.db` here.
        experiment: Experiment the run belongs to.
        name: Name of the run. Empty: the verb and the name of its output.
        parent: Run that this one is shown under: its id in MLflow, or `run` in its metrics.jsonl. Empty: none.
    """

    enabled: bool = True
    uri: str = ""
    experiment: str = "drivecast"
    name: str = ""
    parent: str = ""

    def __post_init__(self) -> None:
        if not self.experiment:
            raise InputError("tracking.experiment: expected a name, got an empty text")


class Run(Protocol):
    """One run of one verb."""

    def say(self, line: str) -> None:
        """One line for the user."""
        ...

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table for the user."""
        ...

    def progress(self, total: float, what: str) -> AbstractContextManager[Progress]:
        """A context whose `.advance(n=1, **shown_values)` shows progress, rate and time left."""
        ...

    def log_params(self, params: Mapping[str, object]) -> None:
        """Values that do not change over the run. The verb's configuration is logged already."""
        ...

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Numbers at `step`. Cheap: never waits for the tracking server."""
        ...

    def log_artifact(self, path: Path | str, folder: str | None = None) -> None:
        """Store a file or a folder. It is read later (at the latest when the run ends) and must stay until then."""
        ...

    def log_figure(self, path: Path | str) -> None:
        """Store a picture, under `figures/`."""
        ...

    def register_model(self, path: Path | str, name: str) -> None:
        """Store a model file and register it, to be found as `models:/NAME/latest`."""
        ...


class ConsoleRun:
    """A run that only talks to the console. Keeps the metrics it was given, for tests to look at."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self.metrics: list[tuple[int | None, dict[str, float]]] = []
        self.params: dict[str, object] = {}
        self.artifacts: list[tuple[Path, str | None]] = []
        self.models: list[tuple[Path, str]] = []

    def say(self, line: str) -> None:
        self.console.say(line)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        self.console.table(title, columns, rows)

    def progress(self, total: float, what: str) -> AbstractContextManager[Progress]:
        return self.console.progress(total, what)

    def log_params(self, params: Mapping[str, object]) -> None:
        self.params.update(params)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.metrics.append((step, numbers(metrics)))

    def log_artifact(self, path: Path | str, folder: str | None = None) -> None:
        self.artifacts.append((existing(path), folder))

    def log_figure(self, path: Path | str) -> None:
        self.log_artifact(path, "figures")

    def register_model(self, path: Path | str, name: str) -> None:
        self.models.append((existing(path), name))


def numbers(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics as plain floats (from tensors, NumPy scalars, ints)."""
    return {str(key): float(value) for key, value in metrics.items()}


def existing(path: Path | str) -> Path:
    """The path, absolute; a missing artifact is the programmer's error and is told at once."""
    found = Path(path).absolute()
    if not found.exists():
        raise FileNotFoundError(f"{path}: expected a file or folder to store with the run, found nothing")
    return found
