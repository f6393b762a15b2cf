"""How unsure models are of what comes next: measures of one moment, for each vehicle, to be compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from drivecast.worldmodel.energy.model_energy import ModelEnergy
from drivecast.worldmodel.forecaster.draws import LatentDraws
from drivecast.worldmodel.forecaster.forecast import forecast, sampled_forecasts
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState

Measure = Callable[[TrafficState, Road], Tensor]  # history (batch, time, agent), road -> (batch, agent)


@dataclass(frozen=True)
class UnsurenessConfig:
    """How unsureness is measured.

    Args:
        ahead_s: How far futures go, s.
        seen_s: Newest part of the past whose free energy is taken, s.
        masks: Sets of dropout masks.
        samples: Futures drawn from the prior.
        search_steps: Steps of the search for the best latents.
    """

    ahead_s: float = 3.0
    seen_s: float = 1.0
    masks: int = 8
    samples: int = 8
    search_steps: int = 20


def measures(energies: Sequence[ModelEnergy], config: UnsurenessConfig, seed: int = 0) -> dict[str, Measure]:
    """What can be asked of an ensemble; all but the rows `ensemble ...` look at its first model alone.

    `dropout, one memory` is the measure of Henaff, Canziani, LeCun 2019, section 3.3: variance of the next motion over
    masks, along one rollout. `dropout, forked` lets each set of masks live through a future of its own; `ensemble` each
    model (Lakshminarayanan et al. 2017); both take the variance of positions. `samples` is the spread of futures of
    the prior: what the model holds to be open, not what it doesn't know. Free energies are of what was seen last.
    """
    model, *_ = (energy.model for energy in energies)
    steps = round(config.ahead_s / model.config.dt_s)

    def noise() -> torch.Generator:
        return torch.Generator(next(model.parameters()).device).manual_seed(seed)

    def one_memory(history: TrafficState, road: Road) -> Tensor:
        masks = model.dropout_masks(config.masks, generator=noise())
        memory, latents, found = model.observe(history, road), LatentDraws(model, False), []
        for step in range(steps):
            latent = latents.at(step, memory)
            if memory.since == 0:
                found.append(model.uncertainty(memory, latent, masks))
            memory = model.step(memory, latent, road)
        return torch.stack(found).mean(0)

    def forked(history: TrafficState, road: Road) -> Tensor:
        masks = model.dropout_masks(config.masks, generator=noise())
        memory = model.observe(history, road)
        each = torch.arange(len(history.valid), device=masks.device).repeat(config.masks)
        own = masks.repeat_interleave(len(history.valid), 0)[:, None]
        futures = forecast(model, memory[each], road[each], steps, masks=own).position_m
        return spread_m2(futures.view(config.masks, -1, *futures.shape[1:]))

    def ensemble(history: TrafficState, road: Road) -> Tensor:
        futures = [forecast(each.model, each.model.observe(history, road), road, steps).position_m for each in energies]
        return spread_m2(torch.stack(futures))

    def samples(history: TrafficState, road: Road) -> Tensor:
        drawn = sampled_forecasts(model, model.observe(history, road), road, steps, config.samples, generator=noise())
        return spread_m2(drawn.position_m.transpose(0, 1))

    def free_energy(energy: ModelEnergy, history: TrafficState, road: Road) -> Tensor:
        last = round(config.seen_s / model.config.dt_s)
        return energy.free_energy(history[:, :-last], road, history[:, -last:], steps=config.search_steps)

    def mean_free_energy(history: TrafficState, road: Road) -> Tensor:
        return torch.stack([free_energy(energy, history, road) for energy in energies]).mean(0)

    return {
        "speed": lambda history, road: history.speed_mps[:, -1],
        "samples": samples,
        "dropout, one memory": one_memory,
        "dropout, forked": forked,
        "ensemble": ensemble,
        "free energy": lambda history, road: free_energy(energies[0], history, road),
        "ensemble, mean free energy": mean_free_energy,
    }


def spread_m2(position_m: Tensor) -> Tensor:
    """Variance of `position_m (future, batch, time, agent, 2)` over futures, mean over time: `(batch, agent)`."""
    return position_m.var(0).sum(-1).mean(1)
