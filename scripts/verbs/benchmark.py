"""`drivecast benchmark`: drivers on frozen suites of episodes, safety against speed."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drivecast.envs.drivers.idm import IDMConfig
from drivecast.envs.evaluation.closed_loop import ClosedLoopConfig
from drivecast.envs.evaluation.suites import SUITES, Suite
from drivecast.envs.recorded.config import RecordedTrafficConfig
from drivecast.planner.planning.driver import PlannerConfig
from drivecast.scripts.driving.drive import Drive, labels
from drivecast.scripts.driving.driver_kinds import explains_drivers, kind_under_net
from drivecast.scripts.driving.drivers import (
    RECORDED,
    TrafficSource,
    check_driver,
    check_policy_file,
    highway_of,
    make_driver,
    training_seed,
)
from drivecast.scripts.driving.registry import located
from drivecast.scripts.driving.sitting import Sitting
from drivecast.scripts.driving.snapshot import code_snapshot, driver_snapshot, store_snapshot
from drivecast.scripts.driving.workers import Workers
from drivecast.scripts.tracking.run import Run
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.recordings.split import check_split

if TYPE_CHECKING:
    import pandas as pd

SAME_SPEED_MPS = 1e-3  # in the mean of an episode; drivers compute in float32


@explains_drivers
@dataclass(frozen=True)
class BenchmarkConfig:
    """Drive frozen suites of episodes with each driver: collisions against speed, with intervals and paired tests.

    Leaves OUTPUT/table.md, frontier.png, results.json, pooled.json, episodes.parquet and kept episodes for replay.
    Stopped and started again with the same OUTPUT, or asked for more drivers, suites or episodes, it drives only what
    is missing, as long as drivers, code and settings are the same.

    Args:
        output: Folder of the results.
        suite: Episodes to drive: highway, highway-dense, highway-reactive, highway-dense-reactive, highway-mixed,
            merge, recorded, recorded-yielding, recorded-reactive. Repeatable.
        driver: Who drives: {drivers}. LABEL=NAME gathers several trainings under one label. Repeatable; the first one
            is what the others are tested against.
        episodes: Number of episodes of each suite, the first ones of its list; of recorded traffic at most its
            vehicles.
        data: Recording stores, for the suites recorded*.
        split: Part of the stores: train, val, test or all.
        loop: How episodes are run and which are kept; what one batch has driven is saved.
        recorded: Recorded traffic; what the others do is the suite's.
        idm: The driver idm.
        planner: The driver planner.
        spot_check: Episodes of each simulated suite that are driven in highway-env itself, too, after the simulator or
            highway-env was changed; 0: none. One takes 2 to 11 s of a core.
        spot_check_driver: Who drives them; none given: the first driver.
        device: Where tensors are computed: cpu, cuda, ...
        workers: Processes; 0: one per core.
    """

    output: Path
    suite: list[str] = field(default_factory=lambda: ["highway"])
    driver: list[str] = field(default_factory=lambda: ["idm", "constant-velocity", "idle"])
    episodes: int = 1000
    data: list[Path] = field(default_factory=list)
    split: str = "test"
    loop: ClosedLoopConfig = field(default_factory=lambda: ClosedLoopConfig(batch=250))
    recorded: RecordedTrafficConfig = field(default_factory=RecordedTrafficConfig)
    idm: IDMConfig = field(default_factory=IDMConfig)
    planner: PlannerConfig = field(default_factory=PlannerConfig)
    spot_check: int = 0
    spot_check_driver: list[str] = field(default_factory=list)
    device: str = "cpu"
    workers: int = 0

    def __post_init__(self) -> None:
        check_split(self.split)
        for name, least in (("episodes", 1), ("spot_check", 0), ("workers", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        for name in ("suite", "driver"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise InputError(f"{name}: expected at least one, each once, got {values}")
        for suite in self.suite:
            if suite not in SUITES:
                raise InputError(f"suite: expected one of {', '.join(SUITES)}; got '{suite}'")
        for suite in self.suite:
            if SUITES[suite].environment == RECORDED and not self.data:
                raise InputError(f"data: the suite '{suite}' needs a recording store; give --data DIR")
        entrants = [Entrant.of(text) for text in self.driver]
        names = [entrant.driver for entrant in entrants]
        if len(set(names)) < len(names):
            raise InputError(f"driver: expected each driver under one label only, got {self.driver}")
        for entrant in entrants:
            if not any(entrant.fits(SUITES[suite]) for suite in self.suite):
                check_driver(entrant.driver, SUITES[self.suite[0]].environment)
        for suite in self.suite:
            if not any(entrant.fits(SUITES[suite]) for entrant in entrants):
                check_driver(names[0], SUITES[suite].environment)
        kinds: dict[str, str] = {}
        for entrant in entrants:
            kind = kind_under_net(entrant.driver)
            if kinds.setdefault(entrant.label, kind) != kind:
                raise InputError(
                    f"driver: expected trainings of one kind under the label '{entrant.label}', got "
                    f"{kinds[entrant.label]} and {kind}; give them two labels"
                )
        for driver in self.spot_check_driver:
            if driver not in names:
                raise InputError(f"spot_check_driver: expected one of {', '.join(names)}; got '{driver}'")
            for suite in self.suite:
                if SUITES[suite].environment != RECORDED:
                    check_driver(driver, SUITES[suite].environment)


@dataclass(frozen=True)
class Entrant:
    """One driver of the benchmark.

    Attributes:
        driver: Name of the driver.
        label: In tables and figures; trainings that differ in their seed share one.
    """

    driver: str
    label: str

    @staticmethod
    def of(text: str) -> Entrant:
        """From `NAME` or `LABEL=NAME`."""
        label, separator, name = text.partition("=")
        if separator and label and not set(label) & set(":/"):
            return Entrant(name, label)
        return Entrant(text, text)

    def fits(self, suite: Suite) -> bool:
        """Whether it can drive there; the recorded human cannot drive where nobody was recorded."""
        check_driver(self.driver, RECORDED)
        return self.driver != "human" or suite.environment == RECORDED


def run(config: BenchmarkConfig, run: Run) -> None:
    """Drive what is missing; results are saved after each driver."""
    for driver in (located(Entrant.of(text).driver) for text in config.driver):
        check_policy_file(driver)
        make_driver(driver, config.idm, config.device, config.planner)
    benchmark = Benchmark(config, run)
    config.output.mkdir(parents=True, exist_ok=True)
    began_s = time.monotonic()
    try:
        with Workers(config.workers) as workers:
            for name in config.suite:
                suite = SUITES[name]
                taking_part = benchmark.entrants(suite)
                for entrant in taking_part:
                    benchmark.drive(suite, entrant, workers)
                if suite.environment != RECORDED and config.spot_check:
                    for driver in config.spot_check_driver or [taking_part[0].driver]:
                        benchmark.check(suite, driver, workers)
                benchmark.show(suite)
    except KeyboardInterrupt:
        run.say(f"stopped; what was driven is saved in {config.output}, and the same command goes on there")
        raise
    run.log_figure(config.output / "frontier.png")
    for name in ("results.json", "pooled.json", "table.md", "episodes.parquet", "episodes"):
        if (config.output / name).exists():
            run.log_artifact(config.output / name)
    run.say(f"{config.output}: table.md, frontier.png, results.json; {(time.monotonic() - began_s) / 60:.1f} min")
    benchmark.refuse_disagreement()


@dataclass
class Benchmark:
    """What has been driven so far.

    Raises:
        InputError: Two drivers are one and the same training.
    """

    config: BenchmarkConfig
    run: Run
    results: list[dict[str, Any]] = field(default_factory=list)
    tables: dict[tuple[str, str], pd.DataFrame] = field(default_factory=dict)  # by suite and driver

    def __post_init__(self) -> None:
        self._entrants = [Entrant.of(text) for text in self.config.driver]
        self._places = {entrant.driver: located(entrant.driver) for entrant in self._entrants}
        self._names = _metric_names(self._entrants)
        # taken now: processes read code and weights once, whatever becomes of the files later
        self._code = code_snapshot()
        self._models = {driver: driver_snapshot(place) for driver, place in self._places.items()}
        self._stores = [store_snapshot(Path(folder)) for folder in self.config.data]
        self._training_seeds = {driver: training_seed(place) for driver, place in self._places.items()}
        digests: dict[tuple[str, str], str] = {}
        for driver, model in self._models.items():
            other = digests.setdefault((kind_under_net(driver), model.digest), driver)
            if model.digest and other != driver:
                raise InputError(f"driver: {other} and {driver} are the same training; give each once")

    def entrants(self, suite: Suite) -> list[Entrant]:
        """Who takes part in a suite."""
        return [entrant for entrant in self._entrants if entrant.fits(suite)]

    def drive(self, suite: Suite, entrant: Entrant, workers: Workers) -> None:
        """All episodes of one driver in one suite."""
        from drivecast.envs.evaluation.results import compare, summarise

        source = self._source(suite)
        seeds = self._seeds(suite, source)
        sitting = self._sitting(suite, source, entrant.driver, seeds)
        who = entrant.label if entrant.label == entrant.driver else f"{entrant.label} ({entrant.driver})"
        table = sitting.drive(f"{suite.name}, {who}", workers, self.run)
        self.tables[suite.name, entrant.driver] = table
        self.results.append(
            {
                **summarise(table, entrant.driver, suite.environment),
                **sitting.decision_ms(),
                "suite": suite.name,
                "label": entrant.label,
                "training_seed": self._training_seeds[entrant.driver],
                "seed": seeds[0],
                "config_hash": sitting.identity,
                "wall_s": round(sitting.seconds, 1),
            }
        )
        against = compare({driver: table for (name, driver), table in self.tables.items() if name == suite.name})
        for result in self._of(suite):
            result["against"] = against[result["driver"]]
        self._save()
        prefix = f"{suite.name}/{self._names[entrant.driver]}"
        found = self.results[-1]
        self.run.log_metrics({f"{prefix}/{name}": value for name, value in found.items() if isinstance(value, float)})

    def check(self, suite: Suite, driver: str, workers: Workers) -> None:
        """Drive some of the seeds in highway-env itself and note where it differs."""
        table = self.tables[suite.name, driver]
        count = min(self.config.spot_check, len(table))
        chosen = table.iloc[[number * len(table) // count for number in range(count)]]
        source = self._source(suite, "highway-env")
        sitting = self._sitting(suite, source, driver, tuple(int(seed) for seed in chosen["seed"]))
        there = sitting.drive(f"{suite.name}, {driver}, in highway-env itself", workers, self.run)
        pair = chosen.merge(there, on="seed", suffixes=("", "_there"), validate="one_to_one")
        apart = (pair["mean_speed_mps"] - pair["mean_speed_mps_there"]).abs()
        differs = (pair["outcome"] != pair["outcome_there"]) | (pair["duration_s"] != pair["duration_s_there"])
        differs |= ~(apart <= SAME_SPEED_MPS)
        found = {
            "episodes": count,
            "disagreements": [int(seed) for seed in pair["seed"][differs]],
            "largest_speed_difference_mps": float(apart.max()),
        }
        next(result for result in self._of(suite) if result["driver"] == driver)["spot_check"] = found
        self._save()
        self.run.say(
            f"{suite.name}, {driver}: {count - int(differs.sum())} of {count} episodes are the same in highway-env "
            f"itself; mean speeds differ by at most {apart.max():.2g} m/s"
        )

    def refuse_disagreement(self) -> None:
        """Fail, once all is saved, where highway-env itself says something else."""
        for result in self.results:
            check = result.get("spot_check", {})
            seeds = ", ".join(map(str, check.get("disagreements", [])[:5]))
            if seeds:
                raise InputError(
                    f"{result['suite']}, {result['driver']}: {len(check['disagreements'])} of {check['episodes']} "
                    f"episodes end otherwise in highway-env itself, seeds {seeds}; see docs/simulator.md"
                )

    def show(self, suite: Suite) -> None:
        """The suite's table for the user."""
        from drivecast.scripts.figures.benchmark_table import COLUMNS, rows

        reference = next(result["driver"] for result in self._of(suite))
        self.run.table(f"{suite.name}: tests against {reference}", COLUMNS, rows(self._of(suite), self._pooled(suite)))

    def _of(self, suite: Suite) -> list[dict[str, Any]]:
        return [result for result in self.results if result["suite"] == suite.name]

    def _pooled(self, suite: Suite) -> dict[str, dict[str, Any]]:
        from drivecast.envs.evaluation.results import mark_frontier, pool

        labels = dict.fromkeys(result["label"] for result in self._of(suite))
        return mark_frontier({label: pool([r for r in self._of(suite) if r["label"] == label]) for label in labels})

    def _source(self, suite: Suite, simulator: str = "batched") -> TrafficSource:
        highway = highway_of(suite, simulator)
        config = self.config
        data = tuple(config.data) if suite.environment == RECORDED else ()
        recorded = replace(config.recorded, others=suite.others)
        return TrafficSource(suite.environment, data, config.split, recorded, highway, config.device)

    def _seeds(self, suite: Suite, source: TrafficSource) -> tuple[int, ...]:
        if suite.environment != RECORDED:
            return suite.seeds(self.config.episodes)
        return suite.seeds(min(self.config.episodes, source.open().count))  # type: ignore[attr-defined]

    def _sitting(self, suite: Suite, source: TrafficSource, driver: str, seeds: tuple[int, ...]) -> Sitting:
        config, loop, folder = self.config, self.config.loop, self.config.output / "episodes" / suite.name
        if source.highway.simulator == "highway-env":  # a check: what is kept is what the batched simulator drove
            loop, folder = replace(loop, keep="none"), folder / "highway-env"
        sources = {"code": self._code, "model": self._models[driver]}
        if suite.environment == RECORDED:
            sources |= {f"recordings {number}": store for number, store in enumerate(self._stores)}
        plan = Drive(
            source, driver, seeds, loop, folder, config.idm, place=self._places[driver], planner=config.planner
        )
        return Sitting(plan, config.output / "parts", sources)

    def _notes(self, suite: Suite) -> list[str]:
        """What a reader of the table must know that its rows do not say."""
        config, notes = self.config, []
        if suite.environment == RECORDED:
            names = ", ".join(Path(folder).name for folder in config.data)
            notes.append(f"Recordings: {names}; split: {config.split}.")
        changed = _changed("idm", config.idm, IDMConfig())
        changed += _changed("planner", config.planner, PlannerConfig())
        changed += _changed("loop", ClosedLoopConfig(most_steps=config.loop.most_steps), ClosedLoopConfig())
        if suite.environment == RECORDED:
            changed += _changed("recorded", replace(config.recorded, others="replay"), RecordedTrafficConfig())
        if changed:
            notes.append(f"Not with the settings that drivecast has by itself: {', '.join(changed)}.")
        driven = {result["driver"] for result in self._of(suite)}
        left = [entrant.driver for entrant in self.entrants(suite) if entrant.driver not in driven]
        if left:
            notes.append(f"Still to be driven: {', '.join(left)}.")
        return notes

    def _save(self) -> None:
        import pandas as pd

        from drivecast.scripts.figures.benchmark_table import markdown
        from drivecast.scripts.figures.frontier import draw_frontier
        from drivecast.worldmodel.storage.files import atomic_file

        output = self.config.output
        suites = [SUITES[name] for name in dict.fromkeys(result["suite"] for result in self.results)]
        pooled = {suite.name: self._pooled(suite) for suite in suites}
        texts = {
            "results.json": json.dumps(self.results, indent=2, allow_nan=False) + "\n",
            "pooled.json": json.dumps(pooled, indent=2, allow_nan=False) + "\n",
            "table.md": "\n".join(
                markdown(suite.name, self._of(suite), pooled[suite.name], self._notes(suite)) for suite in suites
            ),
        }
        for name, text in texts.items():
            with atomic_file(output / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
        with atomic_file(output / "episodes.parquet") as temporary:
            named = [table.assign(suite=suite, driver=driver) for (suite, driver), table in self.tables.items()]
            pd.concat(named, ignore_index=True).to_parquet(temporary, index=False)
        draw_frontier(output / "frontier.png", pooled)


def _metric_names(entrants: list[Entrant]) -> dict[str, str]:
    """What each driver's metrics are called: its label; with a number where several trainings share one."""
    shown = labels([entrant.driver for entrant in entrants])
    names = {}
    for entrant in entrants:
        sharing = [other.driver for other in entrants if other.label == entrant.label]
        label = shown[entrant.driver] if entrant.label == entrant.driver else entrant.label
        names[entrant.driver] = label if len(sharing) == 1 else f"{label}-{sharing.index(entrant.driver)}"
    return names


def _changed(group: str, given: object, default: object) -> list[str]:
    """Values that are not the default ones, `group.name value` each."""
    from drivecast.scripts.tracking.provenance import flat_params

    usual = flat_params(default)
    return [f"{group}.{name} {value}" for name, value in flat_params(given).items() if value != usual[name]]
