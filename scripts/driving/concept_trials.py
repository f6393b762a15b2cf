"""Driving by a concept in simulated traffic: scenes where it does not hold of somebody yet, and whether it comes to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from drivecast.envs.lockstep import AttentiveTraffic, LockstepStart, LockstepTraffic
from drivecast.worldmodel.concepts.rules import NOBODY, Rule, Standing
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.driver import Driver
from drivecast.worldmodel.scene.entities import MOST_ENTITIES, entities_of, frame_stride
from drivecast.worldmodel.scene.lane_neighbours import nearest_indices, pick_agents
from drivecast.worldmodel.scene.traffic import TrafficState

DURATION_S, WINDOW_S, EVERY_S = 10.0, 3.0, 0.4
START_S = 0.6  # from which on it counts
SEEDS_LOOKED_AT = 40  # of each trial wanted
Suits = Callable[[Standing], Tensor]


def _beside(standing: Standing, reach_m: float) -> Tensor:
    return standing.beside & (standing.ahead_m.abs() < reach_m)


# Of whom each family of concepts is asked: somebody near, of whom it can come to hold
ASKED_OF: dict[str, Suits] = {
    "follow": lambda s: s.leads & (s.gap_m < 80.0),
    "lead": lambda s: s.trails & (s.gap_m < 80.0),
    "beside": lambda s: s.counts & (s.ahead_m.abs() < 35.0),
    "between": lambda s: s.beside & (s.ahead_m > -5.0) & (s.ahead_m < 40.0),
    "merge": lambda s: _beside(s, 35.0),
    "open-gap": lambda s: s.beside & (s.ahead_m > -8.0) & (s.ahead_m < 6.0),
    "pass": lambda s: s.counts & (s.ahead_m > 4.0) & (s.ahead_m < 40.0),
    "match-speed": lambda s: s.beside & (s.ahead_m.abs() < 25.0) & (s.faster_mps.abs() > 1.5),
    "keep-off-truck": lambda s: s.counts,
}


@dataclass(frozen=True)
class Trials:
    """Scenes in which a concept is asked for, one seed each.

    Attributes:
        seeds: Of the traffic.
        about: Long `(trial, 2)`. Agents of whom it is to hold; the second one may be `NOBODY`.
    """

    seeds: tuple[int, ...]
    about: Tensor


@dataclass(frozen=True)
class Outcome:
    """What came of each trial, `(trial,)`.

    Attributes:
        holds: Bool. The rule held of whom it is about over some 3 s.
        contact: Bool. The ego touched somebody, or left the road, within the time.
        speed_mps: Mean speed.
    """

    holds: Tensor
    contact: Tensor
    speed_mps: Tensor

    @property
    def success(self) -> Tensor:
        """It came to hold, without a contact."""
        return self.holds & ~self.contact


def trials(traffic: LockstepTraffic, rule: Rule, count: int, first_seed: int) -> Trials:
    """The first `count` scenes from `first_seed` on in which somebody can be asked for; of several, the nearest.

    Raises:
        InputError: There are too few.
    """
    seeds = range(first_seed, first_seed + SEEDS_LOOKED_AT * count)
    found: list[int] = []
    about: list[Tensor] = []
    for begin in range(0, len(seeds), 64):
        part = list(seeds[begin : begin + 64])
        start = traffic.reset(part)
        scene = start.history[:, -1:]
        standing = Standing.of(entities_of(scene, start.road, traffic.dt_s))
        suits = ASKED_OF[rule.family](standing)[:, 0]
        if not rule.needs_change:
            suits = suits & ~rule.holds(standing)
        distance = torch.where(suits, standing.ahead_m[:, 0].abs(), torch.inf)
        nearest = distance.argmin(1)
        second = torch.full_like(nearest, NOBODY)
        if rule.pair:
            second = _next_behind(standing, nearest)
            suits = suits & (second != NOBODY)[:, None]
        for number in (suits.gather(1, nearest[:, None])[:, 0]).nonzero()[:, 0].tolist():
            found.append(part[number])
            about.append(torch.stack([nearest[number], second[number]]))
            if len(found) == count:
                return Trials(tuple(found), torch.stack(about))
    raise InputError(f"{rule.name}: {len(found)} of {count} scenes found in which it can be asked for")


def _next_behind(standing: Standing, first: Tensor) -> Tensor:
    """Who comes next behind `first (batch,)` on its lane, long `(batch,)`."""
    ahead, lanes = standing.ahead_m[:, 0], standing.lanes_left[:, 0]
    behind = ahead.gather(1, first[:, None]) - ahead
    same = (lanes - lanes.gather(1, first[:, None])).abs() < 0.4
    distance = torch.where(standing.counts[:, 0] & same & (behind > 12.0) & (behind < 70.0), behind, torch.inf)
    return torch.where(distance.isfinite().any(1), distance.argmin(1), NOBODY)


@torch.no_grad()
def drive(
    traffic: LockstepTraffic, driver: Driver, rule: Rule, asked: Trials, duration_s: float = DURATION_S
) -> Outcome:
    """Drive all trials side by side, the goal telling whom the concept is about, and judge them by its rule."""
    start = told(traffic.reset(asked.seeds), asked.about)
    road, goal = start.road, start.goal
    states = [start.history[:, time] for time in range(start.history.valid.shape[1])]
    driver.reset(states[-1], road, goal)
    over = torch.zeros(len(asked.seeds), dtype=torch.bool)
    failed = torch.zeros_like(over)
    for _ in range(round(duration_s / traffic.dt_s)):
        controls = driver.act(TrafficState.stack(states[-20:], 1), road, goal)
        if isinstance(traffic, AttentiveTraffic):
            traffic.announce(getattr(driver, "chosen_lane", None))
        step = traffic.step(controls)
        failed |= ~over & (step.collided | step.off_road).cpu()
        over |= step.ended.cpu()
        states.append(step.scene)
    driven = TrafficState.stack(states, 1)
    holds = comes_to_hold(rule, driven, start, asked.about, traffic.dt_s)
    return Outcome(holds, failed, driven.speed_mps[:, :, 0].mean(1).float())


def told(start: LockstepStart, about: Tensor) -> LockstepStart:
    """The start, with a goal that says whom a concept is about."""
    attended = torch.zeros(start.history[:, -1].valid.shape, dtype=torch.bool)
    for column in about.T:
        known = column != NOBODY
        attended[known, column[known]] = True
    return replace(start, goal=replace(start.goal, attended=attended[:, None]))


def comes_to_hold(rule: Rule, driven: TrafficState, start: LockstepStart, about: Tensor, dt_s: float) -> Tensor:
    """Whether the rule holds of whom it is about over some window of 3 s, bool `(trial,)`."""
    stride, long = frame_stride(dt_s), round(WINDOW_S / dt_s)
    holds = torch.zeros(len(about), dtype=torch.bool)
    kept = torch.zeros(driven.valid.shape[0], driven.valid.shape[2], dtype=torch.bool)
    kept.scatter_(1, about.clamp_min(0), True)
    kept[:, 0] = False
    for first in range(round(START_S / dt_s), driven.valid.shape[1] - long, max(1, round(EVERY_S / dt_s))):
        window = driven[:, first : first + long + 1 : stride]
        agents = nearest_indices(window[:, 0], 2 * MOST_ENTITIES, kept)
        standing = Standing.of(entities_of(pick_agents(window, agents), start.road, dt_s * stride))
        entity = (agents == about[:, :1]).long().argmax(1)
        now = rule.holds(standing).gather(1, entity[:, None])[:, 0]
        if rule.pair:
            partner = rule.partner(standing)
            who = agents.gather(1, partner.clamp_min(0)[:, None])[:, 0]
            now = now & (partner != NOBODY) & (who == about[:, 1])
        holds |= now
    return holds
