"""Send to the tracking server what it missed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from drivecast.scripts.tracking.journal import Entry, Journal, read_journal
from drivecast.scripts.tracking.mlflow_server import MlflowServer, Rejected, Unreachable, absolute_uri, tracking_uri
from drivecast.scripts.tracking.run import KILLED, Run
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.storage.lock import held_for_writing


@dataclass(frozen=True)
class SyncMetricsConfig:
    """Send the metrics and artifacts that a tracking server missed while it did not answer.

    Args:
        folder: Output folder of the run, which holds metrics.jsonl.
        uri: MLflow's tracking server or database. Empty: `MLFLOW_TRACKING_URI`, else the one that the run began with.
        all: Send runs again that the server should have in full. Nothing is recorded twice.
    """

    folder: Path
    uri: str = ""
    all: bool = False


def run(config: SyncMetricsConfig, run: Run) -> None:
    """Deliver every run of the journal that did not end with everything sent.

    Nobody else writes there meanwhile, so a run without an end was killed.
    """
    folder = config.folder if config.folder.is_dir() else config.folder.parent
    if not folder.is_dir():
        raise InputError(f"{config.folder}: expected a run's output folder, found nothing")
    with held_for_writing(folder, "`drivecast sync-metrics`"):
        _sync(config, run)


def _sync(config: SyncMetricsConfig, run: Run) -> None:
    for name, entries in read_journal(config.folder).items():
        ends = [entry for entry in entries if "end" in entry]
        if ends and ends[-1].get("sent") and not config.all:
            run.say(f"{_title(entries)}: recorded already")
            continue
        begins = [entry["begin"] for entry in entries if "begin" in entry]
        if not begins:
            raise InputError(f"{config.folder}: run {name} has no beginning in metrics.jsonl; the file was changed")
        begin = {**begins[0]}
        begin["tracking_uri"] = absolute_uri(tracking_uri(config.uri)) if config.uri else _uri(begin)
        _send(name, begin, entries, config, run)


def _send(name: str, begin: Entry, entries: list[Entry], config: SyncMetricsConfig, run: Run) -> None:
    uri = begin["tracking_uri"]
    ids = [entry["mlflow_run_id"] for entry in entries if "mlflow_run_id" in entry]
    server = MlflowServer(uri, ids[-1] if ids else None)
    journal = Journal(config.folder if config.folder.is_dir() else config.folder.parent, name)
    metrics = [entry for entry in entries if "metrics" in entry]
    others = [entry for entry in entries if "metrics" not in entry]
    if not any("end" in entry for entry in entries):
        moments = [begin["start_ms"], *(int(entry["time_ms"]) for entry in metrics)]
        others.append({"end": KILLED, "end_ms": max(moments)})
    refused = 0
    try:
        if server.run_id is not None and not server.knows_run():
            server.run_id = None  # another server, or a new database
        known = server.run_id
        run_id = server.begin(begin)
        if run_id != known:
            journal.append({"mlflow_run_id": run_id})
        with run.progress(total=len(metrics) + len(others), what="entries") as progress:
            for start in range(0, len(metrics), 500):
                batch = metrics[start : start + 500]
                refused += _delivered(server, batch, run)
                progress.advance(len(batch))
            for entry in others:
                refused += _delivered(server, [entry], run)
                progress.advance()
    except Rejected as error:
        raise InputError(f"{uri}: refused the run: {error}") from error
    except Unreachable as error:
        raise InputError(f"{uri}: no answer ({error}); nothing is lost, try again later") from error
    end = [entry for entry in others if "end" in entry][-1]
    journal.append({"end": end["end"], "end_ms": end["end_ms"], "sent": not refused})
    count = sum(len(entry["metrics"]) for entry in metrics)
    run.say(f"{_title(entries)}: {count} metrics recorded at {uri} as run {run_id}")


def _delivered(server: MlflowServer, entries: list[Entry], run: Run) -> int:
    """1 where some of it was refused, else 0."""
    try:
        server.deliver(entries)
    except Rejected as error:
        run.say(f"not recorded: {error}")
        return 1
    return 0


def _uri(begin: Entry) -> str:
    import os

    configured = os.environ.get("MLFLOW_TRACKING_URI", "")
    return absolute_uri(configured) if configured else str(begin["tracking_uri"])


def _title(entries: list[Entry]) -> str:
    return next((str(entry["begin"]["name"]) for entry in entries if "begin" in entry), str(entries[0]["run"]))
