"""Pictures of surprise: its course over the recordings, and the moments at which it was highest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from drivecast.worldmodel.evaluation.surprise import Moment
from drivecast.worldmodel.recordings.window import Window
from drivecast.worldmodel.scene.traffic import TrafficState
from drivecast.worldmodel.storage.files import atomic_file

REAL, SAMPLED, LIKELIEST, PAST, OTHERS = "#009E73", "#D55E00", "#0072B2", "#333333", "#999999"
MOST_PANELS = 8
AROUND_M, BEHIND_M, AHEAD_M = 12.0, 35.0, 75.0  # of a moment's picture


def draw_timeline(moments: Sequence[Moment], top: Sequence[Moment], path: Path) -> None:
    """Free energies over time, a panel for each recording that holds one of the `top` moments (at most 8)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(moment.recording for moment in top))[:MOST_PANELS]
    figure = Figure(figsize=(11, 1.2 + 1.7 * len(names)), constrained_layout=True)
    FigureCanvasAgg(figure)
    for axis, name in zip(figure.subplots(len(names), 1, squeeze=False, sharey=True)[:, 0], names, strict=True):
        own = [moment for moment in moments if moment.recording == name]
        time = np.array([moment.time_s for moment in own])
        energy = np.array([moment.free_energy for moment in own])
        axis.scatter(time, energy, s=5, color=OTHERS, linewidths=0, label="a vehicle's next 3 s")
        at = np.unique(time)
        axis.plot(at, [np.median(energy[time == when]) for when in at], color=LIKELIEST, label="median")
        for rank, moment in enumerate(top, 1):
            if moment.recording == name:
                axis.plot(moment.time_s, moment.free_energy, "o", color=SAMPLED, markersize=5)
                axis.annotate(
                    f"{rank}: vehicle {moment.vehicle_id}",
                    (moment.time_s, moment.free_energy),
                    (5, 0),
                    textcoords="offset points",
                    fontsize=7,
                    va="center",
                )
        axis.set_title(name, fontsize=9, loc="left")
        axis.set_ylabel("free energy, 1/s", fontsize=8)
        axis.margins(x=0.1)  # for the names on the right
        axis.set_yscale("symlog", linthresh=1.0)
        axis.set_ylim(bottom=0)
        axis.tick_params(labelsize=7)
    figure.axes[0].legend(fontsize=7, loc="lower left", ncols=2)
    figure.axes[-1].set_xlabel("time, s")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def draw_moments(
    top: Sequence[Moment],
    windows: Sequence[Window],
    likeliest: Sequence[TrafficState],
    sampled: Sequence[TrafficState],
    path: Path,
) -> None:
    """The top moments: past, what happened, the likeliest and sampled futures of the vehicle (agent 0).

    Args:
        top: The moments.
        windows: Their scenes, one each.
        likeliest: `(1, time, agent)` of each.
        sampled: `(1, sample, time, agent)` of each.
        path: PNG file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-len(top) // 2)
    figure = Figure(figsize=(15, 0.8 + 2.0 * rows), constrained_layout=True)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, 2, squeeze=False).flatten()
    for rank, (axis, moment, window, best, draws) in enumerate(
        zip(axes, top, windows, likeliest, sampled, strict=False), 1
    ):
        _draw_moment(axis, window, best, draws)
        speeds = torch.cat([window.history.speed_mps[0, ::10, 0], window.future.speed_mps[0, 9::10, 0]])
        told = ", ".join(f"{speed:.1f}" for speed in speeds.tolist())
        axis.set_title(
            f"{rank}: {moment.recording} vehicle {moment.vehicle_id} at {moment.time_s:g} s, free energy "
            f"{moment.free_energy:.1f}; speed by the second {told} m/s",
            fontsize=7,
            loc="left",
        )
    for axis in axes[len(top) :]:
        axis.set_axis_off()
    axes[0].legend(fontsize=6, loc="lower left", ncols=4)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def _draw_moment(axis, window: Window, best: TrafficState, draws: TrafficState) -> None:
    history, future, road = window.history[0], window.future[0], window.road
    for lane in range(road.centre_m.shape[1]):
        points = int(road.point_count[0, lane])
        centre, half = road.centre_m[0, lane, :points], road.width_m[0, lane, :points, None] / 2
        for side in (-1, 1):
            axis.plot(centre[:, 0], centre[:, 1] + side * half[:, 0], color="#dddddd", linewidth=1, zorder=0)
    for agent in range(1, history.valid.shape[1]):
        if not bool(history.valid[-1, agent]):
            continue
        corners = history.corners_m()[-1, agent]
        axis.fill(*corners.T, color="#e8e8e8", edgecolor=OTHERS, linewidth=0.5)
        seen = future.valid[:, agent]
        axis.plot(*future.position_m[seen, agent].T, color=OTHERS, linewidth=0.7)
    for sample in range(draws.valid.shape[1]):
        label = "sampled futures" if sample == 0 else None
        axis.plot(*draws.position_m[0, sample, :, 0].T, color=SAMPLED, alpha=0.4, linewidth=1, label=label)
    axis.plot(*history.position_m[:, 0].T, color=PAST, linewidth=1.2, label="past")
    axis.plot(*future.position_m[:, 0].T, color=REAL, linewidth=2, label="what happened")
    axis.plot(*best.position_m[0, :, 0].T, color=LIKELIEST, linestyle="--", linewidth=1, label="likeliest future")
    for state, colour in ((history[-1], PAST), (future[-1], REAL)):
        corners = state.corners_m()[0]
        axis.plot(*torch.cat([corners, corners[:1]]).T, color=colour, linewidth=1)
    x, y = history.position_m[-1, 0].tolist()
    ahead = 1.0 if float(history.direction[-1, 0, 0]) >= 0 else -1.0
    axis.set_xlim(*sorted((x - ahead * BEHIND_M, x + ahead * AHEAD_M)))
    axis.set_ylim(y - AROUND_M, y + AROUND_M)
    axis.tick_params(labelsize=6)
