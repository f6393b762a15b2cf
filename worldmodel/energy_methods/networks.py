"""The networks that all methods share: of the past, of a future among the others, and the energy of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from drivecast.worldmodel.energy_methods.coordinates import FutureCoordinates
from drivecast.worldmodel.energy_methods.surroundings import OTHER_FEATURES, OWN_FEATURES, Surroundings
from drivecast.worldmodel.errors import InputError

ENCOUNTER_FEATURES, ENCOUNTER_DIMS, PLACE_FEATURES = 5, 6, 3
MET_EVERY = 2  # frames, counted back from the last


class ConditionalEnergy(Protocol):
    """E(context, future) of several futures of each context, differentiable in them."""

    def __call__(self, context: object, future: Tensor) -> Tensor:
        """Energies `(batch, sample)` of `future (batch, sample, dim)`."""
        ...

    def look(self, past: object) -> object:
        """The context of what was seen, computed once for all futures; indexed by row."""
        ...


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes.

    Args:
        hidden: Width of the layers.
        other_dims: Numbers in which the encoder of the past sums up each other vehicle.
    """

    hidden: int = 96
    other_dims: int = 32

    def __post_init__(self) -> None:
        if self.hidden < 1 or self.other_dims < 1:
            raise InputError(f"network: expected sizes of at least 1, got {self.hidden} and {self.other_dims}")


class PastEncoder(nn.Module):
    """Sums up the past, the road and the others' motion: `(batch, hidden)`."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        hidden, other = config.hidden, config.other_dims
        self.of_other = nn.Sequential(nn.Linear(OTHER_FEATURES, other), nn.SiLU(), nn.Linear(other, other))
        self.together = nn.Sequential(
            nn.Linear(OWN_FEATURES + 2 * other, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()
        )

    def forward(self, past: Surroundings) -> Tensor:
        each = self.of_other(past.other) * past.other_valid[..., None]
        most = each.masked_fill(~past.other_valid[..., None], -1e4).amax(1)
        most = torch.where(past.other_valid.any(1, keepdim=True), most, torch.zeros_like(most))
        return self.together(torch.cat([past.own, each.sum(1), most], -1))


class FutureEncoder(nn.Module):
    """Sums up a future and whom it meets when: `(batch, sample, hidden)` of u `(batch, sample, dim)`.

    It sees the displacement, and every 0.4 s the place on the road and each other relative to where the vehicle then
    is; one network sees every such encounter, and the others' parts are added.
    """

    def __init__(self, coordinates: FutureCoordinates, config: NetworkConfig) -> None:
        super().__init__()
        self.coordinates = coordinates
        self.encounter = nn.Sequential(
            nn.Linear(ENCOUNTER_FEATURES, 2 * ENCOUNTER_DIMS), nn.SiLU(), nn.Linear(2 * ENCOUNTER_DIMS, ENCOUNTER_DIMS)
        )
        frames = len(range(coordinates.frames)[::-MET_EVERY])
        seen = coordinates.dims + frames * (ENCOUNTER_DIMS + PLACE_FEATURES)
        self.first = nn.Linear(seen, config.hidden)

    def forward(self, past: Surroundings, future: Tensor) -> Tensor:
        path = self.coordinates.path_m(future, past)  # (batch, sample, frame, 2)
        path = path[:, :, (path.shape[2] - 1) % MET_EVERY :: MET_EVERY]
        met = self.encounter(_encounters(path, past))  # (batch, sample, frame, other, part)
        met = (met * past.other_valid[:, None, None, :, None]).sum(3)
        seen = [future, met.flatten(2), _places(path, past).flatten(2)]
        return torch.nn.functional.silu(self.first(torch.cat(seen, -1)))


def _encounters(path_m: Tensor, past: Surroundings) -> Tensor:
    """How each other stands to the vehicle, `(batch, sample, frame, other, ENCOUNTER_FEATURES)`."""
    frames = past.other_path_m.shape[1]
    there = past.other_path_m[:, None, (frames - 1) % MET_EVERY :: MET_EVERY]
    along, left = (there - path_m[:, :, :, None]).unbind(-1)
    length, width = past.size_m[:, None, None].unbind(-1)
    return torch.stack(
        [
            (along / 20.0).clamp(-3.0, 3.0),
            torch.tanh(along / 8.0),
            (left / 4.0).clamp(-3.0, 3.0),
            torch.tanh((along.abs() - length) / 3.0),
            torch.tanh(left.abs() - width),
        ],
        -1,
    )


def _places(path_m: Tensor, past: Surroundings) -> Tensor:
    """Where on the road it is at each frame: both edges, and off the centre of its lane, as of parallel lanes."""
    left = path_m[..., 1]
    edges = past.edge_m[:, None, None]
    width = past.lane_width_m[:, None, None]
    off = left + past.off_centre_m[:, None, None]
    return torch.stack([torch.tanh(edges[..., 0] - left), torch.tanh(edges[..., 1] + left), (off / width)], -1)


@dataclass(frozen=True)
class Looked:
    """A past and its summary, indexed together."""

    past: Surroundings
    summary: Tensor  # (batch, hidden)

    def __getitem__(self, rows: Tensor) -> Looked:
        return Looked(self.past[rows], self.summary[rows])


class EnergyNetwork(nn.Module):
    """E(past, future), one number; low where the future goes with the past. See `ConditionalEnergy`."""

    def __init__(self, coordinates: FutureCoordinates, config: NetworkConfig | None = None) -> None:
        super().__init__()
        config = config or NetworkConfig()
        self.past, self.future = PastEncoder(config), FutureEncoder(coordinates, config)
        hidden = config.hidden
        self.judge = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.SiLU(), nn.Linear(hidden, 1))

    def look(self, past: Surroundings) -> Looked:
        return Looked(past, self.past(past))

    def forward(self, context: Looked, future: Tensor) -> Tensor:
        seen = self.future(context.past, future)
        summary = context.summary[:, None].expand(*seen.shape[:2], -1)
        return self.judge(torch.cat([summary, seen], -1))[..., 0]
