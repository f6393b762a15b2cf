"""A trained world model from its file."""

from __future__ import annotations

from pathlib import Path

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.model import MODEL_KIND, WorldModel, WorldModelConfig
from drivecast.worldmodel.storage.checkpoint import LoadedModel, config_from_dict, frozen, load_model

BEFORE_IT_WAS_SAID = {"latent_process": "independent", "decide_steps": 1}  # of models older than these settings
PRETRAINED = "pretrained:"  # NAME of a model that comes with drivecast begins so
WORLD_MODEL_FILE, POLICY_FILE = "world-model.safetensors", "policy.safetensors"
PICTURE_POLICY_FILE = "picture-policy.safetensors"
FOLDER = Path(__file__).parents[1] / "pretrained"


def pretrained_folder(reference: str, holds: str = WORLD_MODEL_FILE) -> Path:
    """The folder of `pretrained:NAME`: a world model, and with some a policy that was trained in it.

    Raises:
        InputError: No model of this name comes with drivecast, or none that `holds` such a file.
    """
    folder = FOLDER / reference.removeprefix(PRETRAINED)
    if not (folder / holds).is_file():
        known = ", ".join(sorted(PRETRAINED + path.parent.name for path in FOLDER.glob(f"*/{holds}")))
        raise InputError(f"{reference}: no such model comes with drivecast; it has {known}")
    return folder


def pretrained_file(reference: str) -> Path:
    """The world model's file of `pretrained:NAME`; raises as `pretrained_folder`."""
    return pretrained_folder(reference) / WORLD_MODEL_FILE


def stored_model(name: Path | str) -> LoadedModel:
    """What is stored of a world model that is named by its file, the folder that holds it, or `pretrained:NAME`.

    Raises `InputError` where the file is missing, damaged, or no world model.
    """
    return load_model(pretrained_file(str(name)) if str(name).startswith(PRETRAINED) else name, MODEL_KIND)


def load_world_model(name: Path | str, device: str = "cpu") -> WorldModel:
    """The frozen model of that name (see `stored_model`), ready to forecast.

    Raises `InputError` where the file is missing, damaged, or no world model.
    """
    return world_model_of(stored_model(name), device)


def world_model_of(loaded: LoadedModel, device: str = "cpu") -> WorldModel:
    """The frozen model that was stored.

    Raises `InputError` where its weights do not fit.
    """
    model = WorldModel(config_from_dict(WorldModelConfig, {**BEFORE_IT_WAS_SAID, **loaded.config}))
    return frozen(model, loaded, "world model", device)
