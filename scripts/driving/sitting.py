"""One driver's episodes of the benchmark, of which some may have been driven before."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drivecast.scripts.driving.drive import Drive, driven, kept_episodes, short_name
from drivecast.scripts.driving.driver_kinds import PLANNING, kind_of, kind_under_net
from drivecast.scripts.driving.snapshot import Snapshot
from drivecast.scripts.driving.workers import Workers
from drivecast.scripts.tracking.run import Run

if TYPE_CHECKING:
    import pandas as pd

PACKAGES = ("torch", "numpy", "highway-env")  # whose versions episodes depend on


@dataclass
class Sitting:
    """Drives what is missing of a plan.

    Episodes are saved in parts, as files that are named by the driver, by the hash of all that they depend on, and by
    their first seed and number. Kept episodes carry the same hash.

    Attributes:
        plan: All episodes.
        folder: Where parts are saved.
        sources: What episodes come from, as it was when this process began: code, model, recordings.
        identity: Hash of the traffic, the settings, the driver's files, the code and the packages.
        seconds: What driving took, in all sittings.
    """

    plan: Drive
    folder: Path
    sources: Mapping[str, Snapshot]

    def __post_init__(self) -> None:
        self.identity = _identity(self.plan, self.sources)
        self.plan = replace(self.plan, config_hash=self.identity)
        self.name = f"{self.plan.source.environment}-{short_name(self.plan.driver)}-{self.identity}"
        noted = self._noted()
        self.seconds = float(noted.get("seconds", 0.0))
        self._decision_ms: dict[str, float | None] = noted.get("decision_ms") or {}

    def decision_ms(self) -> dict[str, float | None]:
        """How long one decision takes (`Drive.decision_ms`); measured once."""
        if not self._decision_ms:
            self._decision_ms = self.plan.decision_ms()
            self._note()
        return self._decision_ms

    def drive(self, what: str, workers: Workers, run: Run) -> pd.DataFrame:
        """Drive what is missing; the table of all.

        Raises:
            InputError: A source changed meanwhile.
        """
        import pandas as pd

        plan, before_s = self.plan, self.seconds
        parts = plan.parts(plan.loop.batch if plan.source.lockstep else 1)
        tables = {part.first: table for part in parts if (table := self._done(part, run)) is not None}
        missing = [part for part in parts if part.first not in tables]
        self._drop_episodes_of_others()
        began_s, count = time.monotonic(), sum(len(part.seeds) for part in missing)
        there = len(plan.seeds) - count
        if not missing:
            run.say(f"{what}: {there} episodes, all driven before")
        else:
            self._check()
            with run.progress(total=count, what=f"{what} ({there} more driven before)" if there else what) as progress:
                collisions = completed = 0
                for part, table in driven(missing, workers):
                    self._check()
                    tables[part.first] = table
                    self.seconds = before_s + time.monotonic() - began_s
                    self._keep(part, table)
                    collisions += int((table["outcome"] == "collision").sum())
                    completed += int((table["outcome"] == "completed").sum())
                    progress.advance(len(table), collisions=collisions, completed=completed)
        whole = pd.concat([tables[first] for first in sorted(tables)], ignore_index=True)
        plan.trim(whole)
        return whole

    def _check(self) -> None:
        for what, source in self.sources.items():
            source.check(what)

    def _drop_episodes_of_others(self) -> None:
        """What another training of this name, or other code, left behind for replay."""
        from drivecast.envs.replay.episode_file import read_config_hash

        for file in kept_episodes(self.plan.folder, self.plan.driver, self.plan.source.environment):
            if read_config_hash(file) not in (None, self.identity):  # None: somebody else's file
                file.unlink()

    def _file(self, part: Drive) -> Path:
        return self.folder / f"{self.name}-{part.seeds[0]}-{len(part.seeds)}.parquet"

    def _done(self, part: Drive, run: Run) -> pd.DataFrame | None:
        import pandas as pd

        file = self._file(part)
        if not file.exists():
            return None
        try:
            table = pd.read_parquet(file)
        except (OSError, ValueError) as error:
            run.say(f"{file}: damaged ({str(error).splitlines()[0]}), so its episodes are driven again")
            return None
        return table if "seed" in table and tuple(table["seed"]) == part.seeds else None

    def _keep(self, part: Drive, table: pd.DataFrame) -> None:
        from drivecast.worldmodel.storage.files import atomic_file

        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(self._file(part)) as temporary:
            table.to_parquet(temporary, index=False)
        self._note()

    def _note(self) -> None:
        from drivecast.worldmodel.storage.files import atomic_file

        with atomic_file(self.folder / f"{self.name}.json") as temporary:
            text = json.dumps({"seconds": self.seconds, "decision_ms": self._decision_ms})
            temporary.write_text(text, encoding="utf-8")

    def _noted(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.folder / f"{self.name}.json").read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return {}


def _identity(plan: Drive, sources: Mapping[str, Snapshot]) -> str:
    from drivecast.planner.costs.concept import concept_digests
    from drivecast.scripts.tracking.provenance import plain

    digests = {what: source.digest for what, source in sources.items()}
    settings: Mapping[str, Any] = {
        # the same data and the same training are the same wherever they lie
        "source": {**asdict(plan.source), "data": []},
        "driver": kind_under_net(plan.driver) if digests.get("model") else plan.driver,
        "batch": plan.loop.batch,
        "most_steps": plan.loop.most_steps,
        "idm": asdict(plan.idm),
        **({"planner": asdict(plan.planner)} if plan.planner and kind_of(plan.driver) in PLANNING else {}),
        **({"concepts": concept_digests(plan.planner.concepts)} if plan.planner and plan.planner.concepts else {}),
        "files": digests,
        "packages": {package: _version(package) for package in PACKAGES},
    }
    return hashlib.sha256(json.dumps(plain(settings), sort_keys=True).encode()).hexdigest()[:12]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
