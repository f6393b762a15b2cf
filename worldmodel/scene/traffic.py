"""The one representation of a scene: who is where, how fast, how big (SI units, +x forward, +y left)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


class _TensorRecord:
    """Moves, indexes and detaches every tensor of a frozen dataclass at once; a field may be None in all of them."""

    def map(self, function: Callable[[Tensor], Tensor]):
        """The same record with `function` applied to each of its tensors."""
        return replace(self, **{name: function(values) for name, values in self._tensors()})  # type: ignore[type-var]

    def _tensors(self) -> list[tuple[str, Tensor]]:
        named = ((f.name, getattr(self, f.name)) for f in fields(self))  # type: ignore[arg-type]
        return [(name, values) for name, values in named if values is not None]

    def __getitem__(self, index):
        """Index the leading dimensions of every tensor alike: `history[:, -1]` is the last scene."""
        return self.map(lambda tensor: tensor[index])

    def where(self, mask: Tensor, other):
        """This record where `mask`, of its leading dimensions, holds, `other` elsewhere."""

        def choose(one: Tensor, two: Tensor) -> Tensor:
            return torch.where(mask.view(*mask.shape, *[1] * (one.dim() - mask.dim())), one, two)

        both = {name: choose(values, getattr(other, name)) for name, values in self._tensors()}
        return replace(self, **both)  # type: ignore[type-var]

    def to(self, device: torch.device | str):
        return self.map(lambda tensor: tensor.to(device))

    def detach(self):
        return self.map(lambda tensor: tensor.detach())

    @classmethod
    def stack(cls, records, dim: int = 0):
        """Stack equal-shaped records along a new leading dimension."""
        return cls._joined(records, lambda tensors: torch.stack(tensors, dim))

    @classmethod
    def cat(cls, records, dim: int = 0):
        """Concatenate records along an existing leading dimension."""
        return cls._joined(records, lambda tensors: torch.cat(tensors, dim))

    @classmethod
    def _joined(cls, records, join: Callable[[list[Tensor]], Tensor]):
        records = list(records)
        names = [name for name, _ in records[0]._tensors()]
        return replace(records[0], **{name: join([getattr(r, name) for r in records]) for name in names})


@dataclass(frozen=True)
class TrafficState(_TensorRecord):
    """Vehicles as oriented boxes. Leading dimensions are `(batch, agent)`, or `(batch, time, agent)` for a history.

    Agent 0 is the ego wherever a scene has one. `heading_rad` is counter-clockwise from +x; `position_m` is the
    centre of the box. What stands where `valid` is False is padding: finite, but meaningless.
    """

    position_m: Tensor  # (..., agent, 2) float
    heading_rad: Tensor  # (..., agent) float
    speed_mps: Tensor  # (..., agent) float, along the heading
    length_m: Tensor  # (..., agent) float
    width_m: Tensor  # (..., agent) float
    valid: Tensor  # (..., agent) bool

    @property
    def direction(self) -> Tensor:
        """Unit vector of the heading, `(..., agent, 2)`."""
        return torch.stack([self.heading_rad.cos(), self.heading_rad.sin()], -1)

    @property
    def velocity_mps(self) -> Tensor:
        """Velocity vector, `(..., agent, 2)`."""
        return self.direction * self.speed_mps[..., None]

    def with_ego(self, ego: TrafficState) -> TrafficState:
        """The scene `(batch, agent)` with `ego (batch,)` for its agent 0."""
        return TrafficState(**{f.name: with_ego(getattr(self, f.name), getattr(ego, f.name)) for f in fields(self)})

    def corners_m(self) -> Tensor:
        """Corners of each box, counter-clockwise from the front left: `(..., agent, 4, 2)`."""
        forward = self.direction * (self.length_m / 2)[..., None]
        left = torch.stack([-self.direction[..., 1], self.direction[..., 0]], -1) * (self.width_m / 2)[..., None]
        offsets = torch.stack([forward + left, left - forward, -forward - left, forward - left], -2)
        return self.position_m[..., None, :] + offsets


def along_and_left(vector: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Parts of `vector (..., 2)` along the unit vectors `direction (..., 2)` and to their left."""
    along = vector[..., 0] * direction[..., 0] + vector[..., 1] * direction[..., 1]
    left = direction[..., 0] * vector[..., 1] - direction[..., 1] * vector[..., 0]
    return along, left


def with_ego(values: Tensor, own: Tensor) -> Tensor:
    """`values (batch, agent, ...)` with `own (batch, ...)` for agent 0."""
    return torch.cat([own.to(values)[:, None], values[:, 1:]], 1)


@dataclass(frozen=True)
class Controls(_TensorRecord):
    """What a driver does for one step, `(batch,)` each; steering is the front wheel's angle, left positive."""

    acceleration_mps2: Tensor
    steering_rad: Tensor


@dataclass(frozen=True)
class Goal(_TensorRecord):
    """What a driver is asked for: a speed, a lane of the road (`-1`: any), and whom a taught concept is about."""

    desired_speed_mps: Tensor  # (batch,) float
    lane: Tensor  # (batch,) long
    attended: Tensor | None = None  # (batch, concept, agent) bool; a row of False: whoever suits
