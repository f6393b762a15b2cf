"""Runs are recorded in full, and go on without the tracking server."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from command import start, wait_for
from torch import nn

from drivecast.scripts.command.execution import recorded_run
from drivecast.scripts.driving.registry import resolve_model
from drivecast.scripts.tracking.console import Console
from drivecast.scripts.tracking.journal import Journal, read_journal
from drivecast.scripts.tracking.mlflow_server import MODEL_FOLDER, MlflowServer, Unreachable
from drivecast.scripts.tracking.run import ConsoleRun, TrackingConfig
from drivecast.scripts.verbs.sync_metrics import SyncMetricsConfig
from drivecast.scripts.verbs.sync_metrics import run as sync_metrics
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.storage.checkpoint import load_model, save_model


@dataclass(frozen=True)
class Inner:
    steps: int = 3


@dataclass(frozen=True)
class TrainConfig:
    output: Path
    data: tuple[Path, ...] = ()
    training: Inner = Inner()
    note: str = "n" * 7000


@pytest.fixture(scope="session")
def database(tmp_path_factory) -> str:
    """One database for the session: making one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('tracking') / 'mlflow.db'}"


@pytest.fixture
def client(database):
    return MlflowServer(database)._mlflow.MlflowClient(tracking_uri=database, registry_uri=database)


def finished_run(uri: str, folder: Path, body, config=None) -> str:
    """Run `body(run)` to its end; returns what the console showed."""
    stream = io.StringIO()
    config = config or TrainConfig(folder)
    with recorded_run("train-world-model", config, TrackingConfig(uri=uri), Console(stream), True) as run:
        folder.mkdir(exist_ok=True)
        body(run)
    return stream.getvalue()


def run_id(folder: Path) -> str:
    entries = next(reversed(read_journal(folder).values()))
    return next(entry["mlflow_run_id"] for entry in entries if "mlflow_run_id" in entry)


def test_a_run_records_what_it_depends_on(database, client, tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    (store / "meta.json").write_text(json.dumps({"fingerprint": "abc123"}))
    finished_run(database, tmp_path / "out", lambda run: None, TrainConfig(tmp_path / "out", data=(store,)))
    recorded = client.get_run(run_id(tmp_path / "out"))
    assert recorded.info.status == "FINISHED"
    assert recorded.data.params["training.steps"] == "3"
    assert recorded.data.tags["data.store"] == "abc123"
    assert recorded.data.tags["version.torch"].startswith(torch.__version__.split("+")[0])
    assert "config.yaml" in [artifact.path for artifact in client.list_artifacts(recorded.info.run_id)]
    if (Path(__file__).resolve().parents[3] / ".git").exists():
        assert re.fullmatch("[0-9a-f]{40}", recorded.data.tags["git_revision"])
        assert recorded.data.tags["git_dirty"] in ("true", "false")


def test_every_metric_arrives_with_its_step_and_value(database, client, tmp_path):
    def body(run):
        for step in range(2500):
            run.log_metrics({"loss": step / 10, "odd (name)": 1}, step=step)
        run.log_metrics({"diverged": float("nan")}, step=1)

    finished_run(database, tmp_path / "out", body)
    history = client.get_metric_history(run_id(tmp_path / "out"), "loss")
    assert [(metric.step, metric.value) for metric in history] == [(step, step / 10) for step in range(2500)]
    assert len(client.get_metric_history(run_id(tmp_path / "out"), "odd _name_")) == 2500


def test_logging_does_not_wait(database, tmp_path):
    took_s = []

    def body(run):
        started_s = time.perf_counter()
        for step in range(1000):
            run.log_metrics({"loss": 1.0, "kl": 2.0}, step=step)
        took_s.append(time.perf_counter() - started_s)

    finished_run(database, tmp_path / "out", body)
    assert took_s[0] < 2.0  # 0.1 ms each where nothing else runs; MLflow's own log_metric takes 4 to 15 ms


def test_artifacts_and_figures_are_stored_beside_the_database(database, client, tmp_path):
    figure, results = tmp_path / "curve.png", tmp_path / "episodes"
    figure.write_bytes(b"png")
    results.mkdir()
    (results / "one.parquet").write_bytes(b"rows")

    def body(run):
        run.log_figure(figure)
        run.log_artifact(results, "kept")

    finished_run(database, tmp_path / "out", body)
    root = Path(database.removeprefix("sqlite:///")).parent
    identifier = run_id(tmp_path / "out")
    assert [item.path for item in client.list_artifacts(identifier, "figures")] == ["figures/curve.png"]
    assert [item.path for item in client.list_artifacts(identifier, "kept/episodes")] == ["kept/episodes/one.parquet"]
    assert list(root.glob(f"mlartifacts/drivecast/{identifier}/artifacts/figures/curve.png"))


def test_a_registered_model_is_found_by_name_and_version(database, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    for number in (1, 2):
        model = tmp_path / f"world-model-{number}.safetensors"
        save_model(model, nn.Linear(number, 1), "world-model", Inner(number))
        finished_run("", tmp_path / f"out{number}", lambda run, model=model: run.register_model(model, "cars"))
    assert load_model(resolve_model("models:/cars/1"), "world-model").config == {"steps": 1}
    assert load_model(resolve_model("models:/cars/latest"), "world-model").config == {"steps": 2}
    assert load_model(resolve_model(Path("models:/cars")), "world-model").config == {"steps": 2}
    for reference, told in [
        ("models:/trucks/latest", "no model is registered under the name 'trucks'"),
        ("models:/cars/7", "has no version 7; it has 1, 2"),
        ("models:/cars/best", "expected a version number or 'latest'"),
        ("nowhere.safetensors", "found nothing"),
    ]:
        with pytest.raises(InputError, match=re.escape(told)):
            resolve_model(reference)


def registered(database: str, folder: Path, name: str) -> None:
    """A model with a file that belongs to it, as `train-policy` registers it."""
    folder.mkdir()
    save_model(folder / "policy.safetensors", nn.Linear(1, 1), "policy", Inner(5))
    save_model(folder / "world-model.safetensors", nn.Linear(2, 1), "world-model", Inner(6))

    def body(run):
        run.log_artifact(folder / "world-model.safetensors", MODEL_FOLDER)
        run.register_model(folder / "policy.safetensors", name)

    finished_run(database, folder.parent / f"{folder.name}-out", body)


def test_a_registered_model_downloads_whole(database, tmp_path, monkeypatch):
    import mlflow

    registered(database, tmp_path / "policy", "whole")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    mlflow.set_tracking_uri(database)
    folder = Path(mlflow.artifacts.download_artifacts("models:/whole/1", dst_path=str(tmp_path / "downloaded")))
    assert {file.name for file in folder.iterdir()} == {"policy.safetensors", "world-model.safetensors"}
    found = resolve_model("models:/whole/latest")
    assert load_model(found, "policy").config == {"steps": 5}
    assert load_model(found, "world-model").config == {"steps": 6}
    assert Path(database.removeprefix("sqlite:///")).parent in found.parents  # where it lies, without a copy


def test_a_model_that_was_registered_as_a_file_is_found_with_what_belongs_to_it(server, tmp_path, monkeypatch):
    """As versions of drivecast before this one did it; here from a remote server, which sends files."""
    create = MlflowServer._call

    def as_before(self, method, *args, **kwargs):
        if method == "create_model_version":
            args = (args[0], f"{args[1]}/policy.safetensors", *args[2:])
        return create(self, method, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(MlflowServer, "_call", as_before)
        registered(server.uri, tmp_path / "policy", "older")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    found = resolve_model("models:/older/1")
    assert found.name == "policy.safetensors"
    assert load_model(found, "policy").config == {"steps": 5}
    assert load_model(found.with_name("world-model.safetensors"), "world-model").config == {"steps": 6}


def test_what_is_refused_before_any_work_leaves_no_run(database, client, tmp_path, monkeypatch):
    sent: list[str] = []
    call = MlflowServer._call
    monkeypatch.setattr(
        MlflowServer, "_call", lambda self, what, *a, **k: (sent.append(what), call(self, what, *a, **k))[1]
    )

    def refused(run):
        run.say("looking")
        raise InputError("data: no such store")

    with pytest.raises(InputError):
        finished_run(database, tmp_path / "out", refused)
    assert not (tmp_path / "out" / "metrics.jsonl").exists()
    assert sent == []

    def at_work(run):
        with run.progress(1, "steps"):
            raise InputError("the disk is full")

    with pytest.raises(InputError):
        finished_run(database, tmp_path / "out", at_work)
    assert client.get_run(run_id(tmp_path / "out")).info.status == "FAILED"


def test_a_run_is_shown_under_its_parent_also_where_the_parent_came_later(database, client, tmp_path):
    def under(parent: str, folder: Path, meanwhile=lambda: None):
        tracking = TrackingConfig(uri=database, parent=parent)
        with recorded_run("record", TrainConfig(folder), tracking, Console(io.StringIO()), True) as run:
            folder.mkdir()
            run.log_metrics({"loss": 1.0})
            meanwhile()
        return client.get_run(run_id(folder)).data.tags

    finished_run(database, tmp_path / "first", lambda run: None)
    parent = run_id(tmp_path / "first")
    assert under(parent, tmp_path / "by-mlflow-id")["mlflow.parentRunId"] == parent

    late = tmp_path / "late"

    def parent_comes():
        wait_until_recorded(client, tmp_path / "early")
        with recorded_run("demo", TrainConfig(late), TrackingConfig(uri=database), Console(io.StringIO()), True, "p1"):
            late.mkdir()

    tags = under("p1", tmp_path / "early", parent_comes)
    assert tags["mlflow.parentRunId"] == run_id(late)
    assert "mlflow.parentRunId" not in under("nobody", tmp_path / "orphan")


def test_a_run_that_is_gone_on_with_is_one_run(database, client, tmp_path):
    config, tracking, console = TrainConfig(tmp_path), TrackingConfig(uri=database), Console(io.StringIO())

    def stopped():
        with recorded_run("demo", config, tracking, console, True, "again") as run:
            run.begin()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    first = run_id(tmp_path)
    assert client.get_run(first).info.status == "KILLED"
    with recorded_run("demo", config, tracking, console, True, "again") as run:
        run.log_metrics({"seconds": 1.0})
        wait_for(lambda: client.get_run(first).info.status == "RUNNING", "the run to go on")
    assert last_run_id(tmp_path) == first
    assert client.get_run(first).info.status == "FINISHED"


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt, "KILLED"), (ZeroDivisionError, "FAILED"), (InputError, "FAILED")]
)
def test_the_end_of_a_run_is_recorded(database, client, tmp_path, error, status):
    def body(run):
        run.log_metrics({"loss": 1.0})
        raise error("now")

    with pytest.raises(error):
        finished_run(database, tmp_path / "out", body)
    recorded = client.get_run(run_id(tmp_path / "out"))
    assert recorded.info.status == status
    assert recorded.data.metrics == {"loss": 1.0}


def test_a_deleted_artifact_does_not_hold_up_the_rest(database, client, tmp_path):
    gone = tmp_path / "gone.png"
    gone.write_bytes(b"png")

    def body(run):
        run.log_artifact(gone)
        gone.unlink()
        run.log_metrics({"loss": 1.0})

    shown = finished_run(database, tmp_path / "out", body)
    assert "gone.png: it was removed before it could be stored" in shown
    assert client.get_run(run_id(tmp_path / "out")).data.metrics == {"loss": 1.0}


def test_a_missing_artifact_is_told_at_once(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a file or folder"):
        ConsoleRun().log_artifact(tmp_path / "none.png")


def test_runs_with_tracking_off_keep_their_metrics(tmp_path):
    with recorded_run(
        "record", TrainConfig(tmp_path / "out"), TrackingConfig(enabled=False), Console(io.StringIO()), True
    ) as run:
        (tmp_path / "out").mkdir()
        run.log_metrics({"loss": 1.5}, step=2)
        assert '"metrics":{"loss":1.5}' in (tmp_path / "out" / "metrics.jsonl").read_text()
    assert not list(tmp_path.glob("**/mlflow.db"))


def test_the_journal_survives_the_replacement_of_its_folder(tmp_path):
    journal = Journal(tmp_path / "store", "r1")
    journal.append({"begin": {}})
    assert not (tmp_path / "store").exists()
    (tmp_path / "store").mkdir()
    journal.append({"step": 1, "time_ms": 0, "metrics": {"a": 1.0}})
    (tmp_path / "store").rename(tmp_path / "old")
    (tmp_path / "store").mkdir()
    journal.append({"end": "FINISHED"})
    assert len(read_journal(tmp_path / "store")["r1"]) == 3


def test_a_cut_off_journal_is_read_up_to_the_cut(tmp_path):
    Journal(tmp_path, "r1").append({"begin": {}})
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"run": "r1", "st')
    assert len(read_journal(tmp_path)["r1"]) == 1
    (tmp_path / "metrics.jsonl").write_text("nonsense\n{}\n")
    with pytest.raises(InputError, match="line 1"):
        read_journal(tmp_path)


def test_a_resumed_run_does_not_write_on_a_line_that_was_cut(tmp_path):
    Journal(tmp_path, "r1").append({"begin": {"n": 1}})
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"run":"r1","step":3,"metr')
    resumed = Journal(tmp_path, "r2")
    for step in (3, 4):
        resumed.append({"step": step, "time_ms": 0, "metrics": {"run": 1.0}})
    runs = read_journal(tmp_path)
    assert runs["r1"] == [{"run": "r1", "begin": {"n": 1}}]
    assert [entry["step"] for entry in runs["r2"]] == [3, 4]


@pytest.mark.parametrize("rest", ['{"run":"r1","step":3,"metr', "\0" * 40, '{"r', ""])
def test_a_journal_that_an_older_version_went_on_in_is_still_read(tmp_path, rest):
    lines = ['{"run":"r1","begin":{}}\n', rest, '{"run":"r2","begin":{}}\n', '{"run":"r2","end":"FINISHED"}\n']
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    runs = read_journal(tmp_path)
    assert [len(runs["r1"]), len(runs["r2"])] == [1, 2]


def test_a_run_that_is_deleted_in_mid_training_is_kept_and_can_be_recorded_anew(database, client, tmp_path):
    def body(run):
        run.log_metrics({"loss": 0.5}, step=1)
        wait_until_recorded(client, tmp_path / "out")
        client.delete_run(run_id(tmp_path / "out"))
        run.log_metrics({"loss": 0.25}, step=2)

    shown = finished_run(database, tmp_path / "out", body)
    assert "was deleted there" in shown
    assert f"send it as a new run with: drivecast sync-metrics {tmp_path / 'out'}" in shown
    deleted = run_id(tmp_path / "out")
    console = io.StringIO()
    sync_metrics(SyncMetricsConfig(tmp_path / "out"), ConsoleRun(Console(console)))
    assert "2 metrics recorded" in console.getvalue()
    recorded = last_run_id(tmp_path / "out")
    assert recorded != deleted
    assert [(m.step, m.value) for m in client.get_metric_history(recorded, "loss")] == [(1, 0.5), (2, 0.25)]
    assert client.get_run(recorded).info.status == "FINISHED"


def wait_until_recorded(client, folder: Path) -> None:
    wait_for(lambda: any("mlflow_run_id" in line for line in (folder / "metrics.jsonl").open()), "the run to be made")
    wait_for(lambda: client.get_run(run_id(folder)).data.metrics, "its first metrics")


def last_run_id(folder: Path) -> str:
    entries = next(reversed(read_journal(folder).values()))
    return [entry["mlflow_run_id"] for entry in entries if "mlflow_run_id" in entry][-1]


def test_a_metric_that_is_refused_takes_no_other_with_it(database, client, tmp_path):
    def body(run):
        for step in range(20):
            run.log_metrics({"loss": step / 2}, step=step)
        run.log_metrics({"n" * 300: 1.0, "kl": 3.0}, step=20)
        run.log_metrics({"loss": 99.0}, step=21)

    shown = finished_run(database, tmp_path / "out", body)
    assert f"not recorded: metric '{'n' * 60}'" in shown
    recorded = client.get_run(run_id(tmp_path / "out"))
    assert recorded.data.metrics == {"loss": 99.0, "kl": 3.0}
    assert len(client.get_metric_history(recorded.info.run_id, "loss")) == 21
    console = io.StringIO()
    sync_metrics(SyncMetricsConfig(tmp_path / "out"), ConsoleRun(Console(console)))
    assert "recorded already" not in console.getvalue()


def test_a_lost_answer_to_the_first_request_leaves_no_second_run(database, client, tmp_path, monkeypatch):
    call = MlflowServer._call
    lost: list[str] = []

    def without_answer(self, method, *args, **kwargs):
        answer = call(self, method, *args, **kwargs)
        if method == "create_run" and not lost:
            lost.append(str(answer.info.run_id))
            raise Unreachable("the line was cut")
        return answer

    monkeypatch.setattr(MlflowServer, "_call", without_answer)
    finished_run(database, tmp_path / "out", lambda run: run.log_metrics({"loss": 1.0}))
    assert run_id(tmp_path / "out") == lost[0]
    assert client.get_run(lost[0]).data.metrics == {"loss": 1.0}


def test_any_error_of_the_delivery_is_told_and_the_rest_is_delivered(database, client, tmp_path, monkeypatch):
    deliver = MlflowServer.deliver
    failures: list[int] = []

    def failing(self, entries):
        if not failures:
            failures.append(1)
            raise ZeroDivisionError("a bug of somebody")
        deliver(self, entries)

    monkeypatch.setattr(MlflowServer, "deliver", failing)
    shown = finished_run(database, tmp_path / "out", lambda run: run.log_metrics({"loss": 1.0}))
    assert "does not answer (ZeroDivisionError: a bug of somebody)" in shown
    assert client.get_run(run_id(tmp_path / "out")).data.metrics == {"loss": 1.0}


def test_a_killed_run_is_ended_when_its_metrics_are_sent(database, client, tmp_path):
    finished_run(database, tmp_path / "out", lambda run: run.log_metrics({"loss": 1.0}, step=1))
    lines = (tmp_path / "out/metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "out/metrics.jsonl").write_text("".join(line for line in lines if '"end"' not in line))
    client.update_run(run_id(tmp_path / "out"), status="RUNNING")
    sync_metrics(SyncMetricsConfig(tmp_path / "out"), ConsoleRun())
    assert client.get_run(run_id(tmp_path / "out")).info.status == "KILLED"


@pytest.mark.parametrize("name", ["../../evil", "..", "a/b"])
def test_the_name_of_an_experiment_is_no_path(tmp_path, name):
    (tmp_path / "here").mkdir()
    server = MlflowServer(f"sqlite:///{tmp_path / 'here' / 'mlflow.db'}")
    experiment = server._experiment(name, server.uri)
    found = server._call("get_experiment", experiment)
    assert found.name == name
    where = Path(found.artifact_location.removeprefix("file://")).resolve()
    assert where.parent == (tmp_path / "here" / "mlartifacts").resolve()


TOGETHER = """
import sys
from pathlib import Path
from dataclasses import dataclass
from drivecast.scripts.tracking.console import Console
from drivecast.scripts.command.execution import recorded_run
from drivecast.scripts.tracking.run import TrackingConfig

@dataclass(frozen=True)
class Config:
    output: Path

folder = Path(sys.argv[1])
folder.mkdir()
with recorded_run("record", Config(folder), TrackingConfig(), Console(), True) as run:
    run.log_metrics({"loss": 1.0}, step=1)
"""


def together(folder: Path, count: int, rounds: int) -> None:
    """Commands that start at once where there is no database yet."""
    for number in range(rounds):
        here = folder / f"round-{number}"
        here.mkdir()
        processes = [start(here, f"out-{n}", code=TOGETHER, MLFLOW_TRACKING_URI="") for n in range(count)]
        told = [process.communicate(timeout=180) for process in processes]
        assert [process.returncode for process in processes] == [0] * count, told
        uri = f"sqlite:///{here / 'mlflow.db'}"
        client = MlflowServer(uri)._mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
        recorded = client.search_runs([client.get_experiment_by_name("drivecast").experiment_id])
        assert sorted(run.info.run_name for run in recorded) == [f"record out-{n}" for n in range(count)], told
        assert {run.info.status for run in recorded} == {"FINISHED"}
        assert not [entry.name for entry in here.iterdir() if entry.name.startswith(".")]


def test_commands_that_start_at_once_share_one_new_database(tmp_path):
    together(tmp_path, count=4, rounds=1)


class LocalServer:
    """A tracking server in a process of its own, that can be killed and started again on the same port."""

    def __init__(self, folder: Path, database: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder, self.database = folder, database
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)),
                *("--workers", "1", "--backend-store-uri", self.database),
                *("--artifacts-destination", str(self.folder / "served")),
            ],
            cwd=self.folder,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
            stdout=(self.folder / "server.log").open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        deadline_s = time.monotonic() + 180  # it loads for a minute where many others run
        while time.monotonic() < deadline_s:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=1):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise TimeoutError((self.folder / "server.log").read_text()[-2000:])

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
            self.process = None


@pytest.fixture(scope="module")
def local(tmp_path_factory, database):
    local = LocalServer(tmp_path_factory.mktemp("server"), database)
    yield local
    local.kill()


@pytest.fixture
def server(local):
    """A server that answers; the test before may have killed it, and to start one takes seconds."""
    if local.process is None:
        local.start()
    return local


def test_training_goes_on_when_the_server_dies_and_nothing_is_lost(server, tmp_path, monkeypatch):
    model = tmp_path / "policy.safetensors"
    save_model(model, nn.Linear(2, 1), "policy", Inner())
    steps = 1200
    slowest_s = [0.0]

    def body(run):
        for step in range(steps):
            started_s = time.perf_counter()
            run.log_metrics({"loss": float(step)}, step=step)
            slowest_s[0] = max(slowest_s[0], time.perf_counter() - started_s)
            if step == 600:
                until_s = time.monotonic() + 20
                while not list_sent(server, tmp_path / "out") and time.monotonic() < until_s:
                    time.sleep(0.1)
                server.kill()
            if step == 700:
                time.sleep(3)  # a delivery fails meanwhile
        run.register_model(model, "survivor")

    shown = finished_run(server.uri, tmp_path / "out", body)
    assert slowest_s[0] < 0.5
    warnings = [line for line in shown.splitlines() if "does not answer" in line]
    assert len(warnings) == 2  # when it was noticed, and at the end
    assert f"drivecast sync-metrics {tmp_path / 'out'}" in warnings[1]
    written = [entry for entry in next(iter(read_journal(tmp_path / "out").values())) if "metrics" in entry]
    assert len(written) == steps

    with pytest.raises(InputError, match="no answer"):
        sync_metrics(SyncMetricsConfig(tmp_path / "out"), ConsoleRun())
    server.start()
    sync_metrics(SyncMetricsConfig(tmp_path / "out"), ConsoleRun())
    client = MlflowServer(server.uri)._mlflow.MlflowClient(tracking_uri=server.uri, registry_uri=server.uri)
    history = client.get_metric_history(run_id(tmp_path / "out"), "loss")
    assert sorted(metric.step for metric in history) == list(range(steps))
    assert client.get_run(run_id(tmp_path / "out")).info.status == "FINISHED"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    assert load_model(resolve_model("models:/survivor/latest"), "policy").config == {"steps": 3}

    sync_metrics(SyncMetricsConfig(tmp_path / "out", all=True), ConsoleRun())
    assert len(client.get_metric_history(run_id(tmp_path / "out"), "loss")) == steps
    assert len(client.search_model_versions("name='survivor'")) == 1


def list_sent(server: LocalServer, folder: Path) -> bool:
    """Whether the server has some of the metrics."""
    try:
        identifier = run_id(folder)
    except StopIteration:
        return False
    client = MlflowServer(server.uri)._mlflow.MlflowClient(tracking_uri=server.uri)
    return bool(client.get_run(identifier).data.metrics)


def test_a_server_that_is_dead_from_the_start_costs_one_line_and_gets_the_run_later(database, client, tmp_path):
    shown = finished_run("http://127.0.0.1:9", tmp_path / "out", lambda run: run.log_metrics({"loss": 4.0}, step=1))
    assert 1 <= len([line for line in shown.splitlines() if "does not answer" in line]) <= 2
    sync_metrics(SyncMetricsConfig(tmp_path / "out", uri=database), ConsoleRun())
    recorded = client.get_run(run_id(tmp_path / "out"))
    assert recorded.data.metrics == {"loss": 4.0}
    assert recorded.data.params["training.steps"] == "3"


def test_progress_in_a_log_file_is_plain_lines(monkeypatch):
    now_s = [0.0]
    monkeypatch.setattr("drivecast.scripts.tracking.console.time.monotonic", lambda: now_s[0])
    stream = io.StringIO()
    with Console(stream).progress(total=100, what="steps") as progress:
        for _ in range(100):
            now_s[0] += 0.25
            progress.advance(loss=0.5)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "steps: 40/100, loss 0.5 (4/s, 15 s left)"
    assert len(lines) == 3
    assert "\x1b" not in stream.getvalue()


def test_tables_are_aligned():
    stream = io.StringIO()
    Console(stream).table("Collisions", ["driver", "rate"], [["idm", 0.0], ["idle", 0.95]])
    assert stream.getvalue().splitlines() == [
        "Collisions", "driver  rate", "------  ----", "idm        0", "idle    0.95"
    ]  # fmt: skip
