"""`drivecast train-world-model`: a forecaster of the other road users from recorded trajectories."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from drivecast.scripts.command.device import available_device
from drivecast.scripts.tracking.run import Run
from drivecast.scripts.verbs.joint_embedding import JointEmbeddingSettings, train_joint_embedding
from drivecast.scripts.verbs.raster import RasterSettings, train_raster_model
from drivecast.scripts.verbs.training import train
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.loading import load_world_model
from drivecast.worldmodel.forecaster.model import WorldModelConfig
from drivecast.worldmodel.raster.loading import load_raster_model
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
    the same settings, it goes on where it was stopped, to the last bit. With --kind joint-embedding it leaves
    joint-embedding.safetensors instead, which predicts what scenes mean and not the scenes, and what reads driving
    costs from it; with --kind raster raster-model.safetensors, which predicts pictures of the traffic from above.

    Args:
        data: Folders of recording stores (from `drivecast ingest` or `drivecast record`); give it several times to
            train on several.
        output: Folder of the model.
        seed: Seed of weights, batches and latents.
        device: `cpu`, or `cuda` where there is one.
        kind: `generative`: forecasts scenes, by the settings `model` and `training`; `joint-embedding`: predicts
            embeddings of scenes, by the settings `joint_embedding`; `raster`: predicts pictures of scenes, by the
            settings `raster`.
        model: Architecture; of a model that is started from, its own counts.
        start_from: World model to go on from, on other data: its file, its folder, pretrained:us101,
            pretrained:highway, or models:/NAME/VERSION of the registry. Empty: from random weights.
        training: Training settings.
        joint_embedding: Of a joint embedding.
        raster: Of a raster predictor.
        name: Name under which the model is registered.
    """

    data: list[Path]
    output: Path
    seed: int = 0
    device: str = "cpu"
    kind: Literal["generative", "joint-embedding", "raster"] = "generative"
    model: WorldModelConfig = field(default_factory=WorldModelConfig)
    start_from: str = ""
    training: WorldModelTrainingConfig = field(default_factory=WorldModelTrainingConfig)
    joint_embedding: JointEmbeddingSettings = field(default_factory=JointEmbeddingSettings)
    raster: RasterSettings = field(default_factory=RasterSettings)
    name: str = "world-model"


def run(config: TrainWorldModelConfig, run: Run) -> None:
    """Train, report and register."""
    from drivecast.scripts.driving.registry import resolve_model

    device = available_device(config.device)
    stores = [WindowStore.open(folder) for folder in config.data]
    before = resolve_model(config.start_from) if config.start_from else None
    if config.kind != "generative":
        name = config.name if config.name != TrainWorldModelConfig.name else config.kind
        given = (stores, config.output, config.seed, device, run, name)
        if config.kind == "raster":
            train_raster_model(config.raster, *given, None if before is None else load_raster_model(before))
            return
        if before is not None:
            raise InputError("start_from: a joint embedding starts from random weights; leave it out")
        train_joint_embedding(config.joint_embedding, *given)
        return
    architecture, start = config.model, None
    if before is not None:
        start = load_world_model(before)
        # it was calibrated for other data
        architecture = replace(start.config, temperature=config.model.temperature)
    trainer = WorldModelTrainer(architecture, config.training, stores, config.output, config.seed, device, start)
    done = trainer.resume()
    parameters = sum(parameter.numel() for parameter in trainer.network.parameters())
    rows = sum(len(rows) for rows in trainer.training_windows.rows)
    run.log_params({"parameters": parameters, "training_rows": rows})
    train(trainer, done, run, "world model", config.name, ["loss"], PANELS)
