"""A picture of calibration: coverage of central regions over the horizon, and rank histograms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from drivecast.worldmodel.storage.files import atomic_file

COLOURS = ("#0072B2", "#009E73", "#D55E00")
SHOWN_S = (1, 3, 5, 8)
TITLES = {"along": "along the road", "left": "to the left"}


def draw_calibration(result: Mapping[str, Any], path: Path) -> None:
    """Write a PNG of the content of `forecast.json`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7), constrained_layout=True)
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 1 + len(SHOWN_S), width_ratios=[2.2] + [1] * len(SHOWN_S))
    horizons = result["horizons_s"]
    for row, side in enumerate(("along", "left")):
        coverage = axes[row, 0]
        for region, colour in zip(result["regions"], COLOURS, strict=True):
            values = [np.nan if value is None else value for value in region[side]]
            coverage.plot(horizons, values, color=colour, marker="o", label=f"region of {region['ideal']:.0%}")
            coverage.axhspan(region["ideal"] - 0.04, region["ideal"] + 0.04, color=colour, alpha=0.15, linewidth=0)
        coverage.set_ylim(0, 1)
        coverage.set_ylabel(f"share of truths inside, {TITLES[side]}")
        coverage.grid(alpha=0.3)
        for column, horizon in enumerate(SHOWN_S, 1):
            _draw_ranks(axes[row, column], np.array(result["rank_histogram"][side][horizons.index(horizon)]))
            axes[row, column].set_title(f"{horizon} s, {TITLES[side]}", fontsize=9)
    axes[0, 0].legend(fontsize=8, loc="lower left")
    axes[1, 0].set_xlabel("horizon, s (bands: within 4 points of the ideal)")
    axes[1, 1].set_xlabel("rank of the truth among samples", fontsize=8)
    figure.suptitle(f"Calibration of {result['samples']} sampled futures, split '{result['split']}'")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def _draw_ranks(axis: Any, counts: np.ndarray) -> None:
    """Flat: calibrated; a bowl: too narrow; a hill: too wide; a slope: biased."""
    axis.set_yticks([])
    axis.set_xticks([0, len(counts) - 1])
    if not counts.sum():
        axis.text(0.5, 0.5, "no windows", ha="center", va="center", transform=axis.transAxes, fontsize=8)
        return
    axis.bar(range(len(counts)), counts / counts.sum() * len(counts), width=1.0, color="#999999")
    axis.axhline(1.0, color="#D55E00", linewidth=1)
    axis.set_ylim(0, max(3.0, float(counts.max() / counts.sum() * len(counts)) * 1.05))
