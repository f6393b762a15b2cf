"""Figures of energies trained in several ways: their landscapes, and what the length of futures does to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from drivecast.worldmodel.storage.files import atomic_file

DPI = 80


def draw_landscapes(path: Path, landscapes: dict[str, Any]) -> None:
    """Energies over where one vehicle's future ends.

    `landscapes`: `along_m`, `left_m`, `energy` by method as rows of `left_m`; `recorded_m`, `others_m` (with half
    length and width) and `edges_m`, all against constant velocity at the horizon.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(landscapes["energy"])
    columns = 4
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(13, 3.0 * rows), constrained_layout=True)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axis, name in zip(axes, names, strict=False):
        _draw_landscape(axis, name, landscapes)
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    for axis in axes[::columns]:
        axis.set_ylabel("to the left, m")
    for axis in axes[max(len(names) - columns, 0) : len(names)]:
        axis.set_xlabel("ahead of constant velocity, m")
        axis.tick_params(labelbottom=True)
    _save(figure, path)


def _draw_landscape(axis: Any, name: str, landscapes: dict[str, Any]) -> None:
    from matplotlib.patches import Rectangle

    energy = np.array(landscapes["energy"][name])
    energy = energy - energy.min()
    top = float(np.quantile(energy, 0.8))
    axis.contourf(
        landscapes["along_m"], landscapes["left_m"], energy.clip(max=top), levels=24, cmap="magma_r", antialiased=False
    )
    best = np.unravel_index(energy.argmin(), energy.shape)
    axis.plot(landscapes["along_m"][best[1]], landscapes["left_m"][best[0]], "x", color="tab:blue", markersize=9)
    axis.plot(*landscapes["recorded_m"], "o", color="tab:green", markersize=7, markeredgecolor="white")
    for along, left, half_length, half_width in landscapes["others_m"]:
        corner = (along - half_length, left - half_width)
        axis.add_patch(
            Rectangle(corner, 2 * half_length, 2 * half_width, fill=False, edgecolor="tab:cyan", linewidth=1.5)
        )
    for edge in landscapes["edges_m"]:
        axis.axhline(edge, color="black", linewidth=1.5)
    axis.set(xlim=(landscapes["along_m"][0], landscapes["along_m"][-1]))
    axis.set(ylim=(landscapes["left_m"][0], landscapes["left_m"][-1]))
    axis.set_title(name, fontsize=10, loc="left")


def draw_scaling(path: Path, rows: dict[str, list[dict[str, float]]], straight: dict[float, float]) -> None:
    """AUROC of gross corruptions and of a tenth of each, and energy scores, over the number of dimensions.

    `rows`: by method, of each horizon `dims`, `gross`, `mild`, `energy_score_m`, `horizon_s`; `straight`: the error
    of constant velocity by horizon, m.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.6), constrained_layout=True)
    FigureCanvasAgg(figure)
    titles = (
        "AUROC, mean of six gross corruptions",
        "AUROC, a tenth of each",
        "energy score over constant velocity's",
    )
    for number, (axis, title) in enumerate(zip(figure.subplots(1, 3), titles, strict=True)):
        for name, points in rows.items():
            values = [
                (point["gross"], point["mild"], point["energy_score_m"] / straight[point["horizon_s"]])[number]
                for point in points
            ]
            axis.plot([point["dims"] for point in points], values, "o-", label=name, markersize=4)
        axis.set(xscale="log", xlabel="dimensions (10 to the second)")
        axis.set_xticks([10, 20, 30, 50, 80], ["10", "20", "30", "50", "80"])
        axis.minorticks_off()
        axis.set_title(title, fontsize=10, loc="left")
        if number == 0:
            axis.legend(fontsize=8, loc="lower right")
        if number == 2:
            axis.set_ylim(bottom=0.0)
            axis.axhline(1.0, color="grey", linewidth=1.0, linestyle="dashed")
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=DPI, format="png")
