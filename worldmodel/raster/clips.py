"""Pictures of a window's past and future: what the raster predictor is trained on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from drivecast.worldmodel.raster.view import Picture, View, draw_road, draw_vehicles
from drivecast.worldmodel.recordings.window import Window
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState, _TensorRecord


@dataclass(frozen=True)
class Clip(_TensorRecord):
    """Pictures over time, `(batch, time, row, column)` each, from 0 to 1; see `drivecast.worldmodel.raster.view`."""

    others: Tensor
    ego: Tensor
    road: Tensor

    def frames(self, first: int, count: int) -> Clip:
        """`count` frames from `first` on."""
        return self.map(lambda pictures: pictures[:, first : first + count])


@dataclass(frozen=True)
class Seen(_TensorRecord):
    """The last pictures of the others, `(batch, context, row, column)`; of ego and road now, `(batch, row, column)`."""

    others: Tensor
    ego: Tensor
    road: Tensor

    def followed_by(self, others: Tensor, ego: Tensor, road: Tensor) -> Seen:
        """A step on, to pictures `(batch, row, column)`."""
        return Seen(torch.cat([self.others[:, 1:], others[:, None]], 1), ego, road)


def clip_of(states: TrafficState, road: Road, view: View, seconds: Tensor, picture: Picture) -> Clip:
    """Pictures of `states (batch, time, agent)`, the ego at agent 0, at `seconds (time,)` after the view's present."""
    return Clip(
        others=draw_vehicles(states[:, :, 1:], view, seconds, picture),
        ego=draw_vehicles(states[:, :, :1], view, seconds, picture),
        road=draw_road(road, view, seconds, picture),
    )


def seen_in(history: TrafficState, road: Road, view: View, context: int, dt_s: float, picture: Picture) -> Seen:
    """The last `context` pictures of `history (batch, time, agent)`, the present last."""
    whole = with_whole_history(history, context, dt_s)
    seconds = history_seconds(context, dt_s, view.speed_mps)
    return Seen(
        others=draw_vehicles(whole[:, :, 1:], view, seconds, picture),
        ego=draw_vehicles(whole[:, -1:, :1], view, seconds[-1:], picture)[:, 0],
        road=draw_road(road, view, seconds[-1:], picture)[:, 0],
    )


def history_seconds(steps: int, dt_s: float, like: Tensor) -> Tensor:
    """When the frames of a history are, the present last: `(steps,)`, up to 0."""
    return (torch.arange(1 - steps, 1).to(like)) * dt_s


def future_seconds(steps: int, dt_s: float, like: Tensor) -> Tensor:
    """When the frames of a future are, `(steps,)`, from `dt_s` on."""
    return (torch.arange(1, steps + 1).to(like)) * dt_s


def window_clips(window: Window, context: int, dt_s: float, picture: Picture) -> tuple[Seen, Clip]:
    """The last `context` pictures of a window's past, and all of its future, in the view of the present."""
    view = View.of(window.present, window.road)
    seconds = future_seconds(window.future.valid.shape[1], dt_s, view.speed_mps)
    seen = seen_in(window.history, window.road, view, context, dt_s, picture)
    return seen, clip_of(window.future, window.road, view, seconds, picture)


def with_whole_history(history: TrafficState, steps: int, dt_s: float) -> TrafficState:
    """`steps` steps of past, `(batch, steps, agent)`: before it was first seen, a vehicle came at its speed.

    As recordings and episodes begin, vehicles are there at once, and their past is not; a picture says how fast
    somebody is by its past alone.
    """
    known = history.valid.shape[1]
    if known < steps:
        first = history[:, :1].map(lambda values: values.expand(values.shape[0], steps - known, *values.shape[2:]))
        history = TrafficState.cat([replace(first, valid=torch.zeros_like(first.valid)), history], 1)
    history = history[:, -steps:]
    place = torch.arange(steps, device=history.valid.device)[:, None]
    first_seen = torch.where(history.valid, place, steps).amin(1, keepdim=True)  # (batch, 1, agent)
    unseen = (place < first_seen) & (first_seen < steps)
    index = first_seen.clamp_max(steps - 1)

    def at_first(values: Tensor) -> Tensor:
        where = index.view(*index.shape, *[1] * (values.dim() - 3)).expand(-1, -1, *values.shape[2:])
        return values.gather(1, where).expand_as(values)

    entered = history.map(at_first)
    ago = (first_seen - place).clamp_min(0) * dt_s
    came = replace(
        entered,
        position_m=entered.position_m - entered.velocity_mps * ago[..., None],
        valid=torch.ones_like(entered.valid),
    )
    return came.where(unseen, history)
