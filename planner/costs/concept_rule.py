"""A concept by its rule as a term of the energy: what a person would write, to compare with what is taught."""

from __future__ import annotations

import torch
from torch import Tensor

from drivecast.planner.costs.concept import ConceptScore
from drivecast.worldmodel.concepts.rules import Rule, Standing
from drivecast.worldmodel.scene.entities import entities_of, frame_stride
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState

NOT_THERE = 1e3


class ConceptByRule(ConceptScore):
    """How far a rule is from holding of whom the goal says it is about, or of whom it is nearest to holding.

    Args:
        rule: The rule.
        number: Of the concept among those that the goal speaks of.
    """

    def __init__(self, rule: Rule, number: int = 0) -> None:
        super().__init__(number)
        self.rule = rule

    def judged(
        self, states: TrafficState, road: Road, dt_s: float, told: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `ConceptScore`; of a rule about two, the second is whoever comes behind."""
        stride = frame_stride(dt_s)
        standing = Standing.of(entities_of(states[:, ::stride], road, dt_s * stride))
        there = standing.counts.any(1)
        of_all = torch.where(there, self.rule.violation(standing).mean(1), NOT_THERE)
        told = torch.zeros_like(there) if told is None else told
        knows = told.any(1)
        # of two, the first one is ahead
        ahead = torch.where(told, standing.ahead_m[:, 0], -torch.inf).argmax(1)
        lowest = of_all.argmin(1)
        which = torch.where(knows, ahead, lowest)
        about = torch.zeros_like(there).scatter(1, which[:, None], True) & there
        return of_all.gather(1, which[:, None])[:, 0], torch.where(knows[:, None], told, about)
