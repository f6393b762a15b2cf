"""`drivecast tune-idm`: the rule-based driver as strong as it can be made, on training seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from drivecast.envs.drivers.idm import IDMConfig, IDMDriver
from drivecast.envs.evaluation.closed_loop import ClosedLoopConfig
from drivecast.envs.evaluation.suites import SUITES, simulated
from drivecast.envs.recorded.config import RecordedTrafficConfig
from drivecast.scripts.command.output import refuse_foreign_file
from drivecast.scripts.driving.drivers import IDM_FILE_MARK, RECORDED, TrafficSource, highway_of
from drivecast.scripts.driving.workers import Workers
from drivecast.scripts.tracking.run import Run
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.storage.files import atomic_file

if TYPE_CHECKING:
    import pandas as pd

FIRST_SEED = 7_000_000  # of training; suites begin at 3,000,000,000
RANGES: dict[str, tuple[float, float]] = {  # logarithmic where both ends are above zero
    "time_gap_s": (0.2, 2.0),
    "jam_gap_m": (0.8, 8.0),
    "acceleration_mps2": (1.0, 6.0),
    "braking_mps2": (1.5, 10.0),
    "exponent": (2.0, 16.0),
    "politeness": (0.0, 0.6),
    "least_gain_mps2": (0.01, 0.6),
    "most_imposed_braking_mps2": (0.5, 9.0),
    "decide_every_s": (0.15, 1.5),
}
DESIRED_MPS = (10.0, 40.0)  # recorded traffic asks for no speed of its own; on highway-env the goal's is the limit
EPISODES_AT_ONCE = 768
CHILD_SPREAD = 0.12  # of a range


@dataclass(frozen=True)
class TuneIdmConfig:
    """Search parameters of IDM and MOBIL that drive fast and safely, and write them as a file for `idm:FILE`.

    Drives candidates on training seeds of a suite's traffic, or on the `train` split of recordings: a first draw over
    the whole of the ranges, then in each round the best and their offspring on more episodes. Ranked by mean speed
    less what collisions cost. Leaves OUTPUT, and beside it all candidates of the last rounds (.candidates.csv) and
    their collisions against their speed (.frontier.png).

    Args:
        output: File to write, such as idm/mine.yaml; it drives as idm:idm/mine.yaml.
        suite: Whose traffic to tune for: highway, highway-dense, highway-reactive, ... None: `data` is given.
        data: Recording stores to tune on, their split `train`.
        recorded: Recorded traffic.
        collision_cost_mps: What a collision in every episode would be worth, m/s: at 100, one in a hundred episodes is
            as bad as driving 1 m/s slower.
        candidates: Number of the first draw.
        episodes: Of each candidate in the last round; earlier rounds have a quarter, a sixteenth, ...
        rounds: Number of rounds.
        seed: Of the search.
        workers: Processes; 0: one per core.
    """

    output: Path
    suite: str = ""
    data: list[Path] = field(default_factory=list)
    recorded: RecordedTrafficConfig = field(default_factory=RecordedTrafficConfig)
    collision_cost_mps: float = 100.0
    candidates: int = 64
    episodes: int = 1000
    rounds: int = 4
    seed: int = 0
    workers: int = 0

    def __post_init__(self) -> None:
        if bool(self.suite) == bool(self.data):
            raise InputError("suite, data: expected one of the two; give --suite NAME or --data DIR")
        if self.suite and self.suite not in simulated():
            raise InputError(f"suite: expected one of {', '.join(simulated())}; got '{self.suite}'")
        for name, least in (("candidates", 8), ("episodes", 16), ("rounds", 1), ("seed", 0), ("workers", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        if self.output.suffix not in (".yaml", ".yml"):
            raise InputError(f"output: expected a name ending in .yaml, got '{self.output}'")
        if not 0 <= self.collision_cost_mps < math.inf:
            raise InputError(f"collision_cost_mps: expected 0 or more, got {self.collision_cost_mps}")


def run(config: TuneIdmConfig, run: Run) -> None:
    """Search, show and write."""
    import pandas as pd

    from drivecast.envs.evaluation.results import mark_frontier
    from drivecast.scripts.figures.frontier import draw_frontier

    output = config.output
    listing, picture = (output.with_suffix(ending) for ending in (".candidates.csv", ".frontier.png"))
    ours = output.is_file() and output.read_text(encoding="utf-8", errors="replace").startswith(f"# {IDM_FILE_MARK}: ")
    for file in (output, listing, picture):  # the three are written together
        refuse_foreign_file(file, ours)
    search = Search(config, source_of(config))
    found: list[pd.DataFrame] = []
    with Workers(config.workers) as workers:
        for number in range(config.rounds):
            episodes = search.episodes(number)
            candidates = search.draw(number)
            total = len(candidates) * len(episodes)
            with run.progress(
                total, f"round {number + 1} of {config.rounds}, {len(candidates)} candidates"
            ) as progress:
                tables = []
                for _, table in workers.run(
                    partial(drive, search.source, candidates), search.parts(episodes, len(candidates))
                ):
                    tables.append(table)
                    progress.advance(len(table))
            ranking = search.rank(candidates, pd.concat(tables, ignore_index=True))
            found.append(ranking.assign(round=number + 1))
            best = ranking.iloc[0]
            run.log_metrics({"tune/utility": best["utility"], "tune/speed_mps": best["mean_speed_mps"]}, number + 1)
            run.say(
                f"best so far: {100 * best['collision_rate']:.1f} % collisions at {best['mean_speed_mps']:.2f} m/s "
                f"({int(best['episodes'])} episodes)"
            )
    chosen = search.survivors[0]
    every = pd.concat(found[-2:], ignore_index=True)
    with atomic_file(output) as temporary:
        temporary.write_text(_file_of(config, chosen, found[-1].iloc[0]), encoding="utf-8")
    with atomic_file(listing) as temporary:
        every.to_csv(temporary, index=False)
    shown = found[-1].head(12)
    points = mark_frontier({f"{number + 1}": _point(row) for number, row in shown.iterrows()})
    draw_frontier(picture, {config.suite or RECORDED: points})
    run.log_figure(picture)
    run.log_artifact(output)
    columns = ["collision_rate", "mean_speed_mps", "utility", *RANGES]
    run.table(
        f"the best of the last round's {len(found[-1])}, {int(found[-1]['episodes'].iloc[0])} episodes each",
        columns,
        [[float(row[name]) for name in columns] for _, row in found[-1].head(8).iterrows()],
    )
    run.say(f"{output}: drive it as idm:{output}")


def source_of(config: TuneIdmConfig) -> TrafficSource:
    """The traffic to tune in; its seeds are those of training."""
    if config.data:
        return TrafficSource(RECORDED, tuple(config.data), "train", config.recorded)
    suite = SUITES[config.suite]
    return TrafficSource(suite.environment, highway=highway_of(suite))


class Search:
    """An evolution of IDM's parameters: a first draw, then the best with offspring, on more and more episodes."""

    def __init__(self, config: TuneIdmConfig, source: TrafficSource) -> None:
        self.config, self.source = config, source
        self.random = np.random.default_rng(config.seed)
        self.survivors: list[IDMConfig] = []
        self.ranges = RANGES | ({"desired_speed_mps": DESIRED_MPS} if source.environment == RECORDED else {})

    def episodes(self, number: int) -> list[int]:
        """Seeds of a round: the later, the more; earlier ones are among them."""
        count = max(16, round(self.config.episodes / 4 ** (self.config.rounds - 1 - number)))
        if self.source.environment == RECORDED:
            return list(range(min(count, self.source.open().count)))  # type: ignore[attr-defined]
        return list(range(FIRST_SEED, FIRST_SEED + count))

    def draw(self, number: int) -> list[IDMConfig]:
        """The candidates of a round; highway-env's own parameters are always among the first."""
        if number == 0:
            drawn = [self._of(self.random.random(len(self.ranges))) for _ in range(self.config.candidates - 1)]
            return [IDMConfig(), *drawn]
        count = max(4, self.config.candidates // 2**number)
        parents = self.survivors[: max(2, count // 3)]
        if number == self.config.rounds - 1:  # nobody new: who is chosen has been driven before
            return self.survivors[:count]
        children: list[IDMConfig] = []
        while len(parents) + len(children) < count:
            one, other = self.random.choice(len(parents), 2)
            mixed = np.where(
                self.random.random(len(self.ranges)) < 0.7, self._unit(parents[one]), self._unit(parents[other])
            )
            children.append(self._of((mixed + CHILD_SPREAD * self.random.standard_normal(len(mixed))).clip(0, 1)))
        return [*parents, *children]

    def parts(self, seeds: Sequence[int], candidates: int) -> list[list[int]]:
        """Seeds in parts that run at once, each of them with every candidate."""
        size = max(1, EPISODES_AT_ONCE // candidates)
        return [list(seeds[start : start + size]) for start in range(0, len(seeds), size)]

    def rank(self, candidates: Sequence[IDMConfig], table: pd.DataFrame) -> pd.DataFrame:
        """The candidates from the best to the worst; the survivors are taken from here."""
        import pandas as pd

        groups = table.groupby("candidate")
        rate = groups["collided"].mean()
        speed = groups["distance_m"].sum() / groups["duration_s"].sum()
        utility = speed - self.config.collision_cost_mps * rate
        ranking = pd.DataFrame(
            {
                "collision_rate": rate,
                "at_fault_rate": groups["at_fault"].mean(),
                "mean_speed_mps": speed,
                "utility": utility,
                "episodes": groups.size(),
                **{name: [getattr(candidates[number], name) for number in rate.index] for name in self.ranges},
            }
        ).sort_values("utility", ascending=False, kind="stable")
        self.survivors = [candidates[number] for number in ranking.index]
        return ranking.reset_index(drop=True)

    def _of(self, unit: np.ndarray) -> IDMConfig:
        values: dict[str, Any] = {}
        for (name, (low, high)), share in zip(self.ranges.items(), unit, strict=True):
            value = low * (high / low) ** share if low > 0 else low + (high - low) * share
            values[name] = float(f"{value:.3g}")
        return IDMConfig(**values)

    def _unit(self, config: IDMConfig) -> np.ndarray:
        unit = []
        for name, (low, high) in self.ranges.items():
            value = float(np.clip(getattr(config, name), low, high))
            unit.append(math.log(value / low) / math.log(high / low) if low > 0 else (value - low) / (high - low))
        return np.array(unit)


def drive(source: TrafficSource, candidates: Sequence[IDMConfig], seeds: Sequence[int]) -> pd.DataFrame:
    """Every candidate on every seed, side by side: one row each."""
    from drivecast.envs.evaluation.closed_loop import run_episodes

    traffic = source.open()
    driver = IDMDriver([replace(candidate, dt_s=traffic.dt_s) for candidate in candidates])
    each = [seed for seed in seeds for _ in candidates]
    table = run_episodes(traffic, driver, each, ClosedLoopConfig(batch=len(each), keep="none")).table
    crashed = table["outcome"] == "collision"
    return table[["distance_m", "duration_s"]].assign(
        candidate=np.tile(np.arange(len(candidates)), len(seeds)),
        collided=crashed,
        at_fault=crashed & table["at_fault"].astype(bool),
    )


def _file_of(config: TuneIdmConfig, chosen: IDMConfig, row: pd.Series) -> str:
    import yaml

    given = f"--suite {config.suite}" if config.suite else " ".join(f"--data {folder}" for folder in config.data)
    usual = asdict(IDMConfig())
    values = {name: value for name, value in asdict(chosen).items() if value != usual[name]}
    return (
        f"# {IDM_FILE_MARK}: drivecast tune-idm {given} --collision-cost-mps {config.collision_cost_mps:g} "
        f"--candidates {config.candidates} --episodes {config.episodes} --rounds {config.rounds} --seed {config.seed}\n"
        f"# on {int(row['episodes'])} training episodes: {100 * row['collision_rate']:.2f} % collisions at "
        f"{row['mean_speed_mps']:.2f} m/s. What is not named is highway-env's.\n"
        + yaml.safe_dump(values, sort_keys=False)
    )


def _point(row: pd.Series) -> dict[str, Any]:
    from drivecast.envs.evaluation.statistics import wilson_interval

    share = wilson_interval(round(row["collision_rate"] * row["episodes"]), int(row["episodes"]))
    speed = float(row["mean_speed_mps"])
    return {
        "episodes": int(row["episodes"]),
        "collision_rate": share.value,
        "collision_low": share.low,
        "collision_high": share.high,
        "mean_speed_mps": speed,
        "mean_speed_low_mps": speed,
        "mean_speed_high_mps": speed,
    }
