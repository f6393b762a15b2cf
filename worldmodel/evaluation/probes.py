"""Linear probes: how much of what will be asked lies open in a representation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from drivecast.worldmodel.evaluation.auroc import auroc

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
RESAMPLINGS = 200


@dataclass(frozen=True)
class Probed:
    """How well one quantity is read: R², or the AUROC of a binary one; with the bounds of a 95 % interval."""

    score: float
    low: float
    high: float


def ridge_probe(features: tuple[Tensor, Tensor, Tensor], target: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, float]:
    """Predictions for the last of three parts by ridge regression on the first, its strength chosen on the second.

    Args:
        features: `(sample, feature)` to fit, to choose on, and to predict from.
        target: `(sample,)` of the first two; of the third it is not looked at.

    Returns:
        Predictions `(sample,)`, and the strength, relative to the features' mean variance.
    """
    fit, choose, test = (each.double() for each in features)
    mean, spread = fit.mean(0), fit.std(0)
    used = spread > 1e-6
    fit, choose, test = (
        torch.cat([((each - mean) / spread.clamp_min(1e-6))[:, used], each.new_ones(len(each), 1)], 1).clamp(-20, 20)
        for each in (fit, choose, test)
    )
    gram, moment = fit.T @ fit / len(fit), fit.T @ target[0].double() / len(fit)
    held = torch.eye(len(gram), dtype=gram.dtype)
    held[-1, -1] = 0.0
    best: tuple[float, float, Tensor] = (float("inf"), RIDGES[0], moment)
    for ridge in RIDGES:
        weights = torch.linalg.solve(gram + ridge * held, moment)
        error = float((choose @ weights - target[1].double()).square().mean())
        if error < best[0]:
            best = error, ridge, weights
    return test @ best[2], best[1]


def scored(predicted: Tensor, target: Tensor, group: Tensor, binary: bool, seed: int = 0) -> Probed:
    """R² (AUROC of a binary target) of `predicted (sample,)`, its interval over resampled groups.

    Args:
        predicted: What a probe says.
        target: What is true.
        group: Long `(sample,)`. Samples of one group, of one recording or one stretch of it, go together.
        binary: Whether `target` is 0 or 1.
        seed: Of the resampling.
    """
    names, which = group.unique(return_inverse=True)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(RESAMPLINGS):
        times = torch.bincount(torch.randint(len(names), (len(names),), generator=generator), minlength=len(names))
        rows = torch.arange(len(which)).repeat_interleave(times[which])
        found.append(_score(predicted[rows], target[rows], binary))
    bounds = torch.tensor(found).nanquantile(torch.tensor([0.025, 0.975]))
    return Probed(_score(predicted, target, binary), float(bounds[0]), float(bounds[1]))


def _score(predicted: Tensor, target: Tensor, binary: bool) -> float:
    if binary:
        return auroc(predicted[target < 0.5], predicted[target >= 0.5])
    error = (predicted - target).square().mean()
    return float(1.0 - error / (target - target.mean()).square().mean().clamp_min(1e-12))
