"""Episodes of one driver in one environment: here, or spread over processes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from drivecast.envs.drivers.idm import IDMConfig
from drivecast.envs.evaluation.closed_loop import ClosedLoopConfig, OnProgress
from drivecast.scripts.driving.driver_kinds import REGISTERED, TRAINED_BY, without_net
from drivecast.scripts.driving.drivers import TrafficSource
from drivecast.scripts.driving.workers import Workers
from drivecast.scripts.tracking.mlflow_server import MODEL_ENDINGS
from drivecast.worldmodel.forecaster.loading import PICTURE_POLICY_FILE, POLICY_FILE, WORLD_MODEL_FILE

if TYPE_CHECKING:
    import pandas as pd

    from drivecast.envs.lockstep import LockstepTraffic
    from drivecast.planner.planning.driver import PlannerConfig
    from drivecast.worldmodel.scene.driver import Driver

HIGHWAY_ENV_PART = 8  # episodes that a process takes at a time where each of them is stepped by itself
LEAST_PART = 8
MODEL_FILES = (
    POLICY_FILE,
    PICTURE_POLICY_FILE,
    WORLD_MODEL_FILE,
    "model.zip",
)  # whose folder says more than their name does
LEAST_PARTS = 4  # of an evaluation, so that several cores have something to do


@dataclass(frozen=True)
class Drive:
    """Some episodes of one driver in one environment.

    Attributes:
        source: The environment.
        driver: Name of the driver.
        label: What it is called in the names of files; empty: its name, shortened.
        place: The driver's name with a local path in the place of a registered model; empty: there is none in it.
        seeds: One episode each.
        loop: How they are run and which are kept.
        folder: Where kept episodes go.
        idm: The driver idm.
        scored_by: `policy:PATH` or `planner:PATH`, with a local path, whose energy scores it; empty: nobody.
        config_hash: Stored with kept episodes.
        planner: The driver planner; None: as it is by itself.
        first: How many episodes of the same driver come before these.
        keep: Whether any of these may be kept.
    """

    source: TrafficSource
    driver: str
    seeds: tuple[int, ...]
    loop: ClosedLoopConfig
    folder: Path
    idm: IDMConfig = field(default_factory=IDMConfig)
    scored_by: str = ""
    config_hash: str = ""
    first: int = 0
    keep: bool = True
    label: str = ""
    place: str = ""
    planner: PlannerConfig | None = None

    def parts(self, size: int) -> list[Drive]:
        """The same in pieces of `size` episodes."""
        starts = range(0, len(self.seeds), size)
        return [replace(self, seeds=self.seeds[n : n + size], first=self.first + n) for n in starts]

    def part_size(self) -> int:
        """Episodes for a process to take at a time; never depends on the number of processes, so nor do the results."""
        if not self.source.lockstep:
            return HIGHWAY_ENV_PART
        return min(self.loop.batch, max(LEAST_PART, -(-len(self.seeds) // LEAST_PARTS)))

    def run(self, on_progress: OnProgress | None = None) -> pd.DataFrame:
        """Drive, write the episodes that are kept, return the table of episodes."""
        from drivecast.envs.evaluation.closed_loop import run_episodes
        from drivecast.scripts.driving.drivers import realised_score

        device = self.source.device
        traffic, driver = self._opened()
        result = run_episodes(
            traffic,
            driver,
            self.seeds,
            self.loop if self.keep else replace(self.loop, keep="none"),
            realised_score(self.scored_by, device, traffic.dt_s, self.planner) if self.scored_by else None,
            self.config_hash,
            on_progress,
            self.first,
        )
        for episode in result.episodes:
            episode.write(self._file(episode.metadata.seed))
        return result.table

    def decision_ms(self) -> dict[str, float | None]:
        """How long the driver takes for one decision, alone in an episode; not by how many are driven at a time."""
        from drivecast.envs.evaluation.latency import decision_ms

        return decision_ms(*self._opened(), self.seeds)

    def _opened(self) -> tuple[LockstepTraffic, Driver]:
        from drivecast.scripts.driving.drivers import make_driver

        traffic = self.source.open()
        idm = replace(self.idm, dt_s=traffic.dt_s)
        driver = make_driver(self.place or self.driver, idm, self.source.device, self.planner)
        driver.name = self.driver
        return traffic, driver

    def trim(self, table: pd.DataFrame) -> None:
        """Each part kept the first crashes that it saw: leave the first ones of all, by the whole `table`."""
        from drivecast.envs.evaluation.closed_loop import Keeper

        keeper = Keeper(self.loop)
        for number, (seed, outcome) in enumerate(zip(table["seed"], table["outcome"], strict=True)):
            if not keeper.wants(number, outcome):
                self._file(seed).unlink(missing_ok=True)

    def _file(self, seed: int) -> Path:
        return self.folder / episode_file(self.label or self.driver, self.source.environment, seed)


def driven(parts: Sequence[Drive], workers: Workers) -> Iterator[tuple[Drive, pd.DataFrame]]:
    """Drive the parts of one drive; each with its table, in the order in which they finish.

    They begin in their order; once enough crashes are kept, later ones are not, since only the first of all stay.
    """
    failures = 0

    def prepared(part: Drive) -> Drive:
        most = part.loop.keep_at_most
        enough = part.loop.keep != "all" and failures >= most and part.first >= most
        return replace(part, keep=not enough)

    for part, table in workers.run(Drive.run, parts, prepared):
        late = table.index + part.first >= part.loop.keep_at_most  # the first ones are kept in any case
        failures += int((late & table["outcome"].isin(["collision", "off_road"])).sum())
        yield part, table


def episode_file(driver: str, environment: str, seed: int) -> str:
    """File name of a kept episode."""
    return f"{environment}-{short_name(driver)}-{seed:05d}.parquet"


def kept_episodes(folder: Path, driver: str, environment: str) -> list[Path]:
    """Kept episodes of one driver, and of none whose name begins like its own (`idm`, `idm:20`)."""
    name = episode_file(driver, environment, 0).rpartition("-")[0]
    return [file for file in sorted(folder.glob(f"{name}-*.parquet")) if file.stem.rpartition("-")[0] == name]


def short_name(driver: str) -> str:
    """The driver's name for files: a path is shortened to the names that tell it apart."""
    net, under = without_net(driver)
    if net:
        return f"{net}-{short_name(under)}"
    kind, _, path = driver.partition(":")
    if path.startswith(REGISTERED):
        return "-".join([kind, *path.removeprefix(REGISTERED).strip("/").split("/")])
    if "/" not in path and "." not in path:
        return driver.replace(":", "-")
    digest = hashlib.sha256(str(Path(path).absolute()).encode()).hexdigest()[:6]
    return f"{kind}-{Path(path).stem or 'policy'}-{digest}"


def labels(drivers: Iterable[str]) -> dict[str, str]:
    """What drivers are called in figures, reports and metrics: no longer than tells them apart from each other.

    `policy:runs/oracle` is policy-oracle, `policy:runs/demo/policy/policy.safetensors` policy; where two would be
    called alike, both have the digest of their path, too.
    """
    plain = {driver: _plain_label(driver) for driver in drivers}
    taken = Counter(plain.values())
    return {driver: label if taken[label] == 1 else short_name(driver) for driver, label in plain.items()}


def _plain_label(driver: str) -> str:
    net, under = without_net(driver)
    if net:
        return f"{net}-{_plain_label(under)}"
    kind, _, value = driver.partition(":")
    if value.startswith(REGISTERED):
        return short_name(driver)
    if kind not in TRAINED_BY and "/" not in value:
        return driver
    path = Path(value)
    if path.name in MODEL_FILES:
        path = path.parent
    name = path.stem if path.suffix in (".yaml", *MODEL_ENDINGS) else path.name
    return name if name.startswith(kind) else f"{kind}-{name}" if name else kind
