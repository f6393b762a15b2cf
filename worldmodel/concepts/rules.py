"""Concepts by rule: what is labelled in traffic, learned from there, and judged afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from drivecast.worldmodel.scene.entities import Entities

NOBODY = -1
SAME_LANE, BESIDE_FROM, BESIDE_TO = 0.4, 0.6, 1.4  # lane widths from centre to centre
ALONGSIDE_M, DIAGONAL_M = 8.0, 22.0
SLOWEST_MPS = 3.0
TRUCK_M = 9.0


@dataclass(frozen=True)
class Standing:
    """How each entity stands to the ego, `(batch, time, entity)`.

    Attributes:
        ahead_m: From the ego's centre to its own, along the lane.
        gap_m: Between bumpers; negative alongside.
        lanes_left: By how many lane widths it is to the ego's left.
        faster_mps: Than the ego.
        time_gap_s: The gap at the speed of whoever is behind.
        counts: It is there, and it is not the ego.
        leads, trails: It is the next on the ego's lane, ahead or behind.
    """

    ahead_m: Tensor
    gap_m: Tensor
    lanes_left: Tensor
    faster_mps: Tensor
    time_gap_s: Tensor
    counts: Tensor
    leads: Tensor
    trails: Tensor
    ego_speed_mps: Tensor  # (batch, time, 1)
    ego_lanes: Tensor  # (batch, time, 1), lane widths to the left of its first lane's centre
    length_m: Tensor

    @staticmethod
    def of(entities: Entities) -> Standing:
        """As it is at each frame."""
        ahead = entities.along_m - entities.along_m[:, :, :1]
        gap = ahead.abs() - (entities.length_m + entities.length_m[:, :, :1]) / 2
        width = entities.lane_width_m[:, None, None]
        left = (entities.across_m - entities.across_m[:, :, :1]) / width
        ego_speed = entities.speed_mps[:, :, :1]
        rear = torch.where(ahead >= 0, ego_speed, entities.speed_mps).clamp_min(SLOWEST_MPS)
        counts = entities.valid & entities.valid[:, :, :1]
        counts = torch.cat([torch.zeros_like(counts[:, :, :1]), counts[:, :, 1:]], 2)
        same = counts & (left.abs() < SAME_LANE)

        def next_one(there: Tensor, distance: Tensor) -> Tensor:
            distance = torch.where(there, distance, torch.inf)
            return there & (distance == distance.amin(2, keepdim=True))

        return Standing(
            ahead_m=ahead,
            gap_m=gap,
            lanes_left=left,
            faster_mps=entities.speed_mps - ego_speed,
            time_gap_s=gap / rear,
            counts=counts,
            leads=next_one(same & (ahead > 0), ahead),
            trails=next_one(same & (ahead < 0), -ahead),
            ego_speed_mps=ego_speed,
            ego_lanes=entities.across_m[:, :, :1] / width,
            length_m=entities.length_m,
        )

    @property
    def beside(self) -> Tensor:
        """It is on a neighbouring lane."""
        away = self.lanes_left.abs()
        return self.counts & (away > BESIDE_FROM) & (away < BESIDE_TO)

    def follower(self) -> Tensor:
        """Who trails throughout, long `(batch,)`; nobody: `NOBODY`."""
        throughout = self.trails.all(1)
        return torch.where(throughout.any(1), throughout.long().argmax(1), NOBODY)


Judge = Callable[[Standing], Tensor]


@dataclass(frozen=True)
class Rule:
    """One concept.

    Attributes:
        name: Of the concept.
        family: Concepts that differ in a number or a side.
        holds: Bool `(batch, entity)`: over all these frames, it holds of that entity.
        violation: `(batch, time, entity)`: how far it is from holding, differentiable; zero where it holds. What a
            person would write as a cost.
        pair: It is about the entity and, beside it, the one that trails the ego.
        needs_change: It says how things become, not how they are: it can only hold of a stretch.
    """

    name: str
    family: str
    holds: Judge
    violation: Judge
    pair: bool = False
    needs_change: bool = False

    def partner(self, standing: Standing) -> Tensor:
        """Whom it is about beside the entity, long `(batch,)`."""
        nobody = torch.full_like(standing.follower(), NOBODY)
        return standing.follower() if self.pair else nobody


def _over(value: Tensor, bound: float) -> Tensor:
    return (value - bound).clamp_min(0.0)


def _outside(value: Tensor, low: float, high: float) -> Tensor:
    return (low - value).clamp_min(0.0) + (value - high).clamp_min(0.0)


def _follow(seconds: float) -> Rule:
    def holds(s: Standing) -> Tensor:
        near = (s.time_gap_s.mean(1) - seconds).abs() < 0.2
        return s.leads.all(1) & ((s.time_gap_s - seconds).abs() < 0.4).all(1) & near

    def violation(s: Standing) -> Tensor:
        wrong = (s.time_gap_s - seconds) / 0.4
        return s.lanes_left.square() * 4.0 + wrong.square() / (1.0 + wrong.abs()) + _over(-s.ahead_m, 0.0) / 5.0

    return Rule(f"follow-{seconds:g}", "follow", holds, violation)


def _lead(seconds: float) -> Rule:
    def holds(s: Standing) -> Tensor:
        near = (s.time_gap_s.mean(1) - seconds).abs() < 0.2
        return s.trails.all(1) & ((s.time_gap_s - seconds).abs() < 0.4).all(1) & near

    def violation(s: Standing) -> Tensor:
        wrong = (s.time_gap_s - seconds) / 0.4
        return s.lanes_left.square() * 4.0 + wrong.square() / (1.0 + wrong.abs()) + _over(s.ahead_m, 0.0) / 5.0

    return Rule(f"lead-{seconds:g}", "lead", holds, violation)


def _beside(side: str, where: str, lanes: int = 1) -> Rule:
    sign = 1.0 if side == "right" else -1.0  # the ego is right of it: it is to the ego's left
    low, high = {
        "behind": (ALONGSIDE_M, DIAGONAL_M),
        "level": (-ALONGSIDE_M, ALONGSIDE_M),
        "ahead": (-DIAGONAL_M, -ALONGSIDE_M),
    }[where]

    def holds(s: Standing) -> Tensor:
        left = sign * s.lanes_left
        next_to = (left - lanes > BESIDE_FROM - 1.0) & (left - lanes < BESIDE_TO - 1.0)
        there = next_to & (s.ahead_m > low) & (s.ahead_m < high)
        return (s.counts & there).all(1)

    def violation(s: Standing) -> Tensor:
        return (sign * s.lanes_left - lanes).square() * 4.0 + _outside(s.ahead_m, low + 1.5, high - 1.5) / 5.0

    name = f"{side}-of-{where}" if lanes == 1 else f"{lanes}-{side}-of-{where}"
    return Rule(name, "beside", holds, violation)


def _between() -> Rule:
    def share(s: Standing) -> tuple[Tensor, Tensor]:
        trails = s.trails.to(s.gap_m)
        behind = (s.gap_m * trails).sum(2, keepdim=True)
        return s.gap_m / (s.gap_m + behind).clamp_min(1.0), behind

    def holds(s: Standing) -> Tensor:
        part, behind = share(s)
        has = s.trails.any(2, keepdim=True)
        fine = (part > 0.35) & (part < 0.65) & (s.gap_m < 40.0) & (behind < 40.0)
        return (s.leads & has & fine).all(1)

    def violation(s: Standing) -> Tensor:
        part, _ = share(s)
        has = s.trails.any(2, keepdim=True).to(part)
        return s.lanes_left.square() * 4.0 + has * _outside(part, 0.4, 0.6) * 4.0 + _over(s.gap_m, 30.0) / 5.0

    return Rule("between", "between", holds, violation, pair=True)


def _merge(where: str) -> Rule:
    def holds(s: Standing) -> Tensor:
        first_beside = s.beside[:, 0]
        next_to = s.leads if where == "behind" else s.trails
        moved = (s.ego_lanes[:, -1] - s.ego_lanes[:, 0]).abs() > 0.6
        return first_beside & next_to[:, -1] & moved & (s.time_gap_s[:, -1] < 3.0)

    def violation(s: Standing) -> Tensor:
        sign = 1.0 if where == "behind" else -1.0
        gap_s = s.gap_m / s.ego_speed_mps.clamp_min(SLOWEST_MPS)
        return s.lanes_left.square() * 4.0 + _over(-sign * s.ahead_m, -8.0) / 5.0 + _over(gap_s, 2.5)

    return Rule(f"merge-{where}", "merge", holds, violation, needs_change=True)


def _open_gap() -> Rule:
    def holds(s: Standing) -> Tensor:
        stays = (s.ego_lanes - s.ego_lanes[:, :1]).abs().amax(1) < SAME_LANE
        beside = s.beside.all(1)
        first, last = s.ahead_m[:, 0], s.ahead_m[:, -1]
        return beside & stays & (first > -6.0) & (first < 12.0) & (last - first > 4.0) & (last > 8.0)

    def violation(s: Standing) -> Tensor:
        return (s.lanes_left.abs() - 1.0).square() * 4.0 + _outside(s.ahead_m, 10.0, 25.0) / 5.0

    return Rule("open-gap", "open-gap", holds, violation, needs_change=True)


def _pass() -> Rule:
    def holds(s: Standing) -> Tensor:
        beside = s.beside.all(1)
        return beside & (s.ahead_m[:, 0] > 4.0) & (s.ahead_m[:, -1] < -4.0)

    def violation(s: Standing) -> Tensor:
        return (s.lanes_left.abs() - 1.0).square() * 4.0 + _over(s.ahead_m, -6.0) / 5.0

    return Rule("pass", "pass", holds, violation, needs_change=True)


def _match_speed() -> Rule:
    def holds(s: Standing) -> Tensor:
        first, last = s.faster_mps[:, 0].abs(), s.faster_mps[:, -1].abs()
        near = (s.ahead_m.abs() < 30.0).all(1)
        return s.beside.all(1) & near & (first > 1.5) & (last < 0.6)

    def violation(s: Standing) -> Tensor:
        return (s.faster_mps / 1.5).square().clamp_max(9.0) + _over(s.ahead_m.abs(), 28.0) / 5.0

    return Rule("match-speed", "match-speed", holds, violation, needs_change=True)


def _keep_off_truck() -> Rule:
    def holds(s: Standing) -> Tensor:
        truck = s.counts.all(1) & (s.length_m[:, 0] > TRUCK_M)
        near = (s.ahead_m.abs() < 40.0).all(1)
        two_off = (s.lanes_left.abs() > BESIDE_TO).all(1)
        return truck & near & two_off

    def violation(s: Standing) -> Tensor:
        beside = 1.0 - (s.lanes_left.abs() - 1.0).abs().clamp_max(1.0)
        along = 1.0 - (s.ahead_m / 20.0).square().clamp_max(1.0)
        return 4.0 * beside * along

    return Rule("keep-off-truck", "keep-off-truck", holds, violation)


RULES = (
    *(_follow(seconds) for seconds in (0.8, 1.2, 1.6, 2.0, 2.4)),
    *(_lead(seconds) for seconds in (0.8, 1.2, 1.6, 2.0)),
    *(
        _beside(side, where, lanes)
        for lanes in (1, 2)
        for side in ("left", "right")
        for where in ("behind", "level", "ahead")
    ),
    _between(),
    _merge("behind"),
    _merge("ahead"),
    _open_gap(),
    _pass(),
    _match_speed(),
    _keep_off_truck(),
)
BY_NAME = {rule.name: rule for rule in RULES}
HELD_OUT = ("follow-1.6", "left-of-level", "open-gap")  # never seen in training: one in between, one mirrored, one new
