"""A policy that sees pictures: from pictures about the ego to its controls, in one pass."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from drivecast.planner.pictures.sight import LAGS
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.raster.view import Picture
from drivecast.worldmodel.scene.kinematics import steering_for
from drivecast.worldmodel.scene.traffic import Controls

OWN_FEATURES = 6


@dataclass(frozen=True)
class PicturePolicyConfig:
    """Architecture and limits of a policy that sees pictures.

    Args:
        picture: Size of its pictures; that of the raster predictor counts.
        channels: Channels at half the resolution; twice as many further down.
        hidden: Width of the layer above them.
        max_acceleration_mps2: Strongest acceleration, in m/s².
        max_braking_mps2: Strongest deceleration, in m/s².
        max_lateral_mps2: Largest lateral acceleration that it steers for, in m/s².
        dt_s: Time step in seconds.
    """

    picture: Picture = field(default_factory=Picture)
    channels: int = 16
    hidden: int = 128
    max_acceleration_mps2: float = 2.4
    max_braking_mps2: float = 6.0
    max_lateral_mps2: float = 2.0
    dt_s: float = 0.1

    def __post_init__(self) -> None:
        for name in ("channels", "hidden", "max_acceleration_mps2", "max_braking_mps2", "max_lateral_mps2", "dt_s"):
            if getattr(self, name) <= 0:
                raise InputError(f"picture_policy.{name}: expected more than 0, got {getattr(self, name)}")


class PicturePolicy(nn.Module):
    """Deterministic policy on pictures about the ego, and on what its own instruments read."""

    def __init__(self, config: PicturePolicyConfig) -> None:
        super().__init__()
        self.config = config
        channels, picture = config.channels, config.picture
        self.eyes = nn.Sequential(
            nn.Conv2d(len(LAGS) + 1, channels, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(channels, 2 * channels, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(2 * channels, 2 * channels, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Flatten(),
        )
        seen = 2 * channels * (picture.rows // 8) * (picture.columns // 8)
        self.head = nn.Sequential(
            nn.Linear(seen + OWN_FEATURES, config.hidden), nn.SiLU(), nn.Linear(config.hidden, config.hidden), nn.SiLU()
        )
        self.out = nn.Linear(config.hidden, 2)
        nn.init.zeros_(self.out.weight)  # an untrained policy keeps its speed and its heading
        nn.init.zeros_(self.out.bias)

    def forward(self, pictures: Tensor, own: Own) -> Controls:
        """Controls `(batch,)`; `pictures` are those of `drivecast.planner.pictures.sight.about_ego`."""
        config = self.config
        raw = self.out(self.head(torch.cat([self.eyes(pictures), own.features()], -1)))
        forward, sideways = (raw * (1.0 + raw**2).rsqrt()).unbind(-1)  # bounded softly, as in `Policy`
        acceleration = torch.where(forward > 0, config.max_acceleration_mps2, config.max_braking_mps2) * forward
        return Controls(acceleration, steering_for(config.max_lateral_mps2 * sideways, own.speed_mps, own.length_m))


@dataclass(frozen=True)
class Own:
    """What the ego's instruments read, `(batch,)` each: nothing of the others."""

    speed_mps: Tensor
    acceleration_mps2: Tensor
    heading_error_rad: Tensor  # against the view's direction
    length_m: Tensor
    desired_speed_mps: Tensor

    def features(self) -> Tensor:
        """Of order one, `(batch, OWN_FEATURES)`."""
        short = self.desired_speed_mps - self.speed_mps
        return torch.stack(
            [
                self.speed_mps / 15,
                short / 10,
                (short / 2).tanh(),
                self.acceleration_mps2 / 3,
                self.heading_error_rad * 10,
                self.heading_error_rad * self.speed_mps,
            ],
            -1,
        )
