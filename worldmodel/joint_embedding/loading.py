"""A joint embedding from its file."""

from __future__ import annotations

from pathlib import Path

from drivecast.worldmodel.joint_embedding.network import JointEmbedding, JointEmbeddingConfig
from drivecast.worldmodel.storage.checkpoint import LoadedModel, config_from_dict, frozen, holds_model, load_model

JOINT_EMBEDDING_KIND, JOINT_EMBEDDING_FILE = "joint-embedding", "joint-embedding.safetensors"


def is_joint_embedding(name: Path | str) -> bool:
    """Whether that file is one, or that folder holds one."""
    return holds_model(name, JOINT_EMBEDDING_FILE)


def load_joint_embedding(name: Path | str, device: str = "cpu") -> JointEmbedding:
    """The frozen model in that file, or in the folder that holds it.

    Raises:
        InputError: It is missing, damaged, or no joint embedding.
    """
    return joint_embedding_of(load_model(name, JOINT_EMBEDDING_KIND), device)


def joint_embedding_of(loaded: LoadedModel, device: str = "cpu") -> JointEmbedding:
    """The frozen model that was stored; raises `InputError` where its weights do not fit."""
    model = JointEmbedding(config_from_dict(JointEmbeddingConfig, loaded.config))
    return frozen(model, loaded, "joint embedding", device)
