"""What drivers make of the speed that is asked for: `... tools.speed_frontier --driver NAME ... --output FILE.png`.

Each driver on the same training seeds of a suite's traffic, asked for one speed after the other. Prints collisions and
mean speeds, and draws them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from drivecast.envs.evaluation.closed_loop import ClosedLoopConfig
from drivecast.envs.evaluation.statistics import wilson_interval
from drivecast.envs.evaluation.suites import SUITES, simulated
from drivecast.scripts.driving.drive import Drive, driven, labels
from drivecast.scripts.driving.drivers import TrafficSource, highway_of
from drivecast.scripts.driving.registry import located
from drivecast.scripts.driving.workers import Workers
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.storage.files import atomic_file

FIRST_SEED = 7_500_000  # of training; suites begin at 3,000,000,000


def main(arguments: Sequence[str] | None = None) -> int:
    """Drive, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--driver", action="append", required=True, help="as of `drivecast evaluate`")
    parser.add_argument("--suite", action="append", help="whose traffic; default: highway, highway-dense")
    parser.add_argument("--speeds", type=float, nargs="+", default=[15, 18, 21, 24, 27, 30, 32], help="asked for, m/s")
    parser.add_argument("--episodes", type=int, default=250)
    parser.add_argument("--workers", type=int, default=0, help="processes; 0: one per core")
    parser.add_argument("--output", type=Path, required=True, help="figure to write")
    given = parser.parse_args(arguments)
    try:
        suites = _simulated(given.suite or ["highway", "highway-dense"])
        rows = []
        with Workers(given.workers) as workers:
            for suite in suites:
                for driver in given.driver:
                    for asked in given.speeds:
                        rows.append(_row(suite, driver, asked, given.episodes, workers))
                        line = "{suite:22s} {driver:28s} asked for {asked:4.0f}: {text}\n"
                        sys.stdout.write(line.format(**rows[-1]))
                        sys.stdout.flush()
    except InputError as error:
        sys.stderr.write(f"speed_frontier: {error}\n")
        return 1
    _draw(rows, given.output)
    sys.stdout.write(f"{given.output}\n")
    return 0


def _simulated(names: Sequence[str]) -> list[str]:
    for name in names:
        if name not in simulated():
            raise InputError(f"suite: expected some of {', '.join(simulated())}; got '{name}'")
    return list(names)


def _row(name: str, driver: str, asked: float, episodes: int, workers: Workers) -> dict[str, Any]:
    import pandas as pd

    suite = SUITES[name]
    source = TrafficSource(suite.environment, highway=replace(highway_of(suite), desired_speed_mps=asked))
    loop = ClosedLoopConfig(batch=250, keep="none")
    seeds = tuple(range(FIRST_SEED, FIRST_SEED + episodes))
    drive = Drive(source, driver, seeds, loop, Path(), place=located(driver))
    table = pd.concat([part for _, part in driven(drive.parts(drive.part_size()), workers)])
    collisions = wilson_interval(int((table["outcome"] == "collision").sum()), len(table))
    speed = float(table["distance_m"].sum() / table["duration_s"].sum())
    shares = tuple(100 * value for value in (collisions.value, collisions.low, collisions.high))
    return {
        "suite": name,
        "driver": driver,
        "asked": asked,
        "speed": speed,
        "collisions": shares,
        "text": "{:5.2f} m/s, {:.1f} % [{:.1f}, {:.1f}]".format(speed, *shares),
    }


def _draw(rows: Sequence[dict[str, Any]], output: Path) -> None:
    """Speed driven over speed asked for, collisions below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    suites = list(dict.fromkeys(row["suite"] for row in rows))
    named = labels(dict.fromkeys(row["driver"] for row in rows))
    figure = Figure(figsize=(5.2 * len(suites), 5.6), constrained_layout=True)
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(suites), squeeze=False, sharex=True, height_ratios=[2, 1])
    for column, suite in enumerate(suites):
        above, below = axes[:, column]
        for driver, label in named.items():
            own = [row for row in rows if row["suite"] == suite and row["driver"] == driver]
            asked = [row["asked"] for row in own]
            above.plot(asked, [row["speed"] for row in own], marker="o", markersize=4, label=label)
            value, low, high = zip(*(row["collisions"] for row in own), strict=True)
            spread = [
                [v - lo for v, lo in zip(value, low, strict=True)],
                [h - v for v, h in zip(value, high, strict=True)],
            ]
            below.errorbar(asked, value, yerr=spread, marker="o", markersize=4, capsize=2)
        above.plot(asked, asked, color="grey", linestyle=":", linewidth=1, label="asked for")
        above.set(title=suite, ylabel="mean speed, m/s")
        below.set(xlabel="speed asked for, m/s", ylabel="collisions, %")
        below.set_ylim(bottom=0)
        for axis in (above, below):
            axis.grid(alpha=0.3)
        above.legend(fontsize=8)
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(output) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


if __name__ == "__main__":
    sys.exit(main())
