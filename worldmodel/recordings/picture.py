"""A picture of recordings: every track over the lanes, coloured by speed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from drivecast.worldmodel.recordings.store import WindowStore

MOST_SAMPLES = 40_000  # of a panel; more only makes it black and slow
FRAME_STRIDE = 2


def draw_tracks(store: WindowStore, file: Path, recordings: Sequence[str] | None = None, most: int = 6) -> None:
    """Draw up to `most` recordings of a store, one panel each, as a PNG.

    Lanes are grey with their edges drawn; dots are vehicles' centres, from red (standing) to blue (the fastest).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(recordings or sorted(store.recordings, key=lambda name: -store.meta["about"][name]["rows"])[:most])
    figure = Figure(figsize=(13, 1.0 + 2.1 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(names), 1, squeeze=False)[:, 0]
    scenes = [store.scene_samples(name, MOST_SAMPLES) for name in names]
    fastest = max(float(np.percentile(speed, 99)) for _, speed in scenes)
    dots: Any = None
    for panel, name, (position, speed) in zip(panels, names, scenes, strict=True):
        for lane in store.lanes[name]:
            centre, half = lane.centre_m, lane.width_m / 2
            tangent = np.gradient(centre, axis=0)
            normal = np.stack([-tangent[:, 1], tangent[:, 0]], 1) / np.linalg.norm(tangent, axis=1, keepdims=True)
            left, right = centre + half[:, None] * normal, centre - half[:, None] * normal
            panel.fill(*np.concatenate([left, right[::-1]]).T, color="0.93", linewidth=0)
            panel.plot(*left.T, color="0.7", linewidth=0.7)
            panel.plot(*right.T, color="0.7", linewidth=0.7)
            # at the lane's end on the right, so that it stays legible where a ramp comes in late
            panel.annotate(str(lane.lane_id), centre[-1], (4, -3), textcoords="offset points", fontsize=7, color="0.4")
        dots = panel.scatter(
            position[:, 0],
            position[:, 1],
            c=speed,
            s=2.5,
            cmap="turbo_r",
            vmin=0,
            vmax=fastest,
            linewidths=0,
            rasterized=True,
        )
        panel.set_title(f"{name}  ({_split_of(store, name)})", fontsize=9, loc="left")
        panel.set_ylabel("y, m (left +)", fontsize=8)
        panel.tick_params(labelsize=7)
    panels[-1].set_xlabel("x along the traffic, m", fontsize=8)
    figure.colorbar(dots, ax=list(panels), label="speed, m/s", shrink=min(1.0, 3 / len(names)), pad=0.01)
    figure.savefig(file, dpi=110, format="png")


def _split_of(store: WindowStore, name: str) -> str:
    return next((split for split, names in store.splits.items() if name in names), "no split")
