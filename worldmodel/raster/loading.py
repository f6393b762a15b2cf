"""A raster predictor from its file."""

from __future__ import annotations

from pathlib import Path

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.raster.network import RasterConfig, RasterModel
from drivecast.worldmodel.storage.checkpoint import config_from_dict, load_model

RASTER_KIND, RASTER_FILE = "raster-model", "raster-model.safetensors"


def is_raster_model(name: Path | str) -> bool:
    """Whether that file is one, or that folder holds one."""
    path = Path(name)
    return path.name == RASTER_FILE or (path / RASTER_FILE).is_file()


def load_raster_model(name: Path | str, device: str = "cpu") -> RasterModel:
    """The frozen model in that file, or in the folder that holds it.

    Raises:
        InputError: It is missing, damaged, or no raster predictor.
    """
    loaded = load_model(name, RASTER_KIND)
    model = RasterModel(config_from_dict(RasterConfig, loaded.config))
    try:
        model.load_state_dict(loaded.state)
    except RuntimeError as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise InputError(
            f"{loaded.path}: weights do not fit this version's raster predictor ({first}); train it again"
        ) from error
    return model.to(device).eval().requires_grad_(False)
