"""A world model as its users have it: futures to sample, and energies of futures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from drivecast.worldmodel.energy.model_energy import ModelEnergy
from drivecast.worldmodel.energy.reconstruction_scale import ENERGY_SCALE, ReconstructionScale
from drivecast.worldmodel.forecaster.forecast import sampled_forecasts
from drivecast.worldmodel.forecaster.loading import stored_model, world_model_of
from drivecast.worldmodel.forecaster.model import WorldModel
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState


@dataclass(frozen=True)
class LoadedModel:
    """A trained world model.

    Args:
        model: The network, frozen.
        scale: Its usual errors, in which its energies count; of a model that was stored without, those of another one.
    """

    model: WorldModel
    scale: ReconstructionScale = field(default_factory=ReconstructionScale.standard)

    @staticmethod
    def load(name: Path | str, device: str = "cpu") -> LoadedModel:
        """From a file, the folder that holds it, or `pretrained:NAME`.

        Raises:
            InputError: It is missing, damaged, or no world model.
        """
        stored = stored_model(name)
        scale = ReconstructionScale.of_json(stored.extra.get(ENERGY_SCALE))
        return LoadedModel(world_model_of(stored, device), scale)

    @property
    def model_energy(self) -> ModelEnergy:
        """Its energy, with all that can be asked of it."""
        return ModelEnergy(self.model, self.scale)

    @torch.no_grad()
    def sample(
        self,
        history: TrafficState,
        road: Road,
        samples: int,
        steps: int,
        known: TrafficState | None = None,
        generator: torch.Generator | None = None,
    ) -> TrafficState:
        """`samples` futures of the whole scene, `(batch, sample, time, agent)`.

        Args:
            history: `(batch, time, agent)`, the present last; the model's time step is 0.1 s unless it says otherwise.
            road: The road.
            samples: How many.
            steps: How far, in steps.
            known: The ego's future, if that is known: `(batch, time, agent)`, of which agent 0 is taken.
            generator: Source of randomness.
        """
        who = None
        if known is not None:
            who = torch.zeros_like(history.valid[:, -1])
            who[:, 0] = True
        memory = self.model.observe(history, road)
        return sampled_forecasts(self.model, memory, road, steps, samples, known, who, generator)

    def energy(self, history: TrafficState, road: Road, future: TrafficState, latents: Tensor) -> Tensor:
        """E(past, future, z) of each vehicle, `(batch, agent)`: see `ModelEnergy.energy`."""
        return self.model_energy.energy(history, road, future, latents)

    def free_energy(
        self,
        history: TrafficState,
        road: Road,
        future: TrafficState,
        beta: float | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """F(past, future) of each vehicle, `(batch, agent)`: min over z, or with `beta` its soft minimum.

        See `ModelEnergy.free_energy`.
        """
        return self.model_energy.free_energy(history, road, future, beta, generator=generator)
