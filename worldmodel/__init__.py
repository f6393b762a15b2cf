"""Traffic recordings in, a forecaster of the other road users out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drivecast.worldmodel.energy.loaded_model import LoadedModel


def load(name: Path | str, device: str = "cpu") -> LoadedModel:
    """A trained world model: from a file, the folder that holds it, or `pretrained:NAME`.

    Raises:
        InputError: It is missing, damaged, or no world model.
    """
    from drivecast.worldmodel.energy.loaded_model import LoadedModel

    return LoadedModel.load(name, device)
