"""Fitting a policy's energies of lanes to those that searches found."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from drivecast.planner.policy.lane_energy import LaneEnergy
from drivecast.planner.policy.lane_view import mirrored_view

SHARPNESS = 0.1  # energy by which a lane has to be better to be e times as likely a choice
CLEAR = 3.0  # differences beyond are all the same


@dataclass(frozen=True)
class FittingConfig:
    """The fit.

    Args:
        epochs: Passes over all lessons.
        batch: Lessons of a step.
        learning_rate: Peak of AdamW's learning rate.
        weight_decay: AdamW's; it keeps the network from learning few lessons by heart.
    """

    epochs: int = 40
    batch: int = 512
    learning_rate: float = 3e-3
    weight_decay: float = 1e-3

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        if self.weight_decay < 0.0:
            raise ValueError(f"weight_decay must not be negative, but is {self.weight_decay}")


def fit(network: LaneEnergy, views: Tensor, energies: Tensor, config: FittingConfig, seed: int) -> None:
    """Fit `network` to `energies (moment, choice)` of what was seen, `views (moment, VIEW_SIZE)`.

    loss = cross-entropy of softmax(-E / s) against softmax(-E* / s), plus Huber's of the differences to the least. The
    first weighs what decides, the second keeps the scale; a choice that no kept plan sets out for has no second.
    """
    draw = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    steps = max(1, config.epochs * len(views) // config.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total_steps=steps + 1)
    device = next(network.parameters()).device
    for _ in range(steps):
        drawn = torch.randint(0, len(views), (config.batch,), generator=draw)
        view, energy = views[drawn], energies[drawn]
        if torch.rand((), generator=draw) < 0.5:
            view, energy = mirrored_view(view), energy.flip(1)
        loss = lesson_loss(network(view.to(device)), energy.to(device)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def lesson_loss(foretold: Tensor, energy: Tensor) -> Tensor:
    """Of energies `(moment, choice)` that are foretold, against those that were found, `(moment,)`."""
    least, best = energy.min(1, keepdim=True)
    found, known = energy - least, energy.isfinite()
    wanted = torch.softmax(-found / SHARPNESS, 1)
    choice = -(wanted * torch.log_softmax(-foretold / SHARPNESS, 1)).sum(1)
    difference = torch.where(known, foretold - foretold.gather(1, best), 0.0)
    target = torch.where(known, found.clamp_max(CLEAR), 0.0)
    return choice + functional.smooth_l1_loss(difference, target, reduction="none").sum(1)


@torch.no_grad()
def examined(network: LaneEnergy, views: Tensor, energies: Tensor) -> dict[str, float]:
    """On lessons it has not seen: how often it agrees with the search, where that changes lane, and what it loses."""
    device = next(network.parameters()).device
    own = network(views.to(device)).argmin(1).cpu()
    best = energies.argmin(1)
    lost = (energies - energies.min(1, keepdim=True).values).gather(1, own[:, None])[:, 0].clamp_max(CLEAR)
    changes = best != energies.shape[1] // 2
    share = {"agreement": (own == best).double().mean(), "regret": lost.double().mean()}
    if bool(changes.any()):
        share["agreement_on_changes"] = (own == best)[changes].double().mean()
    return {name: float(value) for name, value in share.items()}
