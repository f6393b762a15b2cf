"""A picture of real futures with sampled futures over them, and of the error against constant velocity."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from drivecast.worldmodel.evaluation.forecasts import HISTORY_S, constant_velocity_of_history
from drivecast.worldmodel.forecaster.forecast import forecast, sampled_forecasts
from drivecast.worldmodel.forecaster.model import WorldModel
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.recordings.window import Window
from drivecast.worldmodel.storage.files import atomic_file

REAL, SAMPLED, MEAN, PAST, BASELINE = "#009E73", "#D55E00", "#0072B2", "#333333", "#999999"
VIEW_M = 90.0
DRAWN_S = 5  # s


@torch.no_grad()
def draw_forecasts(
    model: WorldModel, store: WindowStore, split: str, result: Mapping[str, Any], path: Path, seed: int = 0
) -> None:
    """Write a PNG: three scenes in which constant velocity fails most, and the errors over the horizon."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    model.eval()
    scenes = _telling_scenes(store, split, count=3)
    figure = Figure(figsize=(13, 11), constrained_layout=True)
    FigureCanvasAgg(figure)
    axes = figure.subplots(4, 1, height_ratios=[1, 1, 1, 1.3])
    generator = torch.Generator().manual_seed(seed)
    for axis, scene in zip(axes, scenes, strict=False):
        _draw_scene(axis, model, scene, generator)
    for axis in axes[len(scenes) : 3]:
        axis.set_axis_off()
    if scenes:
        axes[0].legend(loc="upper left", ncols=5, fontsize=8)
        axes[len(scenes) - 1].set_xlabel("along the road, m")
    _draw_errors(axes[3], result)
    figure.suptitle(f"Forecasts of {DRAWN_S} s from {HISTORY_S:g} s of history, split '{split}'")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def _telling_scenes(store: WindowStore, split: str, count: int) -> list[Window]:
    """Moments far apart whose constant-velocity error, over all vehicles, is greatest."""
    dt = store.dt_s
    history_steps, steps = round(HISTORY_S / dt) + 1, round(DRAWN_S / dt)
    frames = store.frames(split, history_steps, steps)
    frames = frames[:: max(len(frames) // 200, 1)]
    if not len(frames):
        return []
    scores = []
    for chosen in frames.split(16):
        window = store.window(chosen, history_steps, steps, 64)
        guess = constant_velocity_of_history(window.history, steps, dt)
        error = (guess.position_m - window.future.position_m).norm(dim=-1)[:, -1]
        scored = window.future.valid[:, -1] & window.history.valid.all(1)
        scores.append((error * scored).sum(1))
    order = torch.cat(scores).argsort(descending=True)
    chosen_frames: list[int] = []
    for index in order.tolist():
        frame = int(frames[index])
        if all(abs(frame - other) > 30 for other in chosen_frames):
            chosen_frames.append(frame)
        if len(chosen_frames) == count:
            break
    return [store.window(torch.tensor([frame]), history_steps, steps, 64) for frame in chosen_frames]


def _draw_scene(axis, model: WorldModel, window: Window, generator: torch.Generator, samples: int = 12) -> None:
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(generator.initial_seed())
    window = window.to(device)
    history, future, road = window.history, window.future, window.road
    steps = future.valid.shape[1]
    memory = model.observe(history, road)
    mean = forecast(model, memory, road, steps)[0].to("cpu")
    sampled = sampled_forecasts(model, memory, road, steps, samples, generator=generator)[0].to("cpu")
    history, future = history[0].to("cpu"), future[0].to("cpu")
    for lane in range(road.centre_m.shape[1]):
        points = int(road.point_count[0, lane])
        centre, half = road.centre_m[0, lane, :points].cpu(), road.width_m[0, lane, :points, None].cpu() / 2
        for side in (-1, 1):
            axis.plot(centre[:, 0], centre[:, 1] + side * half[:, 0], color="#dddddd", linewidth=1, zorder=0)
    scored = history.valid.all(0) & future.valid.any(0)
    named = False
    for agent in scored.nonzero().flatten().tolist():
        seen = future.valid[:, agent]

        def label(text: str, first: bool = not named) -> str | None:
            return text if first else None

        for sample in range(samples):
            axis.plot(
                *sampled.position_m[sample, :, agent].T,
                color=SAMPLED,
                alpha=0.22,
                linewidth=1,
                label=label("sampled futures") if sample == 0 else None,
            )
        axis.plot(*history.position_m[:, agent].T, color=PAST, linewidth=1.2, label=label("past"))
        axis.plot(*future.position_m[seen, agent].T, color=REAL, linewidth=2, label=label("what happened"))
        axis.plot(
            *mean.position_m[:, agent].T, color=MEAN, linewidth=1, linestyle="--", label=label("likeliest latent")
        )
        corners = torch.cat([history.corners_m()[-1, agent], history.corners_m()[-1, agent, :1]])
        axis.plot(*corners.T, color=PAST, linewidth=1)
        named = True
    middle = float(history.position_m[-1, scored, 0].median()) if bool(scored.any()) else 0.0
    axis.set_xlim(middle - VIEW_M / 2, middle + VIEW_M * 1.2)
    axis.set_ylabel("across, m")


def _draw_errors(axis, result: Mapping[str, Any]) -> None:
    horizons = result["horizons_s"]
    for name, text, colour, style in (
        ("constant_velocity_rmse_m", "constant velocity, RMSE", BASELINE, "-"),
        ("rmse_m", "world model, RMSE", MEAN, "-"),
        ("fde_m", "world model, FDE", MEAN, "--"),
        ("joint_min_fde_m", f"best of {result['samples']} sampled scenes, FDE", SAMPLED, "--"),
    ):
        errors = [float("nan") if value is None else value for value in result[name]]
        axis.plot(horizons, errors, color=colour, linestyle=style, marker="o", label=text)
    axis.set_xlabel("horizon, s")
    axis.set_ylabel("error, m")
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend()
