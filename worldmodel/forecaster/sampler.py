"""What can forecast a scene: the learned model, and whatever it is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from drivecast.worldmodel.forecaster.forecast import forecast, sampled_forecasts
from drivecast.worldmodel.forecaster.model import WorldModel
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState


class Sampler(Protocol):
    """Forecasts of a scene's vehicles from their past; nobody's future is known."""

    def likeliest(self, history: TrafficState, road: Road, steps: int) -> TrafficState:
        """One future, the best single guess: `(batch, time, agent)` after `history (batch, time, agent)`."""
        ...

    def sample(
        self, history: TrafficState, road: Road, samples: int, steps: int, generator: torch.Generator | None = None
    ) -> TrafficState:
        """`samples` futures of the whole scene: `(batch, sample, time, agent)`."""
        ...


@dataclass(frozen=True)
class ModelSampler:
    """The learned model's futures."""

    model: WorldModel

    @torch.no_grad()
    def likeliest(self, history: TrafficState, road: Road, steps: int) -> TrafficState:
        """Under the likeliest latent."""
        return forecast(self.model, self.model.observe(history, road), road, steps)

    @torch.no_grad()
    def sample(
        self, history: TrafficState, road: Road, samples: int, steps: int, generator: torch.Generator | None = None
    ) -> TrafficState:
        """Under latents drawn from the prior."""
        memory = self.model.observe(history, road)
        return sampled_forecasts(self.model, memory, road, steps, samples, generator=generator)
