"""A convolutional CVAE that predicts the next picture from the last 20, the ego's next place and a latent."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.latent import DiagonalNormal
from drivecast.worldmodel.raster.clips import Clip, Seen
from drivecast.worldmodel.raster.view import Picture

PREDICTED = 4  # channels: how far others move along and aside, what is added to them, and to the road


@dataclass(frozen=True)
class RasterConfig:
    """Architecture.

    Args:
        picture: Size and resolution of the pictures.
        context: Pictures of the past that it sees.
        hidden: Channels at half the resolution; twice as many at each further halving.
        latent_dims: Dimensions of the latent of a stretch of future; 0: none, a deterministic predictor.
        hold_steps: Steps that a latent holds for: it says how this stretch of future comes out.
        feature_dropout: Share of the decoder's channels that are dropped, a mask for each rollout.
        dt_s: Time step, s.
    """

    picture: Picture = field(default_factory=Picture)
    context: int = 20
    hidden: int = 24
    latent_dims: int = 32
    hold_steps: int = 20
    feature_dropout: float = 0.1
    dt_s: float = 0.1

    def __post_init__(self) -> None:
        for name, least in (("context", 2), ("hidden", 1), ("latent_dims", 0), ("hold_steps", 1)):
            if getattr(self, name) < least:
                raise InputError(f"raster.model.{name}: expected at least {least}, got {getattr(self, name)}")
        if not 0.0 <= self.feature_dropout < 1.0:
            raise InputError(f"raster.model.feature_dropout: expected 0 to below 1, got {self.feature_dropout}")
        if not self.dt_s > 0.0:
            raise InputError(f"raster.model.dt_s: expected more than 0, got {self.dt_s}")


class RasterModel(nn.Module):
    """x'(p) = x(p - m(p)) + f(p), clipped, where m, f = net(last pictures, the ego's next place, z); p a pixel.

    m moves what is there, f adds and takes away; the road is not moved. The action acts through the ego's next picture:
    its motion is known, only what others make of it is learned. Down to an eighth of the resolution and up again, with
    skips; z enters at the bottom. One z holds for a stretch of future (`hold_steps`); its posterior sees that whole
    stretch, its prior is N(0, I).

    Source: Henaff, Canziani, LeCun 2019 (arXiv 1901.02705), sections 3.1 and 3.2 and appendix A; there, pictures are
    about the ego, which moves by a learned step, nothing is moved by m, and z is drawn at every step. Moving pixels:
    Finn, Goodfellow, Levine 2016 (arXiv 1605.07157), section 3; Jaderberg et al. 2015 (bilinear sampling).
    """

    def __init__(self, config: RasterConfig) -> None:
        super().__init__()
        self.config = config
        width, latent, context = config.hidden, config.latent_dims, config.context
        self.bottom = (4 * width, config.picture.rows // 8, config.picture.columns // 8)
        self.down = nn.ModuleList([_down(context + 3, width), _down(width, 2 * width), _down(2 * width, 4 * width)])
        self.middle = nn.Conv2d(4 * width, 4 * width, 3, padding=1)
        last = _up(width, PREDICTED)
        nn.init.zeros_(last.weight)  # an untrained model says that everything stays as it is
        if last.bias is not None:
            nn.init.zeros_(last.bias)
        self.up = nn.ModuleList([_up(4 * width, 2 * width), _up(2 * width, width), last])
        if latent:
            size = self.bottom[0] * self.bottom[1] * self.bottom[2]
            stretch = 2 * config.hold_steps + 3
            self.inference = nn.Sequential(
                _down(stretch, width), nn.SiLU(), _down(width, 2 * width), nn.SiLU(), _down(2 * width, width), nn.SiLU()
            )
            self.posterior_head = nn.Linear(size // 4, 2 * latent)
            self.latent_in = nn.Linear(latent, size)

    def step(self, seen: Seen, next_ego: Tensor, latent: Tensor | None = None, masks: Tensor | None = None) -> Seen:
        """A step on with the ego at `next_ego (batch, row, column)`; no latent: its mean, zero.

        `masks (batch, channel)` multiply the decoder's hidden features, see `dropout_masks`.
        """
        inputs = torch.cat([seen.others, torch.stack([seen.ego, next_ego, seen.road], 1)], 1)
        half = functional.silu(self.down[0](inputs))
        quarter = functional.silu(self.down[1](half))
        features = self.middle(functional.silu(self.down[2](quarter)))
        if latent is not None and self.config.latent_dims:
            features = features + self.latent_in(latent).view(-1, *self.bottom)
        features = functional.silu(features)
        for layer, skip, mask in zip(self.up, (quarter, half, None), self._split(masks), strict=True):
            if mask is not None:
                features = features * mask[..., None, None]
            features = layer(features)
            if skip is not None:
                features = functional.silu(features + skip)
        moved = _moved(seen.others[:, -1:], features[:, :2])[:, 0]
        others, road = (moved + features[:, 2]).clamp(0.0, 1.0), (seen.road + features[:, 3]).clamp(0.0, 1.0)
        return seen.followed_by(others, next_ego, road)

    def unroll(self, seen: Seen, ego: Tensor, latents: Tensor | None = None, masks: Tensor | None = None) -> Clip:
        """The future under `ego (batch, time, row, column)`; `latents (batch, stretch, latent)`, none: zero."""
        others, road = [], []
        for time in range(ego.shape[1]):
            latent = None if latents is None else latents[:, time // self.config.hold_steps]
            seen = self.step(seen, ego[:, time], latent, masks)
            others.append(seen.others[:, -1])
            road.append(seen.road)
        return Clip(torch.stack(others, 1), ego, torch.stack(road, 1))

    def posterior(self, seen: Seen, future: Clip) -> DiagonalNormal:
        """The latent of a stretch of `hold_steps` from how it came out, `(batch, latent)`."""
        pictures = torch.cat([seen.others[:, -2:], seen.road[:, None], future.others, future.ego], 1)
        return DiagonalNormal.of_parameters(self.posterior_head(self.inference(pictures).flatten(1)))

    def prior(self, batch: int, like: Tensor) -> DiagonalNormal:
        """N(0, I), `(batch, latent)`."""
        nothing = like.new_zeros(batch, self.config.latent_dims)
        return DiagonalNormal(nothing, nothing)

    def draw_latents(self, batch: int, steps: int, generator: torch.Generator, like: Tensor) -> Tensor:
        """Of the prior, for a rollout of `steps`: `(batch, stretch, latent)`."""
        stretches = -(-steps // self.config.hold_steps)
        shape = (batch, stretches, self.config.latent_dims)
        return torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)

    def dropout_masks(self, batch: int, generator: torch.Generator, like: Tensor) -> Tensor:
        """Masks of the decoder's channels, `(batch, channel)`, of mean one: one per rollout, held over its steps."""
        kept = 1.0 - self.config.feature_dropout
        drawn = torch.rand(batch, sum(self._channels), generator=generator, device=like.device)
        return (drawn < kept).to(like) / kept

    @property
    def _channels(self) -> tuple[int, int, int]:
        return 4 * self.config.hidden, 2 * self.config.hidden, self.config.hidden

    def _split(self, masks: Tensor | None) -> tuple[Tensor | None, ...]:
        return (None, None, None) if masks is None else masks.split(self._channels, 1)


def _moved(picture: Tensor, by: Tensor) -> Tensor:
    """`picture (batch, 1, row, column)` with each pixel taken from `by (batch, 2, row, column)` pixels before it."""
    _, _, rows, columns = picture.shape
    row = (torch.arange(rows).to(by) + 0.5)[:, None] - by[:, 0]
    column = torch.arange(columns).to(by) + 0.5 - by[:, 1]
    grid = torch.stack([2.0 * column / columns - 1.0, 2.0 * row / rows - 1.0], -1)
    return functional.grid_sample(picture, grid, align_corners=False)


def _down(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)


def _up(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
