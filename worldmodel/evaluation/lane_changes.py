"""Who changes lane in a future, recorded or sampled."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from drivecast.worldmodel.scene.road import NO_LANE, Road

WELL_INSIDE_M = 0.3  # a centre that is this far from both markings has come to a lane


class LaneChanges(NamedTuple):
    """The first lane other than its own that a vehicle has come to by each moment; `NO_LANE`: it has not left it."""

    lane: Tensor  # (batch, moment, agent) long
    judged: Tensor  # (batch, agent) bool: it was well inside of a lane at the present


def lane_changes(road: Road, present_m: Tensor, future_m: Tensor, valid: Tensor) -> LaneChanges:
    """Lane changes of the vehicles at `present_m (batch, agent, 2)` by each moment of `future_m`.

    A vehicle is in a lane when its centre is at least 0.3 m inside of its markings: those that drive on a marking, or
    whose recorded position sways across one, change nothing.

    Args:
        road: The road.
        present_m: Where they are, m.
        future_m: Where they will be at some moments, `(batch, moment, agent, 2)`, m.
        valid: Which of these are known, bool `(batch, moment, agent)`.
    """
    batch, moments, agents = valid.shape
    own, judged = _settled(road, present_m)
    later, inside = _settled(road, future_m.flatten(1, 2))
    later, inside = later.view(batch, moments, agents), inside.view(batch, moments, agents)
    changed = inside & valid & (later != own[:, None])
    lane = torch.full_like(later, NO_LANE)
    reached = torch.full_like(own, NO_LANE)
    for moment in range(moments):
        reached = torch.where((reached == NO_LANE) & changed[:, moment], later[:, moment], reached)
        lane[:, moment] = reached
    return LaneChanges(lane, judged)


def _settled(road: Road, position_m: Tensor) -> tuple[Tensor, Tensor]:
    there = road.project(position_m)
    return there.lane, there.across_m.abs() < there.width_m / 2 - WELL_INSIDE_M
