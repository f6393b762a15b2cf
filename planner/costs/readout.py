"""Driving costs that depend on the others, read from an embedding."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.joint_embedding.loading import JOINT_EMBEDDING_FILE, JOINT_EMBEDDING_KIND
from drivecast.worldmodel.joint_embedding.network import JointEmbedding
from drivecast.worldmodel.storage.checkpoint import config_from_dict, load_model, save_model, weights_digest

COST_READOUT_KIND, COST_READOUT_FILE = "cost-readout", "cost-readout.safetensors"
SOCIAL_TERMS = ("proximity", "imposed", "contact")


@dataclass(frozen=True)
class CostReadoutConfig:
    """The readout.

    Args:
        dims: Dimensions of the embedding.
        hidden: Width of its layers.
    """

    dims: int = 64
    hidden: int = 64

    def __post_init__(self) -> None:
        if self.dims < 1 or self.hidden < 1:
            raise InputError("readout: expected dims and hidden of at least 1")


class CostReadout(nn.Module):
    """Of an embedding: the costs `proximity` and `imposed` of that frame, and the chance of a `contact` until it.

    Fitted after the embedding, which never learns from it.
    """

    def __init__(self, config: CostReadoutConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.Sequential(
            nn.Linear(config.dims, config.hidden),
            nn.SiLU(),
            nn.Linear(config.hidden, config.hidden),
            nn.SiLU(),
            nn.Linear(config.hidden, len(SOCIAL_TERMS)),
        )

    def raw(self, embedding: Tensor) -> Tensor:
        """Costs and log-odds of a contact, `(..., 3)`; costs may be below zero where they are hardly above it."""
        return self.layers(embedding)

    def forward(self, embedding: Tensor) -> dict[str, Tensor]:
        """Each term, `(...)`, of `embedding (..., dims)`; contact as a chance in [0, 1]."""
        proximity, imposed, contact = self.raw(embedding).unbind(-1)
        return {
            "proximity": torch.nn.functional.leaky_relu(proximity, 0.01),
            "imposed": torch.nn.functional.leaky_relu(imposed, 0.01),
            "contact": contact.sigmoid(),
        }


def save_readout(folder: Path, readout: CostReadout, model: JointEmbedding, extra: dict) -> Path:
    """Write it beside the model whose embeddings it reads."""
    path = Path(folder) / COST_READOUT_FILE
    save_model(path, readout, COST_READOUT_KIND, readout.config, {**extra, "reads": weights_digest(model)})
    return path


def load_readout(name: Path | str, model: JointEmbedding, device: str = "cpu") -> CostReadout:
    """The frozen readout beside a joint embedding's file, or in its folder.

    Raises:
        InputError: It is missing or damaged, or reads another model's embeddings.
    """
    folder = Path(name) if Path(name).is_dir() else Path(name).parent
    path = folder / COST_READOUT_FILE
    if not path.is_file():
        raise InputError(
            f"{path}: missing, so plans cannot be judged by {JOINT_EMBEDDING_FILE}; finish its training "
            f"(`drivecast train-world-model --kind {JOINT_EMBEDDING_KIND}`)"
        )
    loaded = load_model(path, COST_READOUT_KIND)
    if loaded.extra.get("reads") != weights_digest(model):
        raise InputError(f"{path}: was fitted to other weights than those of {JOINT_EMBEDDING_FILE}; train again")
    readout = CostReadout(config_from_dict(CostReadoutConfig, loaded.config))
    try:
        readout.load_state_dict(loaded.state)
    except RuntimeError as error:
        raise InputError(f"{path}: weights do not fit this version; train again") from error
    return readout.to(device).eval().requires_grad_(False)
