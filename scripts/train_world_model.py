"""`drivecast train-world-model`: a forecaster of the other road users from recorded trajectories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from scripts.curves import Curves
from scripts.tracking import Run
from worldmodel.errors import InputError
from worldmodel.model import WorldModelConfig
from worldmodel.recordings.store import WindowStore
from worldmodel.training import WorldModelTrainer, WorldModelTrainingConfig


@dataclass(frozen=True)
class TrainWorldModelConfig:
    """Train a world model: how the vehicles around an ego move, learned from recorded trajectories.

    Leaves OUTPUT/world-model.safetensors, the best model in validation, and training-curves.png. Started again with
    the same settings, it goes on where it was stopped, to the last bit.

    Args:
        data: Folders of recording stores (from `drivecast ingest` or `drivecast record`); give it several times to
            train on several.
        output: Folder of the model.
        seed: Seed of weights, batches and latents.
        device: `cpu`, or `cuda` where there is one.
        model: Architecture.
        training: Training settings.
        name: Name under which the model is registered.
    """

    data: list[Path]
    output: Path
    seed: int = 0
    device: str = "cpu"
    model: WorldModelConfig = field(default_factory=WorldModelConfig)
    training: WorldModelTrainingConfig = field(default_factory=WorldModelTrainingConfig)
    name: str = "world-model"


def run(config: TrainWorldModelConfig, run: Run) -> None:
    """Train, report and register."""
    device = available_device(config.device)
    stores = [WindowStore.open(folder) for folder in config.data]
    trainer = WorldModelTrainer(
        config.model,
        config.training,
        stores,
        config.output,
        config.seed,
        device,
        tuple(store.fingerprint for store in stores),
    )
    done = trainer.resume()
    if done:
        run.say(f"resumed at step {done} of {config.training.steps}")
    parameters = sum(parameter.numel() for parameter in trainer.network.parameters())
    run.log_params(
        {"parameters": parameters, "training_rows": sum(len(rows) for rows in trainer.training_windows.rows)}
    )
    curves = Curves(Path(config.output) / "training-curves.csv", resumed_at=done)

    with run.progress(config.training.steps, "training the world model") as progress:
        progress.advance(done)

        def on_step(step: int, values: Mapping[str, float]) -> None:
            progress.advance(1, loss=values["loss"])

        def log(step: int, values: Mapping[str, float]) -> None:
            run.log_metrics(values, step)
            curves.add(step, values)

        path = trainer.train(log, on_step)
    figure = curves.draw(
        Path(config.output) / "training-curves.png",
        [
            ("error", ["train/reconstruction", "*/reconstruction", "*/forecast_error", "*/constant_velocity_error"]),
            ("information in the latent, nats", ["train/kl", "*/kl"]),
            ("gaps: does it listen?", ["*/latent_gap", "*/ego_gap"]),
            (
                "impossible futures",
                ["*/sampled_collision_rate", "*/sampled_off_road_rate", "*/recorded_collision_rate"],
            ),
        ],
    )
    run.log_figure(figure)
    run.log_artifact(path, "model")
    run.register_model(path, config.name)
    last = curves.last(trainer.validated_on)
    run.table(
        f"world model after {config.training.steps} steps, on '{trainer.validated_on}'",
        ["measure", "value"],
        [(name, f"{value:.3f}") for name, value in last.items() if "kl_dim" not in name],
    )
    run.say(f"model: {path}")


MOST_THREADS = 4  # the operations are small: more threads than this wait for each other


def available_device(device: str) -> str:
    """`device`, once it is sure that it is there."""
    torch.set_num_threads(min(torch.get_num_threads(), MOST_THREADS))
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device: '{device}' can't be used ({str(error).splitlines()[0]}); try --device cpu"
        ) from error
    return device
