"""What a joint embedding is trained by: prediction, and what keeps its embeddings from collapsing."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.latent import DiagonalNormal, drop_latent, kl_divergence
from drivecast.worldmodel.joint_embedding.frames import SceneFrames
from drivecast.worldmodel.joint_embedding.network import JointEmbedding, Known

SMALLEST_VARIANCE = 1e-4


@dataclass(frozen=True)
class JointEmbeddingObjectiveConfig:
    """Weights of the loss; each term is a mean over dimensions.

    Args:
        prediction: Squared distance of predicted from encoded embeddings.
        variance: By how much each dimension's standard deviation over the batch falls short of one.
        covariance: Squared covariances of different dimensions, summed over one of them.
        similarity: Squared distance of embeddings a frame apart.
        inverse_dynamics: Squared error of the ego's moves told from two embeddings.
        information: Nats in the latents, if there are any.
        latent_dropout: Share of latents that are replaced by zero in training.
    """

    prediction: float = 1.0
    variance: float = 5.0
    covariance: float = 0.5
    similarity: float = 0.1
    inverse_dynamics: float = 1.0
    information: float = 0.01
    latent_dropout: float = 0.5

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 0.0:
                raise InputError(f"joint_embedding.training.objective.{name}: expected at least 0, got {value}")
        if self.latent_dropout > 1.0:
            raise InputError("joint_embedding.training.objective.latent_dropout: expected at most 1")


def variance_shortfall(embeddings: Tensor) -> Tensor:
    """Mean over dimensions of max(0, 1 - standard deviation) of `embeddings (sample, dims)`.

    Bardes, Ponce, LeCun 2022 (VICReg, arXiv 2105.04906), eq. 1.
    """
    return (1.0 - (embeddings.var(0) + SMALLEST_VARIANCE).sqrt()).clamp_min(0.0).mean()


def covariance_of_others(embeddings: Tensor) -> Tensor:
    """Sum of squared covariances between different dimensions over their number; the same source, eq. 3 and 4."""
    centred = embeddings - embeddings.mean(0)
    covariance = centred.T @ centred / max(len(embeddings) - 1, 1)
    off_diagonal = covariance - torch.diag(covariance.diagonal())
    return off_diagonal.square().sum() / embeddings.shape[1]


def effective_rank(embeddings: Tensor) -> float:
    """exp of the entropy of the singular values' shares: how many dimensions `embeddings (sample, dims)` fill.

    Roy & Vetterli 2007, "The effective rank", definition 1. 1: all lie on a line (or nowhere: all are equal).
    """
    singular = torch.linalg.svdvals(embeddings - embeddings.mean(0))
    shares = singular / singular.sum().clamp_min(1e-12)
    entropy = -(shares * shares.clamp_min(1e-12).log()).sum()
    return float(entropy.exp()) if float(singular.sum()) > 1e-6 else 1.0


def encoded(network: JointEmbedding, frames: SceneFrames, past: int) -> tuple[Known, Tensor, Tensor]:
    """What is known at present, embeddings `(batch, time, dims)` from then on, and the ego's moves between them."""
    known = network.observe(frames.frames(0, past))
    return known, network.encode(frames)[:, past - 1 :], frames.moves[:, past - 1 : -1]


def loss_of(
    network: JointEmbedding,
    frames: SceneFrames,
    past: int,
    config: JointEmbeddingObjectiveConfig,
    noise: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """The loss and its parts, scalars.

    Gradients flow into the encoder through the predictions and through their targets; what keeps both from becoming
    equal and constant are the variance and covariance terms alone.

    Args:
        network: The joint embedding.
        frames: `(batch, time)`.
        past: How many of them are given; the last of these is the present.
        config: Weights.
        noise: Of the latents.
    """
    known, embeddings, moves = encoded(network, frames, past)
    latents, information = _latents(network, embeddings, moves, config, noise)
    predicted = network.unroll(known, moves, latents)
    targets = embeddings[:, 1:]
    flat = embeddings.flatten(0, 1)
    parts = {
        "prediction": (predicted - targets).square().mean(),
        "variance": variance_shortfall(flat),
        "covariance": covariance_of_others(flat),
        "similarity": (embeddings[:, 1:] - embeddings[:, :-1]).square().mean(),
        "inverse_dynamics": (network.moved(embeddings[:, :-1], targets) - moves).square().mean(),
        "information": information,
    }
    weights = asdict(config)
    return {"loss": torch.stack([weights[name] * value for name, value in parts.items()]).sum(), **parts}


def _latents(
    network: JointEmbedding,
    embeddings: Tensor,
    moves: Tensor,
    config: JointEmbeddingObjectiveConfig,
    noise: torch.Generator | None,
) -> tuple[Tensor | None, Tensor]:
    """Latents of all steps under the posterior, some dropped, `(batch, time, latent)`; and the nats they hold."""
    if not network.config.latent_dims:
        return None, embeddings.new_zeros(())
    # what the posterior tells is told of the targets as they are: they do not move towards it
    found = network.posterior(embeddings[:, :-1].detach(), moves, embeddings[:, 1:].detach())
    prior = DiagonalNormal(torch.zeros_like(found.mean), torch.zeros_like(found.mean))
    latents = drop_latent(found.sample(noise), prior, config.latent_dropout, "zero", noise)
    return latents, kl_divergence(found, prior).sum(-1).mean()
