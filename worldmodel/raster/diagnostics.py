"""What a raster predictor is like, told on recorded clips."""

from __future__ import annotations

import torch
from torch import Tensor

from drivecast.worldmodel.forecaster.latent import kl_divergence
from drivecast.worldmodel.raster.clips import Clip, Seen
from drivecast.worldmodel.raster.network import RasterModel
from drivecast.worldmodel.raster.objective import squared_error


def edges(pictures: Tensor) -> Tensor:
    """Squared differences of neighbouring pixels of `pictures (..., row, column)`, summed: `(...)`.

    As a share of the recorded picture's, that is sharpness: a car smeared over twice its place has about half.
    Tenengrad without Sobel's filter; Pertuz et al. 2013, "Analysis of focus measure operators for shape-from-focus".
    """
    along = (pictures[..., 1:, :] - pictures[..., :-1, :]).square().sum((-1, -2))
    return along + (pictures[..., :, 1:] - pictures[..., :, :-1]).square().sum((-1, -2))


@torch.no_grad()
def diagnose(network: RasterModel, seen: Seen, future: Clip, road: float, seed: int) -> dict[str, float]:
    """Squared errors are a picture's, at the last step; sharpness a share of what was recorded.

    - `forecast`, `reconstruction`, `sampled`: error at z = 0, at the posterior's mean, at a z of the prior;
      `standing_still`: of the last picture, held;
    - `sharpness_forecast`, `sharpness_sampled`: at z = 0 and at a z of the prior;
    - `latent_gap`: error that the reconstruction gains by another clip's latent: 0 says that z is ignored;
    - `ego_gap`: error that the forecast gains by another ego's way: 0 says that the ego is ignored;
    - `kl`: nats in the latent.
    """
    config, batch = network.config, len(seen.road)
    noise = torch.Generator(seen.road.device).manual_seed(seed)
    others = torch.randperm(batch, generator=torch.Generator().manual_seed(seed)).to(seen.road.device)
    target = future.frames(future.others.shape[1] - 1, 1)

    def last(ego: Tensor, latents: Tensor | None = None) -> Clip:
        return network.unroll(seen, ego, latents).frames(ego.shape[1] - 1, 1)

    def error(predicted: Clip) -> float:
        return float(squared_error(predicted, target, road).mean())

    def sharp(predicted: Clip) -> float:
        return float(edges(predicted.others).sum() / edges(target.others).sum().clamp_min(1.0))

    mean = last(future.ego)
    held = Clip(seen.others[:, -1:], target.ego, seen.road[:, None])
    found = {"forecast": error(mean), "standing_still": error(held), "sharpness_forecast": sharp(mean)}
    found["ego_gap"] = error(last(future.ego[others])) - found["forecast"]
    if config.latent_dims:
        posterior = network.posterior(seen, future.frames(0, config.hold_steps))
        known = posterior.mean[:, None]
        found["kl"] = float(kl_divergence(posterior, network.prior(batch, seen.road)).sum(-1).mean())
        found["reconstruction"] = error(last(future.ego, known))
        found["latent_gap"] = error(last(future.ego, known[others])) - found["reconstruction"]
        sampled = last(future.ego, network.draw_latents(batch, future.ego.shape[1], noise, seen.road))
        found["sampled"], found["sharpness_sampled"] = error(sampled), sharp(sampled)
    return found
