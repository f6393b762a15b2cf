"""Policies that several tests drive."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from drivecast.planner.costs.energy import EnergyConfig
from drivecast.planner.policy.network import Policy, PolicyConfig
from drivecast.worldmodel.storage.checkpoint import save_model


def write_policy(folder: Path, seed: int) -> str:
    """A policy without training, which drives without a world model."""
    torch.manual_seed(seed)
    folder.mkdir(exist_ok=True)
    config = PolicyConfig(hidden=16)
    extra = {"energy": asdict(EnergyConfig()), "lane_choice": {"enabled": False}, "seed": seed}
    save_model(folder / "policy.safetensors", Policy(config), "policy", config, extra)
    return f"policy:{folder}"
