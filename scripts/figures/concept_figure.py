"""Concepts as pictures: the energy of where the other one is, and how often driving by a concept succeeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from drivecast.envs.evaluation.statistics import wilson_interval
from drivecast.worldmodel.concepts.demonstrations import labelled, stretches
from drivecast.worldmodel.concepts.loading import ConceptModel
from drivecast.worldmodel.concepts.objective import Tasks, energy_of, taught
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.scene.entities import FRAME_S, Entities

SHOWN = ("follow-1.6", "left-of-level", "right-of-behind", "open-gap")
SPEED_MPS, FRAMES, LANE_M, LENGTH_M = 24.0, 8, 4.0, 5.0
REACH_M, SIDE_M = 60.0, 6.0
STRETCHES, SHOTS = 6000, 3


def one_other(ahead_m: Tensor, left_m: Tensor) -> Entities:
    """The ego and one other as fast as it, which stands so to it, `(place,)` each."""
    count, time = len(ahead_m), torch.arange(FRAMES) * FRAME_S * SPEED_MPS
    nothing = torch.zeros(count, FRAMES, 2)
    return Entities(
        along_m=torch.stack([time.expand(count, -1), ahead_m[:, None] + time], -1),
        across_m=torch.stack([torch.zeros(count, FRAMES), left_m[:, None].expand(-1, FRAMES)], -1),
        speed_mps=nothing + SPEED_MPS,
        acceleration_mps2=nothing,
        yaw_rad=nothing,
        length_m=nothing + LENGTH_M,
        width_m=nothing + 2.0,
        valid=torch.ones(count, FRAMES, 2, dtype=torch.bool),
        lane_width_m=torch.full((count,), LANE_M),
    )


def draw(rows: Mapping[str, Any], model: ConceptModel, data: Sequence[Path], split: str, path: Path) -> None:
    """Energies of four concepts, each taught by three demonstrations; below, successes of driving by them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.0, 6.2), constrained_layout=True)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, len(SHOWN), height_ratios=[1, 1])
    stores = [WindowStore.open(folder) for folder in data]
    tasks = Tasks(labelled(stretches(stores, split, STRETCHES, torch.Generator().manual_seed(2))), SHOWN, SHOTS)
    ahead, left = torch.linspace(-REACH_M, REACH_M, 97), torch.linspace(-SIDE_M, SIDE_M, 49)
    places = torch.cartesian_prod(left, ahead)
    for column, name in enumerate(SHOWN):
        axes = figure.add_subplot(grid[0, column])
        label = tasks.of[name][torch.randperm(len(tasks.of[name]), generator=torch.Generator().manual_seed(4))[:SHOTS]]
        shown = tasks.about(label, tasks.labelled.entities.valid.shape[1])
        code = taught(model.energy, shown, SHOTS, model.inference)
        with torch.no_grad():
            energy = energy_of(model.energy, one_other(places[:, 1], places[:, 0]), code.expand(len(places), -1))
        energy = energy.view(len(left), len(ahead))
        drawn = axes.contourf(ahead, left, energy.sqrt(), levels=16, cmap="viridis_r")
        axes.contour(ahead, left, energy.sqrt(), levels=[float(energy.sqrt().min()) + 0.25], colors="white")
        axes.add_patch(_box(0.0, 0.0))
        for edge in (-1.5, -0.5, 0.5, 1.5):
            axes.axhline(edge * LANE_M, color="white", lw=0.6, ls=":")
        for other in range(SHOTS):
            moved = shown.along_m[other, :, 1] - shown.along_m[other, :, 0]
            aside = shown.across_m[other, :, 1] - shown.across_m[other, :, 0]
            axes.plot(moved, aside, color="#ff6ec7", lw=2)
        axes.set(xlim=(-REACH_M, REACH_M), ylim=(-SIDE_M, SIDE_M))
        axes.set_title(f"{name}{' (never trained on)' if name in model.held_out else ''}", fontsize=9)
        axes.set_xlabel("the other one is ahead by, m", fontsize=8)
        if column == 0:
            axes.set_ylabel("… to the left by, m", fontsize=8)
        axes.tick_params(labelsize=7)
        figure.colorbar(drawn, ax=axes, shrink=0.8).ax.tick_params(labelsize=6)
    _successes(figure.add_subplot(grid[1, :]), rows, model.held_out)
    figure.suptitle(
        f"√energy of where the other one is, both at {SPEED_MPS:g} m/s, after {SHOTS} demonstrations (pink); "
        "the ego is the box",
        fontsize=10,
    )
    figure.savefig(path, dpi=110)


def _box(ahead_m: float, left_m: float):
    from matplotlib.patches import Rectangle

    return Rectangle((ahead_m - LENGTH_M / 2, left_m - 1.0), LENGTH_M, 2.0, color="black")


def _successes(axes: Any, rows: Mapping[str, Any], held_out: Sequence[str]) -> None:
    from drivecast.scripts.driving.concept_drives import WAYS

    sums: dict[tuple[str, str], list[int]] = {}
    concepts: dict[str, None] = {}
    for key, row in rows.items():
        if not key.startswith("driven/"):
            continue
        _, concept, way, shots, _ = key.split("/")
        concepts[concept] = None
        way = f"{way}, {shots} shown" if shots != "0" else way
        found = sums.setdefault((concept, way), [0, 0])
        found[0] += row["success"]
        found[1] += row["trials"]
    ways = sorted({way for _, way in sums}, key=lambda way: (WAYS.index(way.split(",")[0]), way))
    width = 0.8 / max(len(ways), 1)
    for number, way in enumerate(ways):
        places, shares, bars = [], [], []
        for place, concept in enumerate(concepts):
            if (concept, way) in sums:
                success, trials = sums[concept, way]
                low, high = _interval(success, trials)
                places.append(place - 0.4 + (number + 0.5) * width)
                shares.append(100 * success / trials)
                bars.append((max(100 * success / trials - low, 0.0), max(high - 100 * success / trials, 0.0)))
        axes.bar(places, shares, width, yerr=torch.tensor(bars).T.tolist() if bars else None, label=way, capsize=2)
    axes.set_xticks(range(len(concepts)), [f"{name}\n(held out)" if name in held_out else name for name in concepts])
    axes.set_ylabel("comes to hold for 3 s,\nno contact, %", fontsize=8)
    axes.set_ylim(0, 128)  # room for the legend
    axes.set_yticks(range(0, 101, 20))
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=7, ncol=4)


def _interval(success: int, trials: int) -> tuple[float, float]:
    found = wilson_interval(success, trials)
    return 100 * found.low, 100 * found.high
