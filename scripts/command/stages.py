"""Verbs one after the other, each done once: what `drivecast demo` and `drivecast train-loop` are made of."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drivecast.scripts.command.execution import execute, recorded_run
from drivecast.scripts.command.verb import VERBS
from drivecast.scripts.tracking.console import Console
from drivecast.scripts.tracking.provenance import config_yaml
from drivecast.scripts.tracking.run import Run, TrackingConfig
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.storage.files import atomic_file

if TYPE_CHECKING:
    from drivecast.scripts.tracking.mlflow_run import JournalRun

STAGES_FILE = "stages.json"
RUN = "run"  # in that file, beside the stages: the run of them all


@dataclass
class Stages:
    """Which stages are done, with which settings: FOLDER/stages.json.

    Attributes:
        folder: Of them all.
        run: Told what is done.
        tracking: Where each stage is recorded.
        total: How many there will be.
        owner: Verb whose stages these are.
    """

    folder: Path
    run: Run
    tracking: TrackingConfig
    total: int
    owner: str = "demo"
    number: int = 0
    chain: str = ""  # hash of all settings so far: a stage is as old as what it builds on

    def do(self, verb: str, config: Any, folder: Path, product: Path, name: str = "", after: str | None = None) -> str:
        """Run a stage whose files lie in `folder`, unless `product` stands and was made with these settings.

        Returns the hash of its settings and of all that it builds on. `name` tells it from other stages of the same
        verb; `after` is the hash of the stage that it builds on, empty if on none, None: on the one before it.
        """
        name = name or verb
        self.number += 1
        before_it = self.chain if after is None else after
        self.chain = hashlib.sha256((before_it + config_yaml(config)).encode()).hexdigest()[:16]
        title = f"[{self.number}/{self.total}] {name}"
        states = self._read()
        before = states.get(name, {})
        if before == {"settings": self.chain, "done": True} and product.exists():
            self.run.say(f"{title}: done already, {product}")
            return self.chain
        if before.get("settings") != self.chain and folder.exists():
            if not before:
                raise InputError(
                    f"{folder}: this folder was not made by `drivecast {self.owner}`; give another --output"
                )
            self._set_aside(folder)  # made with other settings
        self._write({**states, name: {"settings": self.chain, "done": False}})
        self.run.say(f"{title}: {VERBS[verb].summary}")
        started_s = time.monotonic()
        execute(VERBS[verb], config, self.tracking)
        self._write({**states, name: {"settings": self.chain, "done": True}})
        self.run.say(f"{title}: took {time.monotonic() - started_s:.0f} s")
        return self.chain

    def run_before(self, config: object) -> str:
        """Id of the run that these settings began before, so that it goes on; empty: there is none."""
        before = self._read().get(RUN, {})
        return str(before["id"]) if before.get("settings") == _digest(config) else ""

    def go_under(self, run: str, config: object) -> None:
        """Record the stages under that run."""
        self.tracking = replace(self.tracking, parent=run)
        self._write({**self._read(), RUN: {"id": run, "settings": _digest(config)}})

    def _set_aside(self, folder: Path) -> None:
        """Never deleted: somebody may have put something of their own there."""
        earlier = self.folder / "earlier"
        earlier.mkdir(exist_ok=True)
        taken = {entry.name for entry in earlier.iterdir()}
        name = next(name for number in count(1) if (name := f"{folder.name}-{number}") not in taken)
        os.replace(folder, earlier / name)
        self.run.say(f"{folder}: made with other settings before, now in {earlier / name}")

    def _read(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.folder / STAGES_FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return {}

    def _write(self, states: dict[str, Any]) -> None:
        with atomic_file(self.folder / STAGES_FILE) as temporary:
            temporary.write_text(json.dumps(states, indent=1), encoding="utf-8")


def _digest(config: object) -> str:
    return hashlib.sha256(config_yaml(config).encode()).hexdigest()[:16]


@contextmanager
def in_stages(
    verb: str, config: object, folder: Path, tracking: TrackingConfig, total: int, run: Run
) -> Iterator[tuple[Stages, JournalRun]]:
    """The stages of `verb` and its run, under which theirs are recorded; a run that was stopped goes on."""
    stages = Stages(folder, run, tracking, total, verb)
    console = getattr(run, "console", None) or Console()
    with recorded_run(verb, config, tracking, console, True, stages.run_before(config)) as recorded:
        recorded.begin()
        stages.go_under(recorded.journal.run, config)
        yield stages, recorded
