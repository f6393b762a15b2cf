"""What the raster predictor is trained by: squared error of pictures, and nats in the latent."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.latent import drop_latent, kl_divergence
from drivecast.worldmodel.raster.clips import Clip, Seen
from drivecast.worldmodel.raster.network import RasterModel


@dataclass(frozen=True)
class RasterObjectiveConfig:
    """Weights of the loss; errors are summed over a picture, a car covers about 20 pixels.

    Args:
        road: Of errors in the road's channel, beside those in the others'.
        information: Of a nat in the latent.
        latent_dropout: Share of rollouts whose latent does not come from the posterior.
        latent_dropout_variant: What stands in its place: `zero` (the lecture), or a draw from the `prior` (the paper).
    """

    road: float = 0.1
    information: float = 0.1
    latent_dropout: float = 0.5
    latent_dropout_variant: Literal["zero", "prior"] = "zero"

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, float) and value < 0.0:
                raise InputError(f"raster.training.objective.{name}: expected at least 0, got {value}")
        if self.latent_dropout > 1.0:
            raise InputError(f"raster.training.objective.latent_dropout: expected at most 1, got {self.latent_dropout}")


def squared_error(predicted: Clip, target: Clip, road: float) -> Tensor:
    """Squared error of each picture, summed over its pixels, of others and `road` times the road: `(batch, time)`."""
    others = (predicted.others - target.others).square().sum((-1, -2))
    return others + road * (predicted.road - target.road).square().sum((-1, -2))


def loss_of(
    network: RasterModel,
    seen: Seen,
    future: Clip,
    steps: int,
    config: RasterObjectiveConfig,
    noise: torch.Generator,
) -> dict[str, Tensor]:
    """The loss over the first `steps` of the future, and its parts.

    Raises `ValueError` where the future is shorter than a latent's stretch, from which its posterior is read.
    """
    batch = len(seen.road)
    latents, nats = None, seen.road.new_zeros(())
    if network.config.latent_dims:
        hold = network.config.hold_steps
        if future.others.shape[1] < hold:
            raise ValueError(f"expected a future of {hold} steps, got {future.others.shape[1]}")
        posterior, prior = network.posterior(seen, future.frames(0, hold)), network.prior(batch, seen.road)
        nats = kl_divergence(posterior, prior).sum(-1).mean()
        latent = drop_latent(
            posterior.sample(noise), prior, config.latent_dropout, config.latent_dropout_variant, noise
        )
        latents = latent[:, None]
    masks = network.dropout_masks(batch, noise, seen.road) if network.config.feature_dropout else None
    target = future.frames(0, steps)
    error = squared_error(network.unroll(seen, target.ego, latents, masks), target, config.road).mean()
    return {"loss": error + config.information * nats, "error": error, "kl": nats}
