"""Pictures of joint embeddings: collapse through training, and what lies open 1 to 5 s ahead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

STYLES = ("-", "--", ":", "-.")
UNITS = {
    "gap": "gap to the leader, R²",
    "speed": "speed, R²",
    "lane_offset": "place in the lane, R²",
    "urgency": "1 / time to collision, R²",
    "lane_change": "lane change within 3 s, AUROC",
}


def draw_collapse(curves: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> Path:
    """Effective rank and the least spread of a dimension over steps, a line for each training."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    panels = (("effective_rank", "effective rank of the embeddings"), ("least_std", "least spread of a dimension"))
    for panel, (measure, title) in zip(axes, panels, strict=True):
        for number, (name, points) in enumerate(curves.items()):
            steps, values = [p["step"] for p in points], [p[measure] for p in points]
            panel.plot(steps, values, STYLES[number // 4 % 4], color=f"C{number}", label=name)
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("step")
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
    axes[1].legend(fontsize=7.5, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def draw_probes(
    probes: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]], seconds: Sequence[int], path: Path
) -> Path:
    """Scores of each representation over seconds ahead, with their intervals, a panel for each quantity."""
    figure, axes = plt.subplots(1, len(UNITS), figsize=(15, 3.4), layout="constrained")
    for panel, (quantity, title) in zip(axes, UNITS.items(), strict=True):
        for number, (name, row) in enumerate(probes.items()):
            each, colour = row[quantity], f"C{number}"
            panel.plot(seconds, [p["score"] for p in each], STYLES[number % 4], color=colour, label=name, marker=".")
            panel.fill_between(seconds, [p["low"] for p in each], [p["high"] for p in each], color=colour, alpha=0.12)
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("s ahead")
        panel.set_ylim(0.4 if quantity == "lane_change" else -0.1, 1.02)
        panel.grid(alpha=0.3)
    axes[-1].legend(fontsize=7.5, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    figure.savefig(path, dpi=100)
    plt.close(figure)
    return path
