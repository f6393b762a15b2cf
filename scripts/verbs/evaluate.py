"""`drivecast evaluate`: drivers in the closed loop, their collision rates and the episodes to look at."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drivecast.envs.drivers.idm import IDMConfig
from drivecast.envs.evaluation.closed_loop import ClosedLoopConfig
from drivecast.envs.imagined.config import ImaginedTrafficConfig
from drivecast.envs.recorded.config import RecordedTrafficConfig
from drivecast.planner.planning.driver import PlannerConfig
from drivecast.scripts.driving.drive import Drive, driven, labels
from drivecast.scripts.driving.driver_kinds import PLANNING, explains_drivers, kind_of, without_destination, without_net
from drivecast.scripts.driving.drivers import (
    ENVIRONMENTS,
    IMAGINED,
    RECORDED,
    HighwayConfig,
    TrafficSource,
    check_driver,
    check_policy_file,
    make_driver,
)
from drivecast.scripts.driving.registry import located, resolve_model
from drivecast.scripts.driving.workers import Workers
from drivecast.scripts.tracking.run import Run
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.recordings.split import check_split

if TYPE_CHECKING:
    import pandas as pd


FILES = ("episodes.parquet", "collisions.png", "results.json")
SCORING = ("policy:", "planner:")  # drivers with an energy, who imagine
UNFINISHED, STOPPED = ".unfinished-", "stopped"  # folders in OUTPUT


@explains_drivers
@dataclass(frozen=True)
class EvaluateConfig:
    """Drive closed-loop episodes with each driver on the same seeds; report collisions, success, speed and comfort.

    Args:
        output: Folder for results.json, episodes.parquet and the kept episodes.
        driver: Who drives: {drivers}. Repeatable.
        environment: Where: recorded, imagined (by a world model), highway-v0, highway-fast-v0, merge-*,
            merge-generic-*, exit-*, roundabout-*, each of them -v0 or -v1. Repeatable.
        episodes: Number of episodes, on seeds SEED, SEED + 1, ...; 0: each vehicle of recorded traffic once.
        seed: First seed.
        data: Recording stores, for recorded traffic and for the starts of imagined traffic.
        split: Part of the stores: train, val, test or all.
        loop: How episodes are run and which are kept.
        model: World model that imagines the traffic: a file, a folder, pretrained:us101, or models:/NAME/VERSION of the
            registry.
        recorded: Recorded traffic.
        imagined: Imagined traffic.
        highway: highway-env's traffic.
        idm: The driver idm.
        planner: The driver planner.
        concept: Taught concepts that planners drive by, on top of what else plans cost: FILE or FILE=WEIGHT, from
            `drivecast teach`. Repeatable.
        device: Where tensors are computed: cpu, cuda, ...
        workers: Processes; 0: one per core.
    """

    output: Path
    driver: list[str] = field(default_factory=lambda: ["idm"])
    environment: list[str] = field(default_factory=lambda: [RECORDED])
    episodes: int = 100
    seed: int = 0
    data: list[Path] = field(default_factory=list)
    split: str = "test"
    loop: ClosedLoopConfig = field(default_factory=ClosedLoopConfig)
    model: Path | None = None
    recorded: RecordedTrafficConfig = field(default_factory=RecordedTrafficConfig)
    imagined: ImaginedTrafficConfig = field(default_factory=ImaginedTrafficConfig)
    highway: HighwayConfig = field(default_factory=HighwayConfig)
    idm: IDMConfig = field(default_factory=IDMConfig)
    planner: PlannerConfig = field(default_factory=PlannerConfig)
    concept: list[str] = field(default_factory=list)
    device: str = "cpu"
    workers: int = 0

    def __post_init__(self) -> None:
        check_split(self.split)
        if self.concept and not any(kind_of(driver) in PLANNING for driver in self.driver):
            raise InputError(f"concept: only planners drive by concepts; give --driver {PLANNING[0]}:PATH")
        if not self.driver or not self.environment:
            raise InputError("driver, environment: expected at least one of each")
        for name in ("driver", "environment"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise InputError(f"{name}: expected each name once, got {values}")
        for environment in self.environment:
            if environment not in ENVIRONMENTS:
                raise InputError(f"environment: expected one of {', '.join(ENVIRONMENTS)}; got '{environment}'")
            if environment != RECORDED and self.episodes == 0:
                raise InputError(f"episodes: expected at least 1 in {environment}, got 0")
            for driver in self.driver:
                check_driver(driver, environment)
        for name in ("episodes", "seed", "workers"):
            if getattr(self, name) < 0:
                raise InputError(f"{name}: expected at least 0, got {getattr(self, name)}")


def run(config: EvaluateConfig, run: Run) -> None:
    """Evaluate each driver in each environment. Earlier results in OUTPUT give way once the new ones are complete."""
    if config.concept:
        concepts = (*config.planner.concepts, *config.concept)
        config = replace(config, planner=replace(config.planner, concepts=concepts), concept=[])
    places = {driver: located(driver) for driver in config.driver}
    for driver, place in places.items():
        check_policy_file(place)
        make_driver(
            place, config.idm, config.device, config.planner
        )  # what cannot be loaded is told before anything is driven
        if place != driver:
            run.say(f"{driver} is {place}")
    model = resolve_model(config.model) if config.model and IMAGINED in config.environment else None
    sources = {
        environment: TrafficSource(
            environment,
            tuple(config.data),
            config.split,
            config.recorded,
            config.highway,
            config.device,
            model=model if environment == IMAGINED else None,
            imagined=config.imagined,
        )
        for environment in config.environment
    }
    seeds = {environment: _seeds(config, source, run) for environment, source in sources.items()}
    for environment in filter(without_destination, config.environment):
        run.say(
            f"{environment}: no driver is told to take the exit, so none completes it; look at collisions and speed"
        )
    output = config.output
    output.mkdir(parents=True, exist_ok=True)
    for half in output.glob(f"{UNFINISHED}*"):  # of an evaluation that was killed
        shutil.rmtree(half, ignore_errors=True)
    unfinished = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=output))
    try:
        with Workers(config.workers) as workers:
            work = replace(config, output=unfinished)
            results = _evaluate(work, sources, seeds, places, _hash(config, model), workers, run)
        _figure(unfinished, results)
        _publish(unfinished, output)
    except BaseException:
        _keep_what_there_is(unfinished, output, run)
        raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    run.log_figure(output / "collisions.png")
    for name in ("results.json", "episodes.parquet", "episodes"):
        if (output / name).exists():
            run.log_artifact(output / name)
    kept = len(list((output / "episodes").glob("*.parquet")))
    run.say(f"{output}: results.json, episodes.parquet and {kept} kept episodes for `drivecast replay`")


def _publish(unfinished: Path, output: Path) -> None:
    """Put new results in the place of earlier ones; results.json, which says what the others are, comes last."""
    kept, place = unfinished / "episodes", output / "episodes"
    earlier = {file.name for file in place.glob("*.parquet") if _is_episode(file)}
    new = {file.name for file in kept.glob("*.parquet")} if kept.is_dir() else set()
    if new:
        place.mkdir(parents=True, exist_ok=True)
    for name in sorted(new):
        os.replace(kept / name, place / name)
    for name in FILES:
        if (unfinished / name).exists():
            os.replace(unfinished / name, output / name)
    for name in earlier - new:
        (place / name).unlink()


def _is_episode(file: Path) -> bool:
    """Whether an evaluation kept this file; somebody may have put another beside it."""
    from drivecast.envs.replay.episode_file import read_config_hash

    return read_config_hash(file) is not None


def _keep_what_there_is(unfinished: Path, output: Path, run: Run) -> None:
    """Results of the drivers that were done when it was stopped: not in the place of earlier, complete ones."""
    if not (unfinished / "results.json").exists():
        return
    place = output / STOPPED if (output / "results.json").exists() else output
    place.mkdir(exist_ok=True)
    _publish(unfinished, place)
    count = len(json.loads((place / "results.json").read_text(encoding="utf-8")))
    run.say(f"stopped; what was driven whole is in {place / 'results.json'} ({count} of the drivers' rows)")


def _evaluate(
    config: EvaluateConfig,
    sources: Mapping[str, TrafficSource],
    seeds: Mapping[str, tuple[int, ...]],
    places: Mapping[str, str],
    config_hash: str,
    workers: Workers,
    run: Run,
) -> list[dict[str, Any]]:
    from drivecast.envs.evaluation.results import compare, summarise

    named = labels(config.driver)
    # all drivers are scored by one energy, so that their costs can be compared: the first policy's, else a planner's
    have = [place for kind in SCORING for place in places.values() if place.startswith(kind)]
    scored_by = have[0] if have else ""
    results: list[dict[str, Any]] = []
    tables: list[pd.DataFrame] = []
    for environment, source in sources.items():
        by_driver: dict[str, pd.DataFrame] = {}
        for driver in config.driver:
            drive = Drive(
                source,
                driver,
                seeds[environment],
                config.loop,
                config.output / "episodes",
                config.idm,
                scored_by,
                config_hash,
                label=named[driver],
                place=places[driver],
                planner=config.planner,
            )
            table = _drive(drive, workers, run)
            by_driver[driver] = table
            about: dict[str, Any] = {"label": named[driver], "seed": config.seed, "config_hash": config_hash}
            if config.planner.concepts and kind_of(driver) in PLANNING:
                about["concepts"] = list(config.planner.concepts)
            results.append({**summarise(table, driver, environment), **drive.decision_ms(), **about})
            against = compare(by_driver)
            for result in results:
                if result["environment"] == environment:
                    result["against"] = against[result["driver"]]
            tables.append(table.assign(environment=environment, driver=driver))
            _save(config.output, results, tables)
            run.log_metrics(_metrics(results[-1]))
        _show(run, environment, [result for result in results if result["environment"] == environment])
    return results


def _seeds(config: EvaluateConfig, source: TrafficSource, run: Run) -> tuple[int, ...]:
    count = config.episodes
    if source.environment == RECORDED:
        vehicles = source.open().count  # type: ignore[attr-defined]
        if count > vehicles:
            run.say(f"recorded traffic: {vehicles} vehicles can be driven, so {vehicles} episodes instead of {count}")
        count = min(count or vehicles, vehicles)
    if source.environment == IMAGINED:
        source.open()  # what cannot be loaded is told before anything is driven
    return tuple(range(config.seed, config.seed + count))


def _drive(drive: Drive, workers: Workers, run: Run) -> pd.DataFrame:
    import pandas as pd

    source, driver = drive.source, drive.driver
    # replayed traffic is cheap; only a driver that imagines is worth more processes there
    spread = source.environment != RECORDED or (without_net(driver)[1].startswith(SCORING) and source.device == "cpu")
    tables = []
    collisions = completed = 0
    with run.progress(total=len(drive.seeds), what=f"{source.environment}, {driver}") as progress:
        if spread:
            for _, table in driven(drive.parts(drive.part_size()), workers):
                tables.append(table)
                collisions += int((table["outcome"] == "collision").sum())
                completed += int((table["outcome"] == "completed").sum())
                progress.advance(len(table), collisions=collisions, completed=completed)
        else:
            tables.append(drive.run(lambda n, c, s: progress.advance(n, collisions=c, completed=s)))
    table = pd.concat(tables, ignore_index=True).sort_values("seed", ignore_index=True)
    drive.trim(table)
    return table


def _save(output: Path, results: list[dict[str, Any]], tables: list[pd.DataFrame]) -> None:
    import pandas as pd

    from drivecast.worldmodel.storage.files import atomic_file

    with atomic_file(output / "results.json") as temporary:
        temporary.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    with atomic_file(output / "episodes.parquet") as temporary:
        pd.concat(tables, ignore_index=True).to_parquet(temporary, index=False)


def _metrics(result: dict[str, Any]) -> dict[str, float]:
    prefix = f"{result['environment']}/{result['label']}"
    return {f"{prefix}/{name}": value for name, value in result.items() if isinstance(value, float)}


def _show(run: Run, environment: str, results: list[dict[str, Any]]) -> None:
    from drivecast.scripts.figures.benchmark_table import decision_time

    def share(result: dict[str, Any], name: str) -> str:
        low, high = result[f"{name}_low"], result[f"{name}_high"]
        return f"{100 * result[f'{name}_rate']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"

    columns = ["driver", "episodes", "collision %", "at fault %", "off road %", "success %", "speed m/s"]
    columns += ["TTC < 0.95 s %", "headway s", "uncomfortable %", "decision ms p50, p99"]
    rows = [
        [
            result["driver"],
            result["episodes"],
            share(result, "collision"),
            f"{100 * result['at_fault_collision_rate']:.1f}",
            f"{100 * result['off_road_rate']:.1f}",
            share(result, "success"),
            round(result["mean_speed_mps"], 2),
            f"{100 * result['short_ttc_rate']:.1f}",
            "-" if result["time_headway_s"]["p50"] is None else f"{result['time_headway_s']['p50']:.1f}",
            f"{100 * result['uncomfortable_rate']:.1f}",
            decision_time(result),
        ]
        for result in results
    ]
    run.table(f"{environment}: closed loop, with 95 % intervals", columns, rows)
    for result in results:
        if "net_rate" in result:
            time, episodes = 100 * result["net_time_share"], 100 * result["net_rate"]
            run.say(f"{result['driver']}: overridden in {time:.1f} % of the time, in {episodes:.0f} % of the episodes")
        if "imagined_minus_realised" in result:
            gap = result["imagined_minus_realised"]
            run.say(
                f"{result['driver']}: imagined cost {result['imagined_cost']:.3f} per step, "
                f"realised {result['realised_cost']:.3f}; imagined minus realised {gap['mean']:+.3f}"
            )


def _figure(output: Path, results: list[dict[str, Any]]) -> Path:
    """Collisions against speed: safety is cheap for who is slow, so the two are shown together."""
    from drivecast.envs.evaluation.results import mark_frontier
    from drivecast.scripts.figures.frontier import draw_frontier

    environments: dict[str, dict[str, Any]] = {}
    for result in results:
        environments.setdefault(result["environment"], {})[result["label"]] = result
    path = output / "collisions.png"
    draw_frontier(path, {environment: mark_frontier(drivers) for environment, drivers in environments.items()})
    return path


def _hash(config: EvaluateConfig, model: Path | None) -> str:
    """Of the configuration, its concepts, and the world model's weights where one imagines the traffic."""
    from drivecast.planner.costs.concept import concept_digests
    from drivecast.scripts.tracking.provenance import config_yaml
    from drivecast.worldmodel.forecaster.loading import load_world_model
    from drivecast.worldmodel.storage.checkpoint import weights_digest

    text = config_yaml(replace(config, output=Path("."), workers=0))
    text += "".join(concept_digests(config.planner.concepts))
    if model is not None:
        text += weights_digest(load_world_model(model))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
