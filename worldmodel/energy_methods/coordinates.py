"""The future as a vector: displacement against constant velocity at 5 Hz, standardised."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from drivecast.worldmodel.energy_methods.surroundings import FRAME_S, Surroundings
from drivecast.worldmodel.scene.traffic import _TensorRecord

FLOOR = 1e-3  # of a direction's variance, each dimension having variance 1: what is below it does not vary
LEAST_SPREAD_M = 1e-3


@dataclass(frozen=True)
class FutureCoordinates(_TensorRecord):
    """Maps a path `(batch, ..., frame, 2)` in the lane's frame to a vector u `(batch, ..., dim)` and back.

    Displacement against constant velocity is divided by its spread in each dimension (frame and direction) and turned
    and scaled so that u has mean 0 and covariance 1 over the data, less in directions that hardly vary: displacement =
    mean + spread * V (lambda + FLOOR)^(1/2) u, V and lambda being the eigensystem of the correlations. A step of one
    length in any direction of u is then as likely, which every sampler and noise here takes for granted.
    """

    mean_m: Tensor  # (dim,)
    out: Tensor  # (dim, dim): u to displacement, m
    into: Tensor  # (dim, dim): the inverse

    @staticmethod
    def fitted(displacement_m: Tensor) -> FutureCoordinates:
        """Those of displacements `(example, frame, 2)`."""
        flat = displacement_m.flatten(1).double()
        mean, spread = flat.mean(0), flat.std(0).clamp_min(LEAST_SPREAD_M)
        scaled = (flat - mean) / spread
        eigenvalues, vectors = torch.linalg.eigh(scaled.T @ scaled / len(flat))
        root = (eigenvalues.clamp_min(0.0) + FLOOR).sqrt()
        out = spread[:, None] * vectors * root
        into = (vectors / root).T / spread
        return FutureCoordinates(mean.float(), out.float(), into.float())

    @property
    def dims(self) -> int:
        return len(self.mean_m)

    @property
    def frames(self) -> int:
        return self.dims // 2

    def vector(self, path_m: Tensor, surroundings: Surroundings) -> Tensor:
        """u of `path_m (batch, ..., frame, 2)`."""
        displacement = displacement_m(path_m, surroundings).flatten(-2)
        return (displacement - self.mean_m) @ self.into.T

    def path_m(self, vector: Tensor, surroundings: Surroundings) -> Tensor:
        """The path of u `(batch, ..., dim)`, `(batch, ..., frame, 2)`."""
        displacement = (self.mean_m + vector @ self.out.T).view(*vector.shape[:-1], self.frames, 2)
        return displacement + _constant_velocity_m(displacement, surroundings)


def displacement_m(path_m: Tensor, surroundings: Surroundings) -> Tensor:
    """`path_m (batch, ..., frame, 2)` against going on at the present velocity."""
    return path_m - _constant_velocity_m(path_m, surroundings)


def _constant_velocity_m(like: Tensor, surroundings: Surroundings) -> Tensor:
    time_s = FRAME_S * torch.arange(1, like.shape[-2] + 1).to(like)
    shape = (len(like), *[1] * (like.dim() - 2), 2)
    return surroundings.velocity_mps.view(shape) * time_s[:, None]
