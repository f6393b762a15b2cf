"""Training the lecture's predictor: pictures of the traffic from above."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from drivecast.scripts.tracking.run import Run
from drivecast.scripts.verbs.training import train
from drivecast.worldmodel.raster.network import RasterConfig, RasterModel
from drivecast.worldmodel.raster.trainer import RasterTrainer, RasterTrainingConfig
from drivecast.worldmodel.recordings.store import WindowStore

PANELS = [
    (
        "squared error of the last picture\n(a car covers about 20 pixels)",
        ["*/forecast", "*/reconstruction", "*/standing_still"],
    ),
    (
        "sharpness, share of what was recorded\n(forecast: at z = 0; sampled: z of the prior)",
        ["*/sharpness_forecast", "*/sharpness_sampled"],
    ),
    ("information in the latent, nats", ["train/kl", "*/kl"]),
    (
        "error added by another clip's latent, by another ego's way\n(unit as in the first panel; 0: ignored)",
        ["*/latent_gap", "*/ego_gap"],
    ),
]


@dataclass(frozen=True)
class RasterSettings:
    """A raster predictor.

    Args:
        model: Architecture.
        training: Training settings.
    """

    model: RasterConfig = field(default_factory=RasterConfig)
    training: RasterTrainingConfig = field(default_factory=RasterTrainingConfig)


def train_raster_model(
    settings: RasterSettings,
    stores: Sequence[WindowStore],
    output: Path,
    seed: int,
    device: str,
    run: Run,
    name: str,
    start: RasterModel | None = None,
) -> None:
    """Train, report and register; see `drivecast train-world-model --kind raster`."""
    architecture = settings.model if start is None else start.config
    trainer = RasterTrainer(architecture, settings.training, stores, output, seed, device, start)
    done = trainer.resume()
    parameters = sum(parameter.numel() for parameter in trainer.network.parameters())
    rows = sum(len(rows) for rows in trainer.training_windows.rows)
    run.log_params({"parameters": parameters, "training_rows": rows})
    train(trainer, done, run, "raster predictor", name, ["loss"], PANELS)
