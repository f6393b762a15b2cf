"""How well a score tells two kinds of things apart."""

from __future__ import annotations

import torch
from torch import Tensor


def auroc(low: Tensor, high: Tensor) -> float:
    """Area under the ROC curve of a score: the chance that one of `high (n,)` is above one of `low (m,)`.

    Ties count half. 0.5: no better than a coin; 1: every one is. Hanley & McNeil 1982 (the Mann-Whitney statistic).
    NaN where either is empty.
    """
    if not len(low) or not len(high):
        return float("nan")
    ordered = low.sort().values
    below, until = torch.searchsorted(ordered, high), torch.searchsorted(ordered, high, right=True)
    return float((below + until).double().mean() / (2 * len(low)))


def rank_correlation(one: Tensor, other: Tensor) -> float:
    """Spearman's correlation of `one (n,)` with `other (n,)`; equal values are ranked as they come."""
    ranks = torch.stack([values.argsort().argsort().double() for values in (one, other)])
    return float(torch.corrcoef(ranks)[0, 1])
