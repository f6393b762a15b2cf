"""Draws the energy around traffic, for docs/images: `python -m drivecast.scripts.tools.energy_landscape OUT.png`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from drivecast.planner.costs.energy import Energy, EnergyConfig
from drivecast.planner.costs.trajectory import Trajectory
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState
from drivecast.worldmodel.storage.files import atomic_file

OTHERS = [(28.0, -4.0, 20.0), (8.0, 0.0, 24.0), (-22.0, -8.0, 27.0), (60.0, -8.0, 22.0)]  # x_m, y_m, speed_mps
EGO_SPEED_MPS, DESIRED_MPS = 25.0, 28.0


def landscape(step_m: float = 0.25) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """Weighted terms with the ego put at each point `(y, x)` of a grid, the others as they are."""
    x, y = torch.arange(-45.0, 75.0, step_m), torch.arange(-11.5, 3.5, step_m / 2)
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1)  # (point, 2)
    others = torch.tensor(OTHERS).expand(len(grid), -1, -1)
    position = torch.cat([grid[:, None], others[..., :2]], 1)
    speed = torch.cat([torch.full((len(grid), 1), EGO_SPEED_MPS), others[..., 2]], 1)
    ones = torch.ones_like(speed)
    state = TrafficState(position, 0 * ones, speed, 5 * ones, 2 * ones, ones > 0)
    states = state.map(lambda tensor: tensor[:, None])
    still = torch.zeros(len(grid), 1)
    goal = Goal(torch.full((len(grid),), DESIRED_MPS), torch.full((len(grid),), -1))
    road = Road.straight(3, batch=len(grid))
    terms = Energy(EnergyConfig()).terms(Trajectory(states, Controls(still, still), still[:, 0], road, goal, 0.1))
    return x, y, {name: values.view(len(y), len(x)) for name, values in terms.items()}


def draw(path: Path) -> None:
    """Write the picture: the whole energy, and three of its terms."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    x, y, terms = landscape()
    panels = {"energy": torch.stack(list(terms.values())).sum(0)} | {
        name: terms[name] for name in ("proximity", "lane", "off_road")
    }
    figure = Figure(figsize=(11, 8), constrained_layout=True)
    FigureCanvasAgg(figure)
    for axis, (name, values) in zip(figure.subplots(4, 1, sharex=True), panels.items(), strict=True):
        mesh = axis.pcolormesh(x, y, values.clamp_max(4.0), cmap="magma_r", vmin=0, vmax=4 if name != "lane" else 0.4)
        figure.colorbar(mesh, ax=axis, pad=0.01)
        for car_x, car_y, speed in OTHERS:
            axis.add_patch(Rectangle((car_x - 2.5, car_y - 1), 5, 2, facecolor="#56B4E9", edgecolor="black"))
            axis.annotate(f"{speed:.0f} m/s", (car_x, car_y - 1.9), ha="center", fontsize=7)
        axis.set_title(f"{name}: where an ego at {EGO_SPEED_MPS:.0f} m/s would be", fontsize=10, loc="left")
        axis.set_ylabel("across, m")
    axis.set_xlabel("along, m")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=90, format="png")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m drivecast.scripts.tools.energy_landscape", description="Draw the energy around traffic."
    )
    parser.add_argument("output", type=Path, help="PNG file to write")
    draw(parser.parse_args(arguments).output)


if __name__ == "__main__":
    main()
