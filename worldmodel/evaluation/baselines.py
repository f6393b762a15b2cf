"""Forecasters without learned samples, to compare with: one guess and noise that was fitted to its errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from drivecast.worldmodel.evaluation.forecasts import HISTORY_S, HORIZONS_S, constant_velocity_of_history
from drivecast.worldmodel.forecaster.sampler import Sampler
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState, along_and_left

Guess = Callable[[TrafficState, Road, int], TrafficState]  # history, road, steps: one future (batch, time, agent)


@dataclass(frozen=True)
class FittedNoise:
    """A single guess with normal noise along and across the road that grows with the horizon as its errors do.

    One draw of each vehicle stretches over the whole future: an error of 1 s goes on. Vehicles are independent.

    Attributes:
        guess: The single guess.
        spread_m: Root mean square error along the present heading and to its left at each step, `(step, 2)`, m.
    """

    guess: Guess
    spread_m: Tensor

    @staticmethod
    def fitted(guess: Guess, store: WindowStore, split: str = "train", stride: int = 10, batch: int = 8) -> FittedNoise:
        """Measure the errors of `guess` on every `stride`-th moment of a split."""
        history_steps, steps = round(HISTORY_S / store.dt_s) + 1, round(HORIZONS_S[-1] / store.dt_s)
        squares, counts = torch.zeros(steps, 2, dtype=torch.double), torch.zeros(steps, dtype=torch.double)
        for frames in store.frames(split, history_steps, 1)[::stride].split(batch):
            window = store.window(frames, history_steps, steps, 128)
            counted = window.future.valid & window.history.valid.all(1)[:, None]
            error = guess(window.history, window.road, steps).position_m - window.future.position_m
            parts = torch.stack(along_and_left(error, window.present.direction[:, None]), -1)
            squares += (parts.square() * counted[..., None]).sum((0, 2)).double()
            counts += counted.sum((0, 2))
        # late steps that nobody is seen at keep the last one's
        spread = (squares / counts.clamp_min(1)[:, None]).sqrt().cummax(0).values
        return FittedNoise(guess, spread.float())

    @torch.no_grad()
    def likeliest(self, history: TrafficState, road: Road, steps: int) -> TrafficState:
        """The single guess."""
        return self.guess(history, road, steps)

    @torch.no_grad()
    def sample(
        self, history: TrafficState, road: Road, samples: int, steps: int, generator: torch.Generator | None = None
    ) -> TrafficState:
        """The guess, each vehicle displaced by a draw of its own."""
        guess = self.guess(history, road, steps)
        batch, agents = history.valid.shape[0], history.valid.shape[2]
        spread = self.spread_m[torch.arange(steps).clamp_max(len(self.spread_m) - 1)].to(guess.speed_mps)
        device = guess.valid.device
        noise = torch.randn(batch, samples, 1, agents, 2, generator=generator, device=device) * spread[:, None]
        direction = history[:, -1].direction[:, None, None]
        left = torch.stack([-direction[..., 1], direction[..., 0]], -1)
        many = guess.map(lambda tensor: tensor[:, None].expand(-1, samples, *tensor.shape[1:]))
        return replace(many, position_m=many.position_m + noise[..., :1] * direction + noise[..., 1:] * left)


@dataclass(frozen=True)
class Alone:
    """A forecaster that is shown each vehicle by itself: by how much it gets worse is what the others tell it.

    Args:
        sampler: The forecaster.
    """

    sampler: Sampler

    def likeliest(self, history: TrafficState, road: Road, steps: int) -> TrafficState:
        """The single guess for each vehicle."""
        found = self.sampler.likeliest(*self._each(history, road), steps)
        scenes = history.valid.shape[0], history.valid.shape[2]
        return found.map(lambda tensor: tensor[:, :, 0].unflatten(0, scenes).movedim(1, 2))

    def sample(
        self, history: TrafficState, road: Road, samples: int, steps: int, generator: torch.Generator | None = None
    ) -> TrafficState:
        """Futures of each vehicle, drawn independently."""
        found = self.sampler.sample(*self._each(history, road), samples, steps, generator)
        scenes = history.valid.shape[0], history.valid.shape[2]
        return found.map(lambda tensor: tensor[:, :, :, 0].unflatten(0, scenes).movedim(1, 3))

    @staticmethod
    def _each(history: TrafficState, road: Road) -> tuple[TrafficState, Road]:
        """A scene of one for each vehicle."""
        batch, _, agents = history.valid.shape
        single = history.map(lambda tensor: tensor.movedim(2, 1).flatten(0, 1)[:, :, None])
        return single, road[torch.arange(batch, device=history.valid.device).repeat_interleave(agents)]


def constant_velocity_guess(dt_s: float) -> Guess:
    """Everybody straight on with the mean velocity of the last half second."""
    return lambda history, road, steps: constant_velocity_of_history(history, steps, dt_s)
