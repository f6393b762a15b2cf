"""Entries of a run's journal, delivered to MLflow. Delivering an entry twice leaves it there once."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from drivecast.scripts.tracking.journal import Entry, metric_entries
from drivecast.worldmodel.storage.files import atomic_file

DEFAULT_DATABASE = "mlflow.db"
DEFAULT_ARTIFACTS = "mlartifacts"
SQLITE = "sqlite:///"
MODEL_FOLDER = "model"  # of a run's artifacts: the registered model, and what it needs beside it
MODEL_ENDINGS = (".safetensors", ".zip")
SECONDS_TO_MAKE_DATABASE = 120.0
RUN_TAG = "drivecast.run"  # its id in the journal
PARENT_TAG = "drivecast.parent"  # the run that it is shown under, by its id in the journal or in MLflow
MLFLOW_PARENT_TAG = "mlflow.parentRunId"
METRICS_PER_REQUEST = 1000  # MLflow's limit
PARAMS_PER_REQUEST = 100  # MLflow's limit
PARAM_CHARACTERS = 6000  # MLflow's limit; the whole value stands in the artifact config.yaml
# A request that hangs must not hold up the end of a run for minutes (MLflow's own: 120 s, 7 retries).
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}
# Trying again does not help: the server got the request, and it is wrong.
REJECTIONS = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "PERMISSION_DENIED"}


class Rejected(Exception):  # noqa: N818 (an answer, not a failure of ours)
    """The server, or the file to send, makes this entry undeliverable for good."""


class Unreachable(Exception):  # noqa: N818
    """The server does not answer; the entry can be delivered later."""


class RunDeleted(Unreachable):
    """Somebody deleted the run at the server; the entry can be delivered once it is restored, or to a new run."""


def tracking_uri(configured: str = "") -> str:
    """The configured server, else the environment's, else the database of the working directory."""
    return configured or os.environ.get("MLFLOW_TRACKING_URI", "") or SQLITE + DEFAULT_DATABASE


def absolute_uri(uri: str) -> str:
    """The same server, for whoever reads the journal in another working directory."""
    if uri.startswith(SQLITE) and not uri.startswith(SQLITE + "/"):
        return SQLITE + str(Path(uri[len(SQLITE) :]).absolute())
    return uri


class MlflowServer:
    """One run at one server. Methods raise `Unreachable` or `Rejected`, with one line."""

    def __init__(self, uri: str, run_id: str | None = None) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        for name in ("mlflow", "alembic", "urllib3"):
            logging.getLogger(name).setLevel(logging.ERROR)
        import mlflow  # slow, and not needed where tracking is off

        self.uri = uri
        self.run_id = run_id
        self._parent = self._experiment_id = ""
        self._mlflow = mlflow
        self._client: Any = None

    def knows_run(self) -> bool:
        """Whether the server has the run (a new database has not) and nobody deleted it."""
        try:
            return str(self._call("get_run", self._id).info.lifecycle_stage) == "active"
        except Rejected:
            return False

    def begin(self, begin: Entry) -> str:
        """Create the run with its parameters, tags and configuration, or go on with it; returns its id."""
        self._experiment_id = self._experiment(begin["experiment"], begin["tracking_uri"])
        if self.run_id is None:
            self.run_id = self._begun_before(begin["tags"].get(RUN_TAG, ""))
            if self.run_id is not None:
                self._call("update_run", self.run_id, "RUNNING")
        if self.run_id is None:
            run = self._call("create_run", self._experiment_id, begin["start_ms"], begin["tags"], begin["name"])
            self.run_id = str(run.info.run_id)
        self._parent = begin["tags"].get(PARENT_TAG, "")
        self._show_under_parent()
        self.params(begin["params"])
        if begin.get("config"):
            self._call("log_text", self.run_id, begin["config"], "config.yaml")
        return self.run_id

    def deliver(self, entries: Sequence[Entry]) -> None:
        """Send entries of one kind: any number of metrics, or one of another kind."""
        try:
            self._deliver(entries)
        except Rejected as error:
            if not self.knows_run():
                raise RunDeleted(f"run {self._id} was deleted there") from error
            raise

    def _deliver(self, entries: Sequence[Entry]) -> None:
        if "metrics" in entries[0]:
            self._metrics([metric for entry in entries for metric in metric_entries(entry)])
            return
        for entry in entries:
            if "params" in entry:
                self.params(entry["params"])
            elif "artifact" in entry:
                self._artifact(Path(entry["artifact"]), entry["folder"])
            elif "model" in entry:
                self._model(Path(entry["model"]), entry["name"])
            elif "end" in entry:
                self._show_under_parent()
                self._call("set_terminated", self._id, entry["end"], entry["end_ms"])

    def model_versions(self, name: str) -> list[int]:
        """Versions of a registered model."""
        return [int(version.version) for version in self._versions(name)]

    def model_file(self, name: str, version: int) -> Path:
        """The model's local folder, or its file with all that belongs to it beside it: where it lies, or downloaded.

        Versions registered by older versions of drivecast name the file; what lies beside it belongs to it.
        """
        source = str(self._call("get_model_version_download_uri", name, str(version))).rstrip("/")
        file = source.rpartition("/")[2] if source.endswith(MODEL_ENDINGS) else ""
        folder = source.removesuffix(file).rstrip("/")
        if found := re.fullmatch("runs:/([^/]+)/(.*)", folder):  # MLflow copies what it is asked for by its run
            folder = f"{self._call('get_run', found[1]).info.artifact_uri}/{found[2]}"
        download = self._mlflow.artifacts.download_artifacts
        place = Path(self._guarded(download, artifact_uri=folder, tracking_uri=self.uri, registry_uri=self.uri))
        return place / file if file else place

    def params(self, params: dict[str, str]) -> None:
        entity = self._mlflow.entities.Param
        entities = [entity(_name(key), value[:PARAM_CHARACTERS]) for key, value in params.items()]
        for start in range(0, len(entities), PARAMS_PER_REQUEST):
            self._call("log_batch", self._id, params=entities[start : start + PARAMS_PER_REQUEST])

    @property
    def _id(self) -> str:
        if self.run_id is None:
            raise RuntimeError("the run has not begun")
        return self.run_id

    def _metrics(self, metrics: list[tuple[str, float, int, int]]) -> None:
        """Send all of them but those that the server does not take, which are named once the others are there."""
        entity = self._mlflow.entities.Metric
        refused: dict[str, str] = {}
        waiting = [metrics[n : n + METRICS_PER_REQUEST] for n in range(0, len(metrics), METRICS_PER_REQUEST)]
        while waiting:
            batch = waiting.pop()
            entities = [entity(_name(name), value, time_ms, step) for name, value, time_ms, step in batch]
            try:
                self._call("log_batch", self._id, metrics=entities)
            except Rejected as error:
                if not self.knows_run():
                    raise
                if len(batch) == 1:
                    refused.setdefault(batch[0][0], str(error))
                else:
                    waiting += [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
        if refused:
            name, reason = next(iter(refused.items()))
            more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
            raise Rejected(f"metric '{name[:60]}'{more}: {reason}")

    def _artifact(self, path: Path, folder: str | None) -> None:
        if not path.exists():
            raise Rejected(f"{path}: it was removed before it could be stored with the run")
        if path.is_dir():
            self._call("log_artifacts", self._id, str(path), "/".join(filter(None, [folder, path.name])))
        else:
            self._call("log_artifact", self._id, str(path), folder)

    def _model(self, path: Path, name: str) -> None:
        if any(version.run_id == self._id for version in self._versions(name)):
            return
        self._artifact(path, MODEL_FOLDER)
        try:
            self._call("create_registered_model", name)
        except Rejected:
            self._call("get_registered_model", name)  # it exists already, or the name is refused
        # a folder, so that `mlflow.artifacts.download_artifacts` finds all of it, companions too
        self._call("create_model_version", name, f"runs:/{self._id}/{MODEL_FOLDER}", self._id)

    def _begun_before(self, run: str) -> str | None:
        """The run with that id in the journal, if the server has it: its answer was lost, or it is gone on with."""
        if not run:
            return None
        found = self._call("search_runs", [self._experiment_id], f"tags.`{RUN_TAG}` = '{run}'", max_results=1)
        return str(found[0].info.run_id) if found else None

    def _show_under_parent(self) -> None:
        """Nest the run in its parent; tried again at its end where the server did not have the parent yet."""
        if not self._parent:
            return
        is_mlflow_id = re.fullmatch("[0-9a-f]{32}", self._parent)
        if parent := self._parent if is_mlflow_id else self._begun_before(self._parent):
            self._call("set_tag", self._id, MLFLOW_PARENT_TAG, parent)
            self._parent = ""

    def _versions(self, name: str) -> list[Any]:
        return list(self._call("search_model_versions", f"name='{name}'"))

    def _experiment(self, name: str, uri: str) -> str:
        found = self._call("get_experiment_by_name", name)
        if found is not None:
            return str(found.experiment_id)
        # A database has no artifact store of its own: keep the files beside it, not scattered over working directories.
        database = uri.removeprefix(SQLITE)
        folder = Path(database).parent / DEFAULT_ARTIFACTS / re.sub(r"[/\\\0]|^\.+", "_", name)  # a name, never a path
        location = folder.as_uri() if database != uri else None
        try:
            return str(self._call("create_experiment", name, location))
        except Rejected:
            return str(self._call("get_experiment_by_name", name).experiment_id)  # another process was faster

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        def call() -> Any:
            if self._client is None:
                self._make_database()
                self._client = self._mlflow.MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
            return getattr(self._client, method)(*args, **kwargs)

        return self._guarded(call)

    def _make_database(self) -> None:
        """Make a local database that is not there yet: once, whoever else starts now, and whole or not at all.

        MLflow makes its tables in the open, one after the other: two at once spoil them for good, and so does a kill.
        """
        database = Path(self.uri.removeprefix(SQLITE))
        if not self.uri.startswith(SQLITE) or database.exists():
            return
        lock = database.with_name(f".{database.name}.lock")
        with FileLock(lock, timeout=SECONDS_TO_MAKE_DATABASE):
            for left in database.parent.glob(f".{database.name}.*.part*"):  # by one that was killed while it made it
                left.unlink(missing_ok=True)
            if not database.exists():
                with atomic_file(database) as temporary:
                    self._mlflow.MlflowClient(tracking_uri=f"{SQLITE}{temporary}").search_experiments(max_results=1)
            lock.unlink()  # while it is held: who waits for it then finds that it is gone

    def _guarded(self, function: Callable[..., Any], **kwargs: Any) -> Any:
        from mlflow.exceptions import MlflowException
        from requests.exceptions import RequestException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            return function(**kwargs)
        except MlflowException as error:
            if error.error_code in REJECTIONS:
                raise Rejected(_first_line(error)) from error
            raise Unreachable(_first_line(error)) from error
        except (RequestException, SQLAlchemyError, OSError) as error:  # Timeout of a lock is an OSError
            raise Unreachable(_first_line(error)) from error


def _name(name: str) -> str:
    return re.sub(r"[^\w\-. :/]", "_", name)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
