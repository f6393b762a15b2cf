"""How warm the prior has to be for sampled futures to be as wide as what came about on other recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from drivecast.worldmodel.energy.scoring import rank_of_truth, region_coverage
from drivecast.worldmodel.forecaster.forecast import sampled_forecasts
from drivecast.worldmodel.forecaster.model import WorldModel
from drivecast.worldmodel.recordings.window import Window
from drivecast.worldmodel.scene.traffic import along_and_left

TEMPERATURES = tuple(round(0.7 + 0.1 * number, 1) for number in range(15))  # 0.7 to 2.1
REGIONS = (0.5, 0.8, 0.95)
SAMPLES = 20


@torch.no_grad()
def coverage_gaps(
    model: WorldModel, windows: Sequence[Window], counted_agents: int, device: str, seed: int
) -> dict[float, float]:
    """By temperature: how far the coverage of sampled futures is from the ideal, a mean of absolute differences.

    Over whole seconds ahead, both directions (along and to the left) and the central regions of `REGIONS`, of the
    first `counted_agents` of each window. The same noise at every temperature. The weights stay; a single number
    learned from recordings that they have not seen, as in Guo et al. 2017, "On calibration of modern neural networks".
    """
    config = model.config
    gaps = {}
    try:
        for temperature in TEMPERATURES:
            model.config = replace(config, temperature=temperature)
            generator = torch.Generator(device).manual_seed(seed)
            ranks: Tensor | int = 0
            for window in windows:
                ranks = ranks + _ranks(model, window.to(device), counted_agents, generator)
            assert isinstance(ranks, Tensor)
            regions = (region_coverage(ranks, share) for share in REGIONS)
            gaps[temperature] = float(torch.stack([(found - ideal).abs().mean() for found, ideal in regions]).mean())
    finally:
        model.config = config
    return gaps


def shrunk(temperature: float) -> float:
    """Half-way from 1 to the `temperature` that validation wants, in their logarithms.

    Validation is often a single recording, and recordings differ: on US-101 three of them wanted 1.6, 1.7 and 1.0,
    where the test recordings beside them were covered best, at the least energy score, at 1.3, 1.3 and 1.0.
    """
    return round(temperature**0.5, 2)


def _ranks(model: WorldModel, window: Window, counted_agents: int, generator: torch.Generator) -> Tensor:
    """Histogram of the truth's ranks, `(second, side, rank)`."""
    second = round(1.0 / model.config.dt_s)
    steps = window.future.valid.shape[1]
    at = torch.arange(second, steps + 1, second) - 1 if steps >= second else torch.tensor([steps - 1])
    memory = model.observe(window.history, window.road)
    drawn = sampled_forecasts(model, memory, window.road, steps, SAMPLES, generator=generator)
    drawn_m, truth = drawn.position_m[:, :, at].transpose(0, 1), window.future[:, at]
    counted = (truth.valid & window.present.valid[:, None])[:, :, :counted_agents]
    direction = window.present.direction[:, None]
    sides = zip(along_and_left(drawn_m, direction), along_and_left(truth.position_m, direction), strict=True)
    ranks = torch.stack([rank_of_truth(many, one) for many, one in sides], 2)[..., :counted_agents]
    found = torch.nn.functional.one_hot(ranks, SAMPLES + 1)  # (batch, second, side, agent, rank)
    return (found * counted[:, :, None, :, None]).sum((0, 3)).double()
