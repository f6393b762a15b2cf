"""Encoder of scenes, predictor in the space of their embeddings, and what tells the ego's move from two of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.latent import DiagonalNormal
from drivecast.worldmodel.joint_embedding.frames import EGO_FEATURES, MOVE_FEATURES, SceneFrames
from drivecast.worldmodel.scene.relations import RELATION_FEATURES, ego_relations


@dataclass(frozen=True)
class JointEmbeddingConfig:
    """Architecture.

    Args:
        dims: Dimensions of an embedding.
        hidden: Width of the layers.
        latent_dims: Dimensions of the latent of each step, which stands for what the past does not say; 0: none.
        stride: Steps of `dt_s` from one frame to the next.
        dt_s: Time step of recordings, s.
    """

    dims: int = 64
    hidden: int = 128
    latent_dims: int = 0
    stride: int = 5
    dt_s: float = 0.1

    def __post_init__(self) -> None:
        for name, least in (("dims", 2), ("hidden", 1), ("latent_dims", 0), ("stride", 1)):
            if getattr(self, name) < least:
                raise InputError(f"joint_embedding.model.{name}: expected at least {least}, got {getattr(self, name)}")
        if not self.dt_s > 0.0:
            raise InputError(f"joint_embedding.model.dt_s: expected more than 0, got {self.dt_s}")

    @property
    def frame_s(self) -> float:
        return self.stride * self.dt_s


class JointEmbedding(nn.Module):
    """s = Enc(scenes so far), s' = s + Pred(s, move, z): predicted is what a scene will mean, never the scene.

    The encoder looks at each frame's pairs of the ego and another (maximum and sum over them, so that their order does
    not matter), a GRU carries the frames before; the same encoder gives the targets. Sources: LeCun 2022, "A path
    towards autonomous machine intelligence", section 4.4 (joint embedding, no contrastive samples); VICReg (Bardes,
    Ponce, LeCun 2022) against collapse; inverse dynamics and temporal similarity: Sobal et al. 2025 (PLDM).
    """

    def __init__(self, config: JointEmbeddingConfig) -> None:
        super().__init__()
        self.config = config
        hidden, dims, latent = config.hidden, config.dims, config.latent_dims
        self.pair = nn.Sequential(
            nn.Linear(RELATION_FEATURES, hidden // 2), nn.SiLU(), nn.Linear(hidden // 2, hidden // 2), nn.SiLU()
        )
        self.frame = nn.Sequential(nn.Linear(2 * (hidden // 2) + EGO_FEATURES, hidden), nn.SiLU())
        self.past = nn.GRUCell(hidden, hidden)
        self.embed = nn.Linear(2 * hidden, dims)
        self.predictor = nn.Sequential(
            nn.Linear(dims + MOVE_FEATURES + latent, 2 * hidden),
            nn.SiLU(),
            nn.Linear(2 * hidden, 2 * hidden),
            nn.SiLU(),
            nn.Linear(2 * hidden, dims),
        )
        self.inverse = nn.Sequential(nn.Linear(2 * dims, hidden), nn.SiLU(), nn.Linear(hidden, MOVE_FEATURES))
        if latent:
            self.posterior_net = nn.Sequential(
                nn.Linear(2 * dims + MOVE_FEATURES, hidden), nn.SiLU(), nn.Linear(hidden, 2 * latent)
            )

    def encode(self, frames: SceneFrames) -> Tensor:
        """Embeddings of all frames, each with those before it: `(batch, time, dims)`."""
        pairs, counts = ego_relations(frames.entities)
        pairs, counts = pairs[:, :, 0, 1:], counts[:, :, 0, 1:, None]
        looked = self.pair(pairs) * counts
        pooled = torch.cat([looked.amax(2).clamp_min(0.0), looked.sum(2) / 8.0], -1)
        seen = self.frame(torch.cat([pooled, frames.ego_features()], -1))  # (batch, time, hidden)
        there = frames.entities.valid[..., :1]
        memory = torch.zeros_like(seen[:, 0])
        memories = []
        for time in range(seen.shape[1]):
            memory = torch.where(there[:, time], self.past(seen[:, time], memory), memory)
            memories.append(memory)
        return self.embed(torch.cat([torch.stack(memories, 1), seen], -1))

    def predict(self, embedding: Tensor, move: Tensor, latent: Tensor | None = None) -> Tensor:
        """The embedding `(batch, dims)` a frame later, after the ego's `move (batch, 4)`; no latent: its zero."""
        parts = [embedding, move]
        if self.config.latent_dims:
            parts.append(self.no_latent(embedding) if latent is None else latent)
        return embedding + self.predictor(torch.cat(parts, -1))

    def unroll(self, embedding: Tensor, moves: Tensor, latents: Tensor | None = None) -> Tensor:
        """From `embedding (batch, dims)` on under `moves (batch, time, 4)`: `(batch, time, dims)`."""
        found = []
        for time in range(moves.shape[1]):
            latent = None if latents is None else latents[:, time]
            embedding = self.predict(embedding, moves[:, time], latent)
            found.append(embedding)
        return torch.stack(found, 1)

    def posterior(self, embedding: Tensor, move: Tensor, after: Tensor) -> DiagonalNormal:
        """The latent of a step from its end, `(batch, latent)`."""
        return DiagonalNormal.of_parameters(self.posterior_net(torch.cat([embedding, move, after], -1)))

    def no_latent(self, embedding: Tensor) -> Tensor:
        return embedding.new_zeros(*embedding.shape[:-1], self.config.latent_dims)

    def moved(self, before: Tensor, after: Tensor) -> Tensor:
        """The ego's move, told from the embeddings before and after it: `(..., 4)`."""
        return self.inverse(torch.cat([before, after], -1))
