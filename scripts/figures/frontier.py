"""Collisions against speed: safety is cheap for who is slow, so the two are shown together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from drivecast.worldmodel.storage.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

TICKS_PERCENT = (0, 0.1, 0.5, 1, 2, 5, 10, 20, 40, 70, 100)
MARKERS = "osD^vPX*ph<>"
LEGEND_ROWS = 16  # beside panels of this height
BELOW_ZERO = 0.06  # of the height: what stands at zero stands clear of the frame, and so do its intervals
FRONTIER: dict[str, Any] = {"color": "0.7", "linewidth": 1.5, "linestyle": "--"}


def draw_frontier(path: Path, panels: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """Draw one panel per suite or environment; the vertical axis is a square root.

    Args:
        path: PNG to write.
        panels: By panel and driver the results (`results.summarise` or `pool`), each with
            `on_frontier`.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(name for drivers in panels.values() for name in drivers))
    styles = {
        name: {"marker": MARKERS[number % len(MARKERS)], "color": plt.get_cmap("tab10")(number % 10)}
        for number, name in enumerate(names)
    }
    figure, all_axes = plt.subplots(
        1, len(panels), figsize=(5.2 * len(panels) + 2.2, 4.6), squeeze=False, layout="constrained"
    )
    for axes, (panel, drivers) in zip(all_axes[0], panels.items(), strict=True):
        for name, one in drivers.items():
            _draw_driver(axes, one, styles[name])
        _scale(axes, max(100 * one["collision_high"] for one in drivers.values()))
        _draw_frontier(axes, [one for one in drivers.values() if one["on_frontier"]])
        episodes = max(one["episodes"] for one in drivers.values())
        axes.set(title=f"{panel}, {episodes:,} episodes", xlabel="mean speed, m/s")
    all_axes[0][0].set_ylabel("episodes with a collision, % (95 %)")
    handles = _legend(styles)
    figure.legend(
        handles=handles, loc="outside right upper", fontsize=8, ncols=-(-len(handles) // LEGEND_ROWS), numpoints=1
    )
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
    plt.close(figure)


def _draw_driver(axes: Axes, one: Mapping[str, Any], style: Mapping[str, Any]) -> None:
    rate, low, high = (100 * one[f"collision_{end}"] for end in ("rate", "low", "high"))
    speed, slow, fast = (one[f"mean_speed_{end}"] for end in ("mps", "low_mps", "high_mps"))
    axes.errorbar(
        speed,
        rate,
        xerr=None if slow is None or fast is None else [[speed - slow], [fast - speed]],
        yerr=[[max(rate - low, 0.0)], [max(high - rate, 0.0)]],
        fmt=style["marker"],
        color=style["color"],
        markersize=8,
        markeredgecolor="black" if one["on_frontier"] else "none",
        elinewidth=1.4,
        capsize=3,
        zorder=3,
    )


def _draw_frontier(axes: Axes, best: list[Mapping[str, Any]]) -> None:
    """The fewest collisions at each speed or above: what lies left of it or over it is beaten."""
    best = sorted(best, key=lambda one: one["mean_speed_mps"])
    slowest, top = axes.get_xlim()[0], axes.get_ylim()[1]
    speeds = [slowest, *(one["mean_speed_mps"] for one in best), best[-1]["mean_speed_mps"]]
    rates = [100 * best[0]["collision_rate"], *(100 * one["collision_rate"] for one in best), top]
    axes.step(speeds, rates, where="pre", zorder=0, **FRONTIER)
    axes.set_xlim(left=slowest)


def _scale(axes: Axes, highest_percent: float) -> None:
    top = max(1.0, 1.1 * highest_percent)
    axes.set_yscale("function", functions=(_root, _square))
    axes.set_ylim(-(BELOW_ZERO**2) * top, top)
    axes.axhline(0, color="0.5", linewidth=0.8, zorder=0)
    axes.set_yticks([tick for tick in TICKS_PERCENT if tick <= top])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)


def _legend(styles: Mapping[str, Mapping[str, Any]]) -> list[Line2D]:
    """A driver may be on the frontier in one panel and not in the next: what that looks like is an entry of its own."""
    from matplotlib.lines import Line2D

    entries = [Line2D([], [], linestyle="none", markersize=7, label=name, **style) for name, style in styles.items()]
    outlined: dict[str, Any] = {"marker": "o", "markerfacecolor": "none", "markeredgecolor": "black", "markersize": 7}
    return [
        *entries,
        Line2D([], [], label="outlined: nobody beats it\nin collisions and speed", **outlined, **FRONTIER),
    ]


def _root(values: np.ndarray) -> np.ndarray:
    return np.sign(values) * np.sqrt(np.abs(values))


def _square(values: np.ndarray) -> np.ndarray:
    return np.sign(values) * np.square(values)
