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

EVENT_S, EVENTFUL = 3.0, 0.05


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
        eventful_share: Share of the windows whose ego is about to do something rare, see `eventful_rows`.
    """

    def __init__(
        self,
        stores: Sequence[WindowStore],
        split: str,
        request: WindowRequest,
        rows: Sequence[torch.Tensor] | None = None,
        eventful_share: float = 0.0,
    ) -> None:
        self.stores, self.request, self.eventful_share = list(stores), request, eventful_share
        if rows is None:
            rows = [store.rows(split, 1, request.future_steps) for store in self.stores]
        self.rows = list(rows)
        if not sum(len(rows) for rows in self.rows):
            raise InputError(
                f"split '{split}' holds no track of {request.future_steps + 1} steps; "
                "record longer or ask for a shorter horizon"
            )
        self.eventful = [
            eventful_rows(store, rows, request.future_steps) if eventful_share else rows[:0]
            for store, rows in zip(self.stores, self.rows, strict=True)
        ]

    def draw(self, batch: int, generator: torch.Generator) -> list[Window]:
        """`batch` windows whose ego's future is whole, as one Window per store that was drawn from.

        `generator` lives on the CPU; so do the windows.
        """
        return [window for _, window in self.draw_by_store(batch, generator)]

    def draw_by_store(self, batch: int, generator: torch.Generator) -> list[tuple[WindowStore, Window]]:
        """The same, with the store of each Window."""
        return [(store, window) for store, window, _ in self.draw_marked(batch, generator)]

    def draw_marked(self, batch: int, generator: torch.Generator) -> list[tuple[WindowStore, Window, torch.Tensor]]:
        """The same, and which windows were drawn because of what their ego is about to do, bool `(B,)`."""
        rare = round(batch * self.eventful_share) if sum(map(len, self.eventful)) else 0
        usual = _picked(self.rows, batch - rare, generator)
        chosen = [(rows, torch.zeros(len(rows), dtype=torch.bool)) for rows in usual]
        if rare:
            eventful = _picked(self.eventful, rare, generator)
            chosen = [
                (torch.cat([rows, more]), torch.cat([marks, torch.ones(len(more), dtype=torch.bool)]))
                for (rows, marks), more in zip(chosen, eventful, strict=True)
            ]
        windows, request = [], self.request
        for store, (rows, marks) in zip(self.stores, chosen, strict=True):
            if len(rows):
                window = store.window(
                    store.frame_of(rows), request.history_steps, request.future_steps, request.max_agents, rows
                )
                windows.append((store, window, marks))
        return windows


def _picked(rows: Sequence[torch.Tensor], count: int, generator: torch.Generator) -> list[torch.Tensor]:
    """`count` of all rows, evenly; those of each store."""
    sizes = torch.tensor([len(each) for each in rows])
    picks = torch.randint(int(sizes.sum()), (count,), generator=generator)
    owner = torch.bucketize(picks, sizes.cumsum(0), right=True)
    starts = sizes.cumsum(0) - sizes
    return [each[picks[owner == number] - starts[number]] for number, each in enumerate(rows)]


def eventful_rows(store: WindowStore, rows: torch.Tensor, future_steps: int) -> torch.Tensor:
    """Those of `rows` whose vehicle does what few do within 3 s (or `future_steps`): some of them more than once.

    The 5 % that fall back furthest behind straight on at their present speed, those that brake; the 5 % that come
    furthest off that line to a side, those that change lane (or go round a bend); and the 5 % fastest against the mean
    of all in sight, those that have come past others.
    """
    steps = min(round(EVENT_S / store.dt_s), future_steps)
    along, left = store.off_constant_velocity_m(rows, steps)
    most = max(round(EVENTFUL * len(rows)), 1)
    found = [(-along).topk(most), left.abs().topk(most), store.faster_than_others_mps(rows).topk(most)]
    return torch.cat([rows[each.indices] for each in found])


def mirrored(state: TrafficState) -> TrafficState:
    """Left and right exchanged."""
    flipped = torch.stack([state.position_m[..., 0], -state.position_m[..., 1]], -1)
    return replace(state, position_m=flipped, heading_rad=-state.heading_rad)


def mirrored_road(road: Road) -> Road:
    """The road that goes with `mirrored` traffic."""
    flipped = torch.stack([road.centre_m[..., 0], -road.centre_m[..., 1]], -1)
    return replace(road, centre_m=flipped, left=road.right, right=road.left)


def mirrored_window(window: Window) -> Window:
    """The same with left and right exchanged."""
    history, future, road = mirrored(window.history), mirrored(window.future), mirrored_road(window.road)
    return replace(window, history=history, future=future, road=road)


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
