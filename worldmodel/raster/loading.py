"""A raster predictor from its file."""

from __future__ import annotations

from pathlib import Path

from drivecast.worldmodel.raster.network import RasterConfig, RasterModel
from drivecast.worldmodel.storage.checkpoint import config_from_dict, frozen, holds_model, load_model

RASTER_KIND, RASTER_FILE = "raster-model", "raster-model.safetensors"


def is_raster_model(name: Path | str) -> bool:
    """Whether that file is one, or that folder holds one."""
    return holds_model(name, RASTER_FILE)


def load_raster_model(name: Path | str, device: str = "cpu") -> RasterModel:
    """The frozen model in that file, or in the folder that holds it.

    Raises:
        InputError: It is missing, damaged, or no raster predictor.
    """
    loaded = load_model(name, RASTER_KIND)
    return frozen(RasterModel(config_from_dict(RasterConfig, loaded.config)), loaded, "raster predictor", device)
