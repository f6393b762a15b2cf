"""Contrasts that energies are trained by: what was shown is to lie lower than what was not."""

from __future__ import annotations

import torch
from torch import Tensor

LARGE = 1e4  # energy of what is ruled out


def against_others(low: Tensor, others: Tensor) -> Tensor:
    """Mean cross-entropy, under exp(-E), of what was shown, `low (batch,)`, among it and `others (batch, other)`."""
    return (low + torch.logsumexp(-torch.cat([low[:, None], others], 1), 1)).mean()


def of_positives(energy: Tensor, positives: Tensor) -> Tensor:
    """Mean cross-entropy, under exp(-E), of any that is right, bool `(batch, choice)`, among all of `energy`."""
    right = torch.logsumexp((-energy).masked_fill(~positives, -LARGE), 1)
    return (torch.logsumexp(-energy, 1) - right).mean()


def ruled_out(energy: Tensor, also: Tensor, concept: Tensor) -> Tensor:
    """`energy (batch, other)` of others' stretches, `LARGE` where the own `concept (batch,)` holds there, too.

    Args:
        energy: Under the own code.
        also: Bool `(batch, other, concept)`. What holds in each of them.
        concept: Long `(batch,)`.
    """
    same = also.gather(2, concept[:, None, None].expand(-1, also.shape[1], 1))[..., 0]
    return torch.where(same, LARGE, energy)
