"""What a joint embedding is like, told on recorded scenes: does it predict, listen to the ego, and has it collapsed?"""

from __future__ import annotations

import torch

from drivecast.worldmodel.joint_embedding.frames import SceneFrames
from drivecast.worldmodel.joint_embedding.network import JointEmbedding
from drivecast.worldmodel.joint_embedding.objective import (
    JointEmbeddingObjectiveConfig,
    effective_rank,
    encoded,
    loss_of,
)


@torch.no_grad()
def diagnose(
    network: JointEmbedding, frames: SceneFrames, past: int, config: JointEmbeddingObjectiveConfig, seed: int
) -> dict[str, float]:
    """The loss with its parts, and:

    - `effective_rank` of the last frame's embeddings, and the least standard deviation of a dimension, `least_std`;
    - `unexplained`: squared error of the last frame's prediction without latents, over the variance of what is
      predicted: 1 is no better than its mean;
    - `standing_still`: the same of the prediction that nothing changes;
    - `ego_gap`: what another ego's moves add to `unexplained`: 0 says that the ego is ignored.
    """
    device = frames.seen.device
    noise = torch.Generator(device).manual_seed(seed)
    found = {name: value.item() for name, value in loss_of(network, frames, past, config, noise).items()}
    known, embeddings, moves = encoded(network, frames, past)
    last, now = embeddings[:, -1], known.embedding
    spread = last.var(0).sum().clamp_min(1e-9)
    shuffled = torch.randperm(len(moves), generator=torch.Generator().manual_seed(seed)).to(device)

    def unexplained(predicted: torch.Tensor) -> float:
        return float((predicted - last).square().sum(1).mean() / spread)

    found["unexplained"] = unexplained(network.unroll(known, moves)[:, -1])
    found["standing_still"] = unexplained(now)
    found["ego_gap"] = unexplained(network.unroll(known, moves[shuffled])[:, -1]) - found["unexplained"]
    found["effective_rank"] = effective_rank(last)
    found["least_std"] = float(last.std(0).min())
    return found
