"""Recordings with traffic that flows through, and a world model that follows by hand, to imagine traffic with."""

from __future__ import annotations

from pathlib import Path

import torch
from recorded_scenes import Track, straight_scene
from torch import Tensor

from drivecast.worldmodel.forecaster.model import MODEL_KIND, Memory, WorldModel, WorldModelConfig
from drivecast.worldmodel.recordings.window import RecordedScene
from drivecast.worldmodel.storage.checkpoint import save_model

SPEED_MPS, EVERY_S, SECTION_M = 15.0, 2.0, 300.0


def flowing_tracks(frames: int = 120) -> list[Track]:
    """Two lanes on which a car comes by every 2 s at 15 m/s, seen from 0 to 300 m."""
    tracks = []
    for lane in range(2):
        for number in range(-9, round(frames * 0.1 / EVERY_S)):
            since = round((number + 0.5 * lane) * EVERY_S / 0.1)  # step at which it is at 0 m
            last = since + round(SECTION_M / SPEED_MPS / 0.1)
            x_m = max(0, -since) * 0.1 * SPEED_MPS
            tracks.append(Track(x_m, SPEED_MPS, lane, max(0, since), min(last, frames - 1)))
    return tracks


def flowing_scene(frames: int = 120) -> RecordedScene:
    return straight_scene(flowing_tracks(frames), frames)


class FollowingByHand(WorldModel):
    """Keeps 2 m and 1 s behind whoever is ahead in the lane, with a little of the latent; on roads along +x."""

    def motion(self, memory: Memory, latent: Tensor, masks: Tensor | None = None) -> tuple[Tensor, Tensor]:
        scene = memory.scene
        x, y, speed = scene.position_m[..., 0], scene.position_m[..., 1], scene.speed_mps
        ahead = x[:, None] - x[..., None]  # (batch, of, other)
        beside = (y[:, None] - y[..., None]).abs() > 2
        ahead = ahead.masked_fill(beside | (ahead <= 0) | ~scene.valid[:, None], 1000.0)
        distance, leader = ahead.min(-1)
        faster = torch.where(distance < 1000, speed.gather(1, leader), speed) - speed
        follow = 0.3 * (distance - 7 - speed) + 0.8 * faster
        free = 0.3 * (SPEED_MPS - speed)
        return torch.minimum(follow, free).clamp(-8, 2) + 0.3 * latent[..., 0], torch.zeros_like(speed)


def by_hand() -> FollowingByHand:
    return FollowingByHand(WorldModelConfig(hidden=8, latent_dims=2))


def write_world_model(folder: Path, seed: int) -> Path:
    """The file of a small model without training whose cars are not all alike."""
    torch.manual_seed(seed)
    config = WorldModelConfig(hidden=16, latent_dims=2)
    model = WorldModel(config)
    torch.nn.init.normal_(model.decoder_out.weight[:1], std=0.1)
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder / "world-model.safetensors", model, MODEL_KIND, config)
    return folder / "world-model.safetensors"
