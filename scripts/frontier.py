"""The benchmark's figure: collisions against speed, and who is on the frontier."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel.files import atomic_file

TICKS_PERCENT = (0, 0.1, 0.5, 1, 2, 5, 10, 20, 40, 70, 100)


def draw_frontier(path: Path, suites: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """One panel per suite; `suites` maps suite and label to pooled results. The vertical axis is a square root."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    labels = list(dict.fromkeys(label for drivers in suites.values() for label in drivers))
    colours = {label: plt.get_cmap("tab20")(number % 20) for number, label in enumerate(labels)}
    markers = {label: "osD^vP*Xph<>"[number % 12] for number, label in enumerate(labels)}
    width = 5.2 * len(suites) + 2.2
    figure, panels = plt.subplots(1, len(suites), figsize=(width, 4.6), squeeze=False, layout="constrained")
    for axes, (suite, drivers) in zip(panels[0], suites.items(), strict=True):
        best = sorted((one for one in drivers.values() if one["on_frontier"]), key=lambda one: one["mean_speed_mps"])
        if len(best) > 1:
            speeds, rates = ([one[name] for one in best] for name in ("mean_speed_mps", "collision_rate"))
            axes.step(speeds, 100 * np.array(rates), where="post", color="0.7", linewidth=1.5, linestyle="--", zorder=0)
        for label, one in drivers.items():
            rate, low, high = (100 * one[f"collision_{end}"] for end in ("rate", "low", "high"))
            speed = one["mean_speed_mps"]
            slow, fast = (one[f"mean_speed_{end}_mps"] for end in ("low", "high"))
            axes.errorbar(
                speed,
                rate,
                xerr=None if slow is None or fast is None else [[speed - slow], [fast - speed]],
                yerr=[[max(rate - low, 0.0)], [max(high - rate, 0.0)]],
                fmt=markers[label],
                color=colours[label],
                markersize=8,
                markeredgecolor="black" if one["on_frontier"] else "none",
                elinewidth=1.4,
                clip_on=False,
                zorder=3,
                label=label,
            )
        axes.set_yscale("function", functions=(_root, np.square))
        highest = max(100 * one["collision_high"] for one in drivers.values())
        axes.set_ylim(0, max(1.0, 1.1 * highest))
        axes.set_yticks([tick for tick in TICKS_PERCENT if tick <= axes.get_ylim()[1]])
        axes.yaxis.set_major_formatter("{x:g}")
        episodes = max(one["episodes"] for one in drivers.values())
        axes.set(title=f"{suite}, {episodes:,} episodes", xlabel="mean speed, m/s")
        axes.grid(alpha=0.3)
    panels[0][0].set_ylabel("episodes with a collision, % (95 %)")
    found: dict[str, Any] = {}
    for axes in panels[0]:
        handles, names = axes.get_legend_handles_labels()
        found |= dict(zip(names, handles, strict=True))
    figure.legend(
        found.values(), found.keys(), loc="outside right upper", fontsize=8, title="driver (on the frontier: outlined)"
    )
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
    plt.close(figure)


def _root(values: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(values, 0.0))
