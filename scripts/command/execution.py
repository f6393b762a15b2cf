"""A verb's run from its beginning to its end, whatever the end is."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drivecast.scripts.command.verb import VERBS, Verb
from drivecast.scripts.tracking.console import Console
from drivecast.scripts.tracking.journal import Entry
from drivecast.scripts.tracking.provenance import code_tags, config_yaml, data_tags, flat_params, store_fingerprint
from drivecast.scripts.tracking.run import FAILED, FINISHED, KILLED, ConsoleRun, TrackingConfig
from drivecast.worldmodel.errors import InputError

if TYPE_CHECKING:
    from drivecast.scripts.tracking.mlflow_run import JournalRun

REFUSED = "REFUSED"  # no run at all


def execute(verb: Verb, config: Any, tracking: TrackingConfig, console: Console | None = None) -> None:
    """Run a verb with its config, recorded as `tracking` says.

    Of several processes that torchrun has started, the first alone holds the output, speaks and records.
    """
    from drivecast.scripts.command.output import claimed

    if _processes() > 1 and not verb.shared:
        able = ", ".join(each.name for each in VERBS.values() if each.shared)
        raise InputError(
            f"{verb.name}: can't be shared by several processes; start it without torchrun (it is for {able})"
        )
    module, _ = verb.load()
    if not _leads():
        with (
            Path(os.devnull).open("w", encoding="utf-8") as nowhere,
            recorded_run(verb.name, config, tracking, Console(nowhere), verb.output_is_folder) as run,
        ):
            module.run(config, run)
        return
    console = console or Console()
    with claimed(verb, config) as config:
        if verb.tracked:
            with recorded_run(verb.name, config, tracking, console, verb.output_is_folder) as run:
                module.run(config, run)
        else:
            module.run(config, ConsoleRun(console))


@contextmanager
def recorded_run(
    verb: str, config: object, tracking: TrackingConfig, console: Console, output_is_folder: bool, run_id: str = ""
) -> Iterator[JournalRun]:
    """Yield the run of `verb`; it ends FINISHED, KILLED (by the keyboard or a signal) or FAILED (by an exception).

    A configuration that is refused before any work is done leaves no run. `run_id` is that of a run in the journal to
    go on with. Where training is spread over processes (torchrun sets RANK), only the first one records.
    """
    from drivecast.scripts.tracking.mlflow_run import JournalRun, MlflowRun
    from drivecast.scripts.tracking.mlflow_server import PARENT_TAG, MlflowServer, absolute_uri, tracking_uri

    run: JournalRun
    output = getattr(config, "output", None)
    folder = Path(output) if output_is_folder and output is not None else None
    uri = absolute_uri(tracking_uri(tracking.uri))
    parent = {PARENT_TAG: tracking.parent} if tracking.parent else {}
    begin: Entry = {
        "experiment": tracking.experiment,
        "name": tracking.name or (f"{verb} {Path(output).name}" if output is not None else verb),
        "tracking_uri": uri,
        "params": flat_params(config),
        "tags": {"verb": verb, **parent, **code_tags(), **data_tags(config)},
        "config": config_yaml(config),
        "start_ms": time.time_ns() // 1_000_000,
    }
    if not _leads():
        run = JournalRun(console, None, begin)
    elif tracking.enabled:
        run = MlflowRun(console, folder, begin, MlflowServer(uri), run_id)
    else:
        run = JournalRun(console, folder, begin, run_id)
    status = FAILED
    try:
        yield run
        fingerprint = store_fingerprint(folder) if folder is not None else None
        if fingerprint:
            run.log_params({"output_fingerprint": fingerprint})
        status = FINISHED
    except KeyboardInterrupt:
        status = KILLED
        raise
    except InputError:
        if not run.begun:
            status = REFUSED
        raise
    finally:
        if status != REFUSED:
            run.finish(status)


def _processes() -> int:
    """That torchrun has started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _leads() -> bool:
    return _processes() == 1 or os.environ.get("RANK", "0") == "0"
