"""Episodes of one driver in one environment: here, or spread over processes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import TYPE_CHECKING

from envs.closed_loop import ClosedLoopConfig, OnProgress
from envs.drivers.idm import IDMConfig
from scripts.drivers import TrafficSource
from worldmodel.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

HIGHWAY_ENV_PART = 8  # episodes that a process takes at a time where each of them is stepped by itself
LEAST_PART = 8
LEAST_PARTS = 4  # of an evaluation, so that several cores have something to do


@dataclass(frozen=True)
class Drive:
    """Some episodes of one driver in one environment.

    Attributes:
        source: The environment.
        driver: Name of the driver.
        seeds: One episode each.
        loop: How they are run and which are kept.
        folder: Where kept episodes go.
        idm: The driver idm.
        scored_by: `policy:PATH` whose energy scores the drive; empty: it is not scored.
        config_hash: Stored with kept episodes.
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
        from envs.closed_loop import run_episodes
        from scripts.drivers import make_driver, realised_score

        device = self.source.device
        traffic = self.source.open()
        result = run_episodes(
            traffic,
            make_driver(self.driver, replace(self.idm, dt_s=traffic.dt_s), device),
            self.seeds,
            self.loop if self.keep else replace(self.loop, keep="none"),
            realised_score(self.scored_by, device, traffic.dt_s) if self.scored_by else None,
            self.config_hash,
            on_progress,
            self.first,
        )
        for episode in result.episodes:
            episode.write(self.folder / episode_file(self.driver, self.source.environment, episode.metadata.seed))
        return result.table

    def trim(self, table: pd.DataFrame) -> None:
        """Each part kept the first crashes that it saw: leave the first ones of all, by the whole `table`."""
        from envs.closed_loop import Keeper

        keeper = Keeper(self.loop)
        for number, (seed, outcome) in enumerate(zip(table["seed"], table["outcome"], strict=True)):
            if not keeper.wants(number, outcome):
                (self.folder / episode_file(self.driver, self.source.environment, seed)).unlink(missing_ok=True)


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


class Workers:
    """Processes that drive parts of drives, kept from one drive to the next. A context manager.

    Args:
        count: Number of processes; 0: one per core; 1: none, all is done here.
    """

    def __init__(self, count: int = 0) -> None:
        self.count = count or cores()
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._pool is None:
            return
        if kind is not None:  # nobody waits for what is half done
            for process in active_children():
                process.terminate()
        self._pool.shutdown(wait=kind is None, cancel_futures=True)

    def drive(self, parts: Sequence[Drive]) -> Iterator[tuple[Drive, pd.DataFrame]]:
        """Drive the parts of one drive; each with its table, in the order in which they finish.

        They begin in their order; once enough crashes are kept, later ones are not, since only the first of all stay.
        """
        queue = list(parts)
        failures = 0

        def next_part() -> Drive:
            part = queue.pop(0)
            most = part.loop.keep_at_most
            enough = part.loop.keep != "all" and failures >= most and part.first >= most
            return replace(part, keep=not enough)

        def failed(part: Drive, table: pd.DataFrame) -> int:
            late = table.index + part.first >= part.loop.keep_at_most  # the first ones are kept in any case
            return int((late & table["outcome"].isin(["collision", "off_road"])).sum())

        if min(self.count, len(queue)) <= 1:
            while queue:
                part = next_part()
                table = part.run()
                failures += failed(part, table)
                yield part, table
            return
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self.count, get_context("spawn"), initializer=_start_worker)
        waiting: dict[Future[pd.DataFrame], Drive] = {}
        while queue or waiting:
            while queue and len(waiting) < self.count:
                part = next_part()
                waiting[self._pool.submit(part.run)] = part
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                part, table = waiting.pop(future), _result(future)
                failures += failed(part, table)
                yield part, table


def _result(future: Future[pd.DataFrame]) -> pd.DataFrame:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise InputError(
            "workers: a process that drove episodes was killed, as the system does when memory runs out; give fewer "
            "--workers or a smaller --loop.batch"
        ) from error


def _start_worker() -> None:
    """One thread per process, and an interrupt is the parent's to handle."""
    import signal

    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def episode_file(driver: str, environment: str, seed: int) -> str:
    """File name of a kept episode."""
    return f"{environment}-{short_name(driver)}-{seed:05d}.parquet"


def kept_episodes(folder: Path, driver: str, environment: str) -> list[Path]:
    """Kept episodes of one driver, and of none whose name begins like its own (`idm`, `idm:20`)."""
    name = episode_file(driver, environment, 0).rpartition("-")[0]
    return [file for file in sorted(folder.glob(f"{name}-*.parquet")) if file.stem.rpartition("-")[0] == name]


def short_name(driver: str) -> str:
    """The driver's name for files and figures: a path is shortened to the names that tell it apart."""
    kind, _, path = driver.partition(":")
    if "/" not in path and "." not in path:
        return driver.replace(":", "-")
    digest = hashlib.sha256(str(Path(path).absolute()).encode()).hexdigest()[:6]
    return f"{kind}-{Path(path).stem or 'policy'}-{digest}"
