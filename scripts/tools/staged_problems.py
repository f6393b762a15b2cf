"""Who solves the staged problems, and a picture of how: `python -m drivecast.scripts.tools.staged_problems`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from drivecast.envs.drivers.idm import IDMConfig
from drivecast.envs.evaluation.closed_loop import ClosedLoopConfig, run_episodes
from drivecast.envs.staged.problems import PROBLEMS
from drivecast.envs.staged.traffic import StagedTraffic
from drivecast.scripts.driving.drivers import make_driver
from drivecast.scripts.driving.registry import located
from drivecast.worldmodel.scene.traffic import TrafficState
from drivecast.worldmodel.storage.files import atomic_file

DRIVERS = ["idm", "rule", "planner:pretrained:highway"]
LANE_COLOURS = ["#2166ac", "#e08214", "#4d9221"]
SECONDS_APART = 0.1


def driven(name: str) -> list[TrafficState]:
    """`(time, agent)` of each problem, side by side in one batch."""
    driver = make_driver(located(name), IDMConfig())
    # nobody looks at what it imagines, and to ask for that takes as long as the drive
    config = ClosedLoopConfig(batch=len(PROBLEMS), keep="all", imagine_every_s=1e3)
    episodes = run_episodes(StagedTraffic(PROBLEMS, SECONDS_APART), driver, range(len(PROBLEMS)), config).episodes
    each = zip(PROBLEMS, episodes, strict=True)
    return [episode.states[:, : 1 + len(problem.others)] for problem, episode in each]


def draw(path: Path, drives: dict[str, list[TrafficState]]) -> None:
    """Distance over time, a row per driver and a panel per problem; colours are lanes, the thick line is the ego."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.1 * len(PROBLEMS), 2.7 * len(drives)), layout="constrained")
    axes = figure.subplots(len(drives), len(PROBLEMS), squeeze=False)
    for row, (name, states) in enumerate(drives.items()):
        for column, (problem, each) in enumerate(zip(PROBLEMS, states, strict=True)):
            panel, wrong = axes[row, column], problem.verdict(each)
            time_s = torch.arange(len(each.valid)) * SECONDS_APART
            lane = problem.road.project(each.position_m.flatten(0, 1)[None]).lane.view(each.valid.shape)
            slowest = min(car.speed_mps for car in problem.others)
            along_m = each.position_m[..., 0] - slowest * time_s[:, None]
            for agent in range(each.valid.shape[1]):
                for number in range(problem.lanes):
                    on = lane[:, agent] == number
                    shown = torch.where(on, along_m[:, agent], torch.nan)
                    colour, width = LANE_COLOURS[number], 3.2 if agent == 0 else 1.2
                    panel.plot(time_s, shown, color=colour, linewidth=width, alpha=1.0 if agent == 0 else 0.7)
            panel.set_title(f"{problem.name}\n{wrong or 'solved'}", fontsize=8, color="#b2182b" if wrong else "black")
            panel.tick_params(labelsize=7)
            if column == 0:
                panel.set_ylabel(f"{name}\nm", fontsize=8)
            if row == len(drives) - 1:
                panel.set_xlabel(f"s (distance less {slowest:.0f} m/s)", fontsize=8)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--driver", action="append", help="who drives; repeatable")
    parser.add_argument("--output", type=Path, default=Path("problems.png"), help="the picture")
    arguments = parser.parse_args()
    drives: dict[str, list[TrafficState]] = {}
    with torch.no_grad():
        for name in arguments.driver or DRIVERS:
            drives[name] = driven(name)
            for problem, states in zip(PROBLEMS, drives[name], strict=True):
                sys.stdout.write(f"{name}: {problem.name}: {problem.verdict(states) or 'solved'}\n")
                sys.stdout.flush()
    draw(arguments.output, drives)
    sys.stdout.write(f"{arguments.output}\n")


if __name__ == "__main__":
    main()
