"""Proper scores of sampled forecasts, and where the truth ranks among samples. Pure functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def fair_crps(samples: Tensor, truth: Tensor) -> Tensor:
    """Continuous ranked probability score of `samples (sample, ...)` for `truth (...)`, in the unit of both.

    mean|x - y| - 1/2 mean|x - x'|, the second mean over pairs of different samples: unbiased for any number of samples,
    so that few samples of a good forecast score like many. One sample: |x - y|.
    Gneiting & Raftery 2007, "Strictly proper scoring rules", eq. 21; Ferro 2014, "Fair scores for ensemble forecasts".
    """
    count = len(samples)
    error = (samples - truth).abs().mean(0)
    if count == 1:
        return error
    ordered = samples.sort(0).values
    # sum over pairs of |x - x'| of sorted samples: the k-th counts 2 k - count + 1 times (k from 0)
    weight = 2 * torch.arange(count, device=samples.device, dtype=samples.dtype) - count + 1
    spread = (ordered * weight.view(-1, *(1 for _ in truth.shape))).sum(0)
    return error - spread / (count * (count - 1))


def fair_energy_score(samples: Tensor, truth: Tensor, smoothing: float = 0.0) -> Tensor:
    """Energy score of `samples (sample, ..., part)` for `truth (..., part)`: `(...)`, in the unit of both.

    mean‖x - y‖ - 1/2 mean‖x - x'‖ over pairs of different samples: the CRPS of vectors. Of the positions of a whole
    scene it is low only if they fit together.
    Gneiting & Raftery 2007, eq. 22; as a loss of generative networks: Pacchiardi et al. 2021 (arXiv 2112.08217).

    Args:
        samples: Forecasts.
        truth: What came about.
        smoothing: Added to each squared norm, which gives norms a gradient at zero.
    """

    def length(vector: Tensor) -> Tensor:
        return (vector.square().sum(-1) + smoothing).sqrt()

    count = len(samples)
    score = length(samples - truth).mean(0)
    for shift in range(1, count // 2 + 1):  # every pair once, without (sample, sample, ...) at once
        share = 0.5 if 2 * shift == count else 1.0
        score = score - share * length(samples - samples.roll(shift, 0)).mean(0) / (count - 1)
    return score


def rank_of_truth(samples: Tensor, truth: Tensor) -> Tensor:
    """How many of `samples (sample, ...)` lie below `truth (...)`: long `(...)`, 0 to the number of samples.

    Uniform for a calibrated forecast. Where samples are equal to the truth, half of them count as below.
    """
    below, equal = (samples < truth).sum(0), (samples == truth).sum(0)
    return below + (equal + 1) // 2


def region_coverage(rank_histogram: Tensor, share: float) -> tuple[Tensor, float]:
    """Share of truths in the central region of `share`, of a `rank_histogram (..., samples + 1)`; and the ideal.

    The region is made of the middle ranks, as many as come nearest to `share`: with n samples each rank holds
    1 / (n + 1) of the probability, so the ideal is not `share` itself.
    """
    ranks = rank_histogram.shape[-1]
    outside = round((1 - share) / 2 * ranks)
    inside = rank_histogram[..., outside : ranks - outside].sum(-1)
    return inside / rank_histogram.sum(-1).clamp_min(1), 1 - 2 * outside / ranks
