"""`drivecast train-world-model`: a forecaster of the other road users from recorded trajectories."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from drivecast.scripts.command.device import available_device
from drivecast.scripts.tracking.run import Run
from drivecast.scripts.verbs.training import train
from drivecast.worldmodel.forecaster.loading import load_world_model
from drivecast.worldmodel.forecaster.model import WorldModelConfig
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.training.trainer import WorldModelTrainer, WorldModelTrainingConfig

ERRORS = ["train/reconstruction", "*/reconstruction", "*/forecast_error", "*/constant_velocity_error"]
PANELS = [
    ("error (0.5: off by 1 m ahead, or 0.4 m aside)", ERRORS),
    ("information in the latent, nats", ["train/kl", "*/kl"]),
    (
        "error added by giving cars each other's latents\n(unit as in the first panel; 0: the latent is ignored)",
        ["*/latent_gap"],
    ),
    (
        "error added for the others by another ego's controls\n(unit as in the first panel; 0: the ego is ignored)",
        ["*/ego_gap"],
    ),
    (
        "impossible futures, share of vehicles",
        ["*/sampled_collision_rate", "*/sampled_off_road_rate", "*/recorded_collision_rate"],
    ),
]


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
        model: Architecture; of a model that is started from, its own counts.
        start_from: World model to go on from, on other data: its file, its folder, pretrained:us101,
            pretrained:highway, or models:/NAME/VERSION of the registry. Empty: from random weights.
        training: Training settings.
        name: Name under which the model is registered.
    """

    data: list[Path]
    output: Path
    seed: int = 0
    device: str = "cpu"
    model: WorldModelConfig = field(default_factory=WorldModelConfig)
    start_from: str = ""
    training: WorldModelTrainingConfig = field(default_factory=WorldModelTrainingConfig)
    name: str = "world-model"


def run(config: TrainWorldModelConfig, run: Run) -> None:
    """Train, report and register."""
    device = available_device(config.device)
    stores = [WindowStore.open(folder) for folder in config.data]
    architecture, start = config.model, None
    if config.start_from:
        from drivecast.scripts.driving.registry import resolve_model

        start = load_world_model(resolve_model(config.start_from))
        # it was calibrated for other data
        architecture = replace(start.config, temperature=config.model.temperature)
    trainer = WorldModelTrainer(architecture, config.training, stores, config.output, config.seed, device, start)
    done = trainer.resume()
    parameters = sum(parameter.numel() for parameter in trainer.network.parameters())
    rows = sum(len(rows) for rows in trainer.training_windows.rows)
    run.log_params({"parameters": parameters, "training_rows": rows})
    train(trainer, done, run, "world model", config.name, ["loss"], PANELS)
