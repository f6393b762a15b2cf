"""The energy of a joint embedding: how far what came lies from what was predicted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from drivecast.worldmodel.joint_embedding.frames import SceneFrames
from drivecast.worldmodel.joint_embedding.network import JointEmbedding, Known
from drivecast.worldmodel.joint_embedding.objective import encoded


@dataclass(frozen=True)
class PredictionEnergy:
    """E = mean over frames of |(s_(k+1) - Pred(s_k, move_k)) / sigma|² / dims: low where a scene goes on as predicted.

    From each frame the next one is predicted, so that an error counts once, when it comes. sigma `(dims,)` is the usual
    error of each dimension, measured on recordings: 1 is usual.

    Args:
        model: The joint embedding, frozen.
        sigma: Usual errors, `(dims,)`.
    """

    model: JointEmbedding
    sigma: Tensor

    @staticmethod
    @torch.no_grad()
    def measured(model: JointEmbedding, frames: SceneFrames, past: int) -> PredictionEnergy:
        """With the usual errors on `frames`."""
        errors = _errors(model, frames, past)
        return PredictionEnergy(model, errors.square().flatten(0, 1).mean(0).sqrt().clamp_min(1e-6))

    def by_frame(self, frames: SceneFrames, past: int) -> Tensor:
        """Of each frame after the present, `(batch, time)`; differentiable in the frames."""
        return (_errors(self.model, frames, past) / self.sigma).square().mean(-1)

    def __call__(self, frames: SceneFrames, past: int) -> Tensor:
        """E, `(batch,)`; differentiable in the frames."""
        return self.by_frame(frames, past).mean(1)


def _errors(model: JointEmbedding, frames: SceneFrames, past: int) -> Tensor:
    known, embeddings, moves = encoded(model, frames, past)
    before = embeddings[:, :-1]
    context = known.context[:, None].expand(-1, before.shape[1], -1)
    predicted = model.predict(Known(before, context), moves)
    return embeddings[:, 1:] - predicted
