"""Encoder of scenes, predictor in the space of their embeddings, and what tells the ego's move from two of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.latent import DiagonalNormal
from drivecast.worldmodel.joint_embedding.frames import MOVE_FEATURES, SceneFrames
from drivecast.worldmodel.scene.sight import SIGHT_FEATURES
from drivecast.worldmodel.scene.traffic import _TensorRecord


@dataclass(frozen=True)
class JointEmbeddingConfig:
    """Architecture.

    Args:
        dims: Dimensions of an embedding.
        hidden: Width of the layers.
        context: Dimensions of what the past tells beside the present.
        latent_dims: Dimensions of the latent of each step, which stands for what the past does not say; 0: none.
        stride: Steps of `dt_s` from one frame to the next.
        dt_s: Time step of recordings, s.
    """

    dims: int = 128
    hidden: int = 192
    context: int = 32
    latent_dims: int = 0
    stride: int = 5
    dt_s: float = 0.1

    def __post_init__(self) -> None:
        for name, least in (("dims", 2), ("hidden", 1), ("context", 1), ("latent_dims", 0), ("stride", 1)):
            if getattr(self, name) < least:
                raise InputError(f"joint_embedding.model.{name}: expected at least {least}, got {getattr(self, name)}")
        if not self.dt_s > 0.0:
            raise InputError(f"joint_embedding.model.dt_s: expected more than 0, got {self.dt_s}")

    @property
    def frame_s(self) -> float:
        return self.stride * self.dt_s


@dataclass(frozen=True)
class Known(_TensorRecord):
    """What is known at present: the scene's embedding `(batch, dims)`, and what the past tells, `(batch, context)`."""

    embedding: Tensor
    context: Tensor


class JointEmbedding(nn.Module):
    """s = Enc(scene), s' = s + Pred(s, move, c, z): predicted is what a scene will mean, never the scene.

    The encoder sees what the generative model's vehicles see (`scene/sight.py`), of the ego alone, in a frame and the
    one before; the same encoder gives the targets. It is given no longer past: an embedding that may remember would be
    filled with the ego's former moves, which are predicted without error and tell nothing of the others. What the past
    tells goes into a context c beside it (a GRU), which is never a target. z: an optional latent of each step.

    Sources: LeCun 2022, "A path towards autonomous machine intelligence", section 4.4 (joint embedding, no contrastive
    samples); VICReg (Bardes, Ponce, LeCun 2022) against collapse; inverse dynamics and temporal similarity: Sobal et
    al. 2025 (PLDM).
    """

    def __init__(self, config: JointEmbeddingConfig) -> None:
        super().__init__()
        self.config = config
        hidden, dims, latent, context = config.hidden, config.dims, config.latent_dims, config.context
        self.encoder = _layers(2 * SIGHT_FEATURES, 2 * hidden, dims)
        self.frame = nn.Sequential(nn.Linear(SIGHT_FEATURES, context), nn.SiLU())
        self.past = nn.GRUCell(context, context)
        self.predictor = _layers(dims + MOVE_FEATURES + context + latent, 2 * hidden, dims)
        self.inverse = nn.Sequential(nn.Linear(2 * dims, hidden), nn.SiLU(), nn.Linear(hidden, MOVE_FEATURES))
        if latent:
            self.posterior_net = nn.Sequential(
                nn.Linear(2 * dims + MOVE_FEATURES, hidden), nn.SiLU(), nn.Linear(hidden, 2 * latent)
            )

    def encode(self, frames: SceneFrames) -> Tensor:
        """Embeddings of all frames, `(batch, time, dims)`."""
        seen = frames.seen
        before = torch.cat([seen[:, :1], seen[:, :-1]], 1)
        was_there = torch.cat([frames.valid[:, :1], frames.valid[:, :-1]], 1)
        return self.encoder(torch.cat([seen, torch.where(was_there[..., None], before, seen)], -1))

    def observe(self, history: SceneFrames) -> Known:
        """What is known at the last frame of `history`."""
        seen, there = self.frame(history.seen), history.valid[..., None]
        memory = torch.zeros_like(seen[:, 0])
        for time in range(seen.shape[1]):
            memory = torch.where(there[:, time], self.past(seen[:, time], memory), memory)
        return Known(self.encode(history.frames(max(seen.shape[1] - 2, 0), 2))[:, -1], memory)

    def predict(self, known: Known, move: Tensor, latent: Tensor | None = None) -> Tensor:
        """The embedding `(batch, dims)` a frame later, after the ego's `move (batch, 4)`; no latent: its zero."""
        parts = [known.embedding, move, known.context]
        if self.config.latent_dims:
            parts.append(self.no_latent(known.embedding) if latent is None else latent)
        return known.embedding + self.predictor(torch.cat(parts, -1))

    def unroll(self, known: Known, moves: Tensor, latents: Tensor | None = None) -> Tensor:
        """From what is `known` on under `moves (batch, time, 4)`: `(batch, time, dims)`."""
        found = []
        for time in range(moves.shape[1]):
            embedding = self.predict(known, moves[:, time], None if latents is None else latents[:, time])
            known = Known(embedding, known.context)
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


def _layers(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, outputs)
    )
