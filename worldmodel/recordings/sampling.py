"""Training batches: windows of the store drawn at random, mirrored and cut as the training asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.recordings.window import Window
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState


@dataclass(frozen=True)
class WindowRequest:
    """What a batch of windows looks like.

    Attributes:
        history_steps: Steps of the past, the present included.
        future_steps: Steps of the future.
        max_agents: Vehicles of a window at most, the nearest to the ego.
    """

    history_steps: int
    future_steps: int
    max_agents: int


class WindowSampler:
    """Draws windows of one split from several stores, each store in proportion to its rows.

    Args:
        stores: Recordings.
        split: Of the stores, see `WindowStore.rows`.
        request: What a batch looks like.
        rows: Of each store, those whose vehicles may be egos. None: all with a whole future.
    """

    def __init__(
        self,
        stores: Sequence[WindowStore],
        split: str,
        request: WindowRequest,
        rows: Sequence[torch.Tensor] | None = None,
    ) -> None:
        self.stores, self.request = list(stores), request
        if rows is None:
            rows = [store.rows(split, 1, request.future_steps) for store in self.stores]
        self.rows = list(rows)
        if not sum(len(rows) for rows in self.rows):
            raise InputError(
                f"split '{split}' holds no track of {request.future_steps + 1} steps; "
                "record longer or ask for a shorter horizon"
            )

    def draw(self, batch: int, generator: torch.Generator) -> list[Window]:
        """`batch` windows whose ego's future is whole, as one Window per store that was drawn from.

        `generator` lives on the CPU; so do the windows.
        """
        return [window for _, window in self.draw_by_store(batch, generator)]

    def draw_by_store(self, batch: int, generator: torch.Generator) -> list[tuple[WindowStore, Window]]:
        """The same, with the store of each Window."""
        sizes = torch.tensor([len(rows) for rows in self.rows])
        picks = torch.randint(int(sizes.sum()), (batch,), generator=generator)
        owner = torch.bucketize(picks, sizes.cumsum(0), right=True)
        starts = sizes.cumsum(0) - sizes
        windows = []
        for number, store in enumerate(self.stores):
            chosen = picks[owner == number] - starts[number]
            if len(chosen):
                rows = self.rows[number][chosen]
                request = self.request
                window = store.window(
                    store.frame_of(rows), request.history_steps, request.future_steps, request.max_agents, rows
                )
                windows.append((store, window))
        return windows


def mirrored(state: TrafficState) -> TrafficState:
    """Left and right exchanged."""
    flipped = torch.stack([state.position_m[..., 0], -state.position_m[..., 1]], -1)
    return replace(state, position_m=flipped, heading_rad=-state.heading_rad)


def mirrored_road(road: Road) -> Road:
    """The road that goes with `mirrored` traffic."""
    flipped = torch.stack([road.centre_m[..., 0], -road.centre_m[..., 1]], -1)
    return replace(road, centre_m=flipped, left=road.right, right=road.left)


def scaled(state: TrafficState, factor: torch.Tensor) -> TrafficState:
    """A larger or smaller world, `factor (batch,)`: all lengths and speeds times it; times stay as they are."""
    wide = factor.view(-1, *[1] * (state.speed_mps.dim() - 1))
    return replace(
        state,
        position_m=state.position_m * wide[..., None],
        speed_mps=state.speed_mps * wide,
        length_m=state.length_m * wide,
        width_m=state.width_m * wide,
    )


def scaled_road(road: Road, factor: torch.Tensor) -> Road:
    """The road that goes with `scaled` traffic."""
    wide = factor[:, None, None]
    return replace(
        road,
        centre_m=road.centre_m * wide[..., None],
        width_m=road.width_m * wide,
        speed_limit_mps=road.speed_limit_mps * factor[:, None],
    )


def with_short_histories(history: TrafficState, generator: torch.Generator) -> TrafficState:
    """Hide a random part of each window's past, so that a forecaster also learns to start from little.

    Half the windows keep all of it; the others keep a number of steps drawn evenly from one to all.
    """
    batch, steps = history.valid.shape[:2]
    kept = torch.randint(1, steps + 1, (batch,), generator=generator)
    kept = torch.where(torch.rand(batch, generator=generator) < 0.5, steps, kept)
    shown = torch.arange(steps) >= steps - kept[:, None]
    return replace(history, valid=history.valid & shown[..., None])
