"""`drivecast surprise`: which moments of recordings a world model finds hardest to believe."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from drivecast.envs.replay.episode import Episode, EpisodeMetadata
from drivecast.envs.replay.gallery import write_gallery
from drivecast.scripts.command.device import available_device
from drivecast.scripts.tracking.run import Run
from drivecast.worldmodel.energy.model_energy import ModelEnergy
from drivecast.worldmodel.evaluation.energy_table import measured_scale
from drivecast.worldmodel.evaluation.surprise import Moment, SurpriseScoring, distinct, moment_window, score_moments
from drivecast.worldmodel.evaluation.surprise_figure import draw_moments, draw_timeline
from drivecast.worldmodel.forecaster.forecast import forecast, sampled_forecasts
from drivecast.worldmodel.forecaster.loading import load_world_model
from drivecast.worldmodel.forecaster.model import WorldModel
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.recordings.window import Window
from drivecast.worldmodel.scene.driver import Imagination
from drivecast.worldmodel.scene.kinematics import recorded_controls
from drivecast.worldmodel.scene.traffic import Controls, TrafficState
from drivecast.worldmodel.storage.files import atomic_file

REPLAYED_AGENTS = 48
SAMPLES = 12
REPLAYS = "replays"


@dataclass(frozen=True)
class SurpriseConfig:
    """Score every vehicle's next 3 s by their free energy under a world model, given 2 s of history.

    Writes OUTPUT/surprise.json (every vehicle and moment, the most surprising first), OUTPUT/surprise.png (over time),
    and of the most surprising ones OUTPUT/moments.png and pages to replay, OUTPUT/replays/index.html.

    Args:
        data: Folder of the recording store.
        model: Model file, its folder, pretrained:us101, pretrained:highway, or models:/NAME/VERSION of the registry.
        output: Folder of the report.
        split: Which recordings to score: train, val, test or all.
        replays: How many of the most surprising moments are shown; of one vehicle only those at least 5 s apart.
        scale_data: Store on which the model's usual errors are measured (its training split, or all of it where it has
            none), so that results on several stores compare. Default: `data`.
        seed: Seed of the sampled futures that are shown.
        device: `cpu`, or `cuda` where there is one.
        scoring: How surprise is measured.
    """

    data: Path
    model: str
    output: Path
    split: Literal["train", "val", "test", "all"] = "all"
    replays: int = 10
    scale_data: Path | None = None
    seed: int = 0
    device: str = "cpu"
    scoring: SurpriseScoring = field(default_factory=SurpriseScoring)

    def __post_init__(self) -> None:
        if self.replays < 1:
            raise ValueError(f"replays must be at least 1, not {self.replays}")


def run(config: SurpriseConfig, run: Run) -> None:
    """Score, show and store."""
    from drivecast.scripts.driving.registry import resolve_model

    device = available_device(config.device)
    model = load_world_model(resolve_model(config.model), device)
    store = WindowStore.open(config.data)
    yardstick = store if config.scale_data is None else WindowStore.open(config.scale_data)
    scale = measured_scale(model, yardstick, "train" if yardstick.splits.get("train") else "all")
    with run.progress(1.0, f"scoring '{config.split}'") as progress:

        def on_progress(more: int, total: int) -> None:
            progress.advance(more / total)

        moments = score_moments(ModelEnergy(model, scale), store, config.split, config.scoring, on_progress)
    output = Path(config.output)
    with atomic_file(output / "surprise.json") as temporary:
        temporary.write_text(json.dumps([moment.as_json() for moment in moments], indent=1), encoding="utf-8")
    run.log_artifact(output / "surprise.json")
    energies = torch.tensor([moment.free_energy for moment in moments])
    run.log_metrics(
        {"moments": len(moments), "median_free_energy": float(energies.median()), "highest": float(energies.max())}
    )
    top = distinct(moments, config.replays)
    draw_timeline(moments, top, output / "surprise.png")
    index = _show(config, run, model, store, top)
    for name in ("surprise.png", "moments.png"):
        run.log_figure(output / name)
    run.log_artifact(output / REPLAYS, REPLAYS)
    run.table(
        f"most surprising of {len(moments):,} moments (median {energies.median():.1f})",
        ["rank", "recording", "vehicle", "time", "free energy"],
        [
            [str(rank), each.recording, str(each.vehicle_id), f"{each.time_s:g} s", f"{each.free_energy:.1f}"]
            for rank, each in enumerate(top, 1)
        ],
    )
    run.say(f"written: {output / 'surprise.json'} and {index}")


@torch.no_grad()
def _show(config: SurpriseConfig, run: Run, model: WorldModel, store: WindowStore, top: list[Moment]) -> Path:
    """Draw the top moments and write their replays; returns the list of these."""
    folder = Path(config.output) / REPLAYS
    folder.mkdir(parents=True, exist_ok=True)
    for stale in [*folder.glob("[0-9]*.parquet"), *folder.glob("[0-9]*.html")]:
        stale.unlink()
    windows, likeliest, sampled, paths = [], [], [], []
    generator = torch.Generator(config.device).manual_seed(config.seed)
    with run.progress(2 * len(top), "replays") as progress:
        for rank, moment in enumerate(top, 1):
            window = moment_window(store, moment, REPLAYED_AGENTS)
            there = window.to(config.device)
            memory, steps = model.observe(there.history, there.road), window.future.valid.shape[1]
            best = forecast(model, memory, there.road, steps).to("cpu")
            draws = sampled_forecasts(model, memory, there.road, steps, SAMPLES, generator=generator).to("cpu")
            path = folder / f"{rank:02}.parquet"
            _episode(moment, rank, window, best, draws, store.dt_s).write(path)
            windows.append(window)
            likeliest.append(best)
            sampled.append(draws)
            paths.append(path)
            progress.advance()
        draw_moments(top, windows, likeliest, sampled, Path(config.output) / "moments.png")
        return write_gallery(folder, paths, folder, lambda: progress.advance())


def _episode(
    moment: Moment, rank: int, window: Window, likeliest: TrafficState, sampled: TrafficState, dt_s: float
) -> Episode:
    """The moment as an episode of its vehicle: 2 s before it and 3 s after, and what the model expected at it."""
    states = TrafficState.cat([window.history[0], window.future[0]])
    present = window.history.valid.shape[1] - 1
    acceleration, steering = recorded_controls(
        states.heading_rad[:, 0], states.speed_mps[:, 0], states.length_m[0, 0], dt_s
    )
    seen = window.present.valid[:, None, None, :, None]
    return Episode(
        states=states,
        controls=Controls(acceleration, steering),
        road=window.road,
        metadata=EpisodeMetadata(
            driver="human",
            environment="recorded",
            seed=rank,
            dt_s=dt_s,
            outcome="completed",
            recording=moment.recording,
            vehicle_id=moment.vehicle_id,
            extras={
                "Surprise": f"number {rank}, free energy {moment.free_energy:.1f}",
                "Moment": f"{moment.time_s:g} s of the recording, {present * dt_s:g} s here",
            },
        ),
        imaginations={
            present: Imagination(likeliest.position_m[:, :, 0], sampled.position_m.masked_fill(~seen, torch.nan))
        },
    )
