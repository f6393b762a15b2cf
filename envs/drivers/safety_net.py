"""A safety net under any driver: it overrides what would be unsafe by a rule that can be checked, and says when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.driver import Driver, Imagination, ImaginingDriver, history_steps_of
from drivecast.worldmodel.scene.kinematics import TURN_AT_LEAST_MPS, steering_for, wrapped
from drivecast.worldmodel.scene.lane_neighbours import single_lane
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState

STRAIGHTENING_S = 0.5  # time constant with which the ego turns back to the lane's direction
# UN Regulation 157, 5.2.3.3: time gap to keep at a speed; above 60 km/h as at 60
R157_KMH = (0.0, 7.2, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0)
R157_S = (1.0, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6)
R157_LEAST_M = 2.0
R157_RESTORING_MPS2 = 2.0  # braking to win back the gap
R157_EMERGENCY_MPS2, R157_DELAY_S = 6.0, 0.35  # 5.2.5.2: braking, and how long it takes to begin


@dataclass(frozen=True)
class Around:
    """The others as the ego's lane has them, `(batch, agent)` each; the ego is agent 0 and no other.

    Attributes:
        other: Bool. Somebody else is there.
        gap_m: Between bumpers, along the lane, of whom is ahead; negative where they overlap along it.
        ahead: Bool. Its middle is ahead of the ego's.
        apart_m: Between the sides, across the lane; negative where they overlap across it.
        to_left: Bool. It is to the left of the ego.
        speed_mps: Along the lane; the ego's own is at agent 0.
        sideways_mps: Across the lane, left positive; the ego's own is at agent 0.
    """

    other: Tensor
    gap_m: Tensor
    ahead: Tensor
    apart_m: Tensor
    to_left: Tensor
    speed_mps: Tensor
    sideways_mps: Tensor

    @staticmethod
    def of(scene: TrafficState, lane: Road) -> Around:
        """In `scene (batch, agent)`, along `lane`, one of each episode."""
        there = lane.project(scene.position_m)
        turned = wrapped(scene.heading_rad - there.heading_rad)
        along, across = there.along_m - there.along_m[:, :1], there.across_m - there.across_m[:, :1]
        other = scene.valid.clone()
        other[:, 0] = False
        return Around(
            other,
            along.abs() - (scene.length_m + scene.length_m[:, :1]) / 2,
            along > 0,
            across.abs() - (scene.width_m + scene.width_m[:, :1]) / 2,
            across > 0,
            scene.speed_mps * turned.cos(),
            scene.speed_mps * turned.sin(),
        )


@dataclass(frozen=True)
class Override:
    """What a rule asks for: acceleration of at most `most_mps2 (batch,)`; no moving to the `left`, to the `right`."""

    most_mps2: Tensor
    left: Tensor
    right: Tensor


class Rule:
    """What is unsafe, and what to do then."""

    def reset(self) -> None:
        """Other episodes begin."""

    def overrides(self, around: Around) -> Override:
        """Of all egos, `(batch,)`."""
        raise NotImplementedError


@dataclass
class RSS(Rule):
    """Responsibility-sensitive safety (Shalev-Shwartz, Shammah, Shashua 2017, arXiv 1708.06374, definitions 1 to 9).

    A situation with somebody is dangerous while the distances along and across are both below the least safe ones. The
    response is in the direction in which it became unsafe last: braking by `braking_mps2` behind who is ahead, and
    moving no further sideways towards who is beside. The paper leaves the parameters to the regulator.

    Args:
        response_s: Until the ego, or another, begins to respond.
        acceleration_mps2: How hard the ego may speed up until then.
        braking_mps2: How hard it brakes at least.
        others_brake_mps2: How hard anybody ahead brakes at most.
        sideways_mps2: How hard cars speed up sideways until they respond.
        sideways_braking_mps2: How hard they brake sideways at least.
        fluctuation_m: Sideways movement that means nothing.
    """

    response_s: float = 0.3
    acceleration_mps2: float = 2.0
    braking_mps2: float = 6.0
    others_brake_mps2: float = 6.0
    sideways_mps2: float = 0.2
    sideways_braking_mps2: float = 0.8
    fluctuation_m: float = 0.1

    def reset(self) -> None:
        self._danger: Tensor | None = None

    def overrides(self, around: Around) -> Override:
        along, across = self.unsafe_along(around), self.unsafe_across(around)
        if self._danger is None:  # whatever is dangerous from the start became so in both ways
            self._danger = torch.zeros_like(along)
            self._by_along, self._by_across = torch.ones_like(along), torch.ones_like(along)
            self._was_along, self._was_across = torch.zeros_like(along), torch.zeros_like(along)
        danger = along & across
        begins = danger & ~self._danger
        self._by_along = torch.where(begins, ~self._was_along, self._by_along)
        self._by_across = torch.where(begins, ~self._was_across, self._by_across)
        self._danger, self._was_along, self._was_across = danger, along, across
        brakes = (danger & self._by_along & around.ahead).any(1)
        aside = danger & self._by_across
        most = torch.where(brakes, -self.braking_mps2, torch.inf).to(around.gap_m)
        return Override(most, (aside & around.to_left).any(1), (aside & ~around.to_left).any(1))

    def unsafe_along(self, around: Around) -> Tensor:
        """Definition 1, of who is behind towards who is ahead; bool `(batch, agent)`."""
        own = around.speed_mps[:, :1].clamp_min(0.0)
        theirs = around.speed_mps.clamp_min(0.0)
        behind, front = torch.where(around.ahead, own, theirs), torch.where(around.ahead, theirs, own)
        faster = behind + self.response_s * self.acceleration_mps2
        least = behind * self.response_s + 0.5 * self.acceleration_mps2 * self.response_s**2
        least = least + faster**2 / (2 * self.braking_mps2) - front**2 / (2 * self.others_brake_mps2)
        return around.other & (around.gap_m < least.clamp_min(0.0))

    def unsafe_across(self, around: Around) -> Tensor:
        """Definition 6; bool `(batch, agent)`."""
        sign = torch.where(around.to_left, 1.0, -1.0).to(around.gap_m)
        own, theirs = around.sideways_mps[:, :1] * sign, -around.sideways_mps * sign  # towards each other
        least = self.fluctuation_m + (self._drift_m(own) + self._drift_m(theirs)).clamp_min(0.0)
        return around.other & (around.apart_m < least)

    def _drift_m(self, speed_mps: Tensor) -> Tensor:
        """How far a car comes sideways until it has responded and stopped; `speed_mps` towards the other."""
        after = speed_mps + self.response_s * self.sideways_mps2
        return (speed_mps + after) / 2 * self.response_s + after * after.abs() / (2 * self.sideways_braking_mps2)


class R157(Rule):
    """The gap and the emergency braking of UN Regulation 157 (automated lane keeping), as a rule.

    Behind the nearest ahead whose box overlaps the ego's across: below the regulation's gap the ego brakes by 2 m/s²
    unless the gap grows; where the time to collision is below v / 2 / 6 m/s² + 0.35 s, v the closing speed, by 6.
    """

    def overrides(self, around: Around) -> Override:
        ahead = around.other & around.ahead & (around.apart_m < 0.0)
        gap, nearest = torch.where(ahead, around.gap_m, torch.inf).min(1)
        own = around.speed_mps[:, 0].clamp_min(0.0)
        closing = own - around.speed_mps.gather(1, nearest[:, None])[:, 0]
        short = (gap < self.gap_m(own)) & (closing >= 0)
        urgent = closing * (closing / (2 * R157_EMERGENCY_MPS2) + R157_DELAY_S) > gap.clamp_min(0.0)
        most = torch.where(short, -R157_RESTORING_MPS2, torch.inf)
        most = torch.where(urgent & (closing > 0) & ahead.any(1), -R157_EMERGENCY_MPS2, most).to(gap)
        nobody = torch.zeros_like(short)
        return Override(most, nobody, nobody)

    @staticmethod
    def gap_m(speed_mps: Tensor) -> Tensor:
        """The least gap at a speed, m."""
        kmh = (3.6 * speed_mps).clamp_max(R157_KMH[-1])
        speeds, times = speed_mps.new_tensor(R157_KMH), speed_mps.new_tensor(R157_S)
        upper = torch.searchsorted(speeds, kmh.contiguous()).clamp(1, len(R157_KMH) - 1)
        share = (kmh - speeds[upper - 1]) / (speeds[upper] - speeds[upper - 1])
        return (speed_mps * torch.lerp(times[upper - 1], times[upper], share)).clamp_min(R157_LEAST_M)


RULES: dict[str, Callable[[], Rule]] = {"rss": RSS, "r157": R157}


class SafetyNet:
    """Any driver, overridden where a rule says that it is unsafe.

    Args:
        rule: One of `RULES`.
        driver: Who drives.

    Raises:
        InputError: There is no such rule.
    """

    def __init__(self, rule: str, driver: Driver) -> None:
        if rule not in RULES:
            raise InputError(f"safety net: expected one of {', '.join(RULES)}, got '{rule}'")
        self.rule, self.driver = RULES[rule](), driver
        self.name = f"{rule}:{driver.name}"
        self.history_steps = history_steps_of(driver)

    @property
    def chosen_lane(self) -> Tensor | None:
        """The lane that each ego steers for, as the driver says."""
        return getattr(self.driver, "chosen_lane", None)

    @property
    def attended(self) -> Tensor | None:
        """Whom the driver's concepts are about, as it says."""
        return getattr(self.driver, "attended", None)

    @property
    def acted(self) -> Tensor:
        """Bool `(batch,)`: whether it overrode the driver when it last drove."""
        return self._acted

    def reset(self, scene: TrafficState, road: Road, goal: Goal) -> None:
        self.rule.reset()
        self._acted = torch.zeros(len(scene.valid), dtype=torch.bool, device=scene.valid.device)
        self.driver.reset(scene, road, goal)

    def act(self, history: TrafficState, road: Road, goal: Goal) -> Controls:
        wish, scene = self.driver.act(history, road, goal), history[:, -1]
        with torch.no_grad():
            lane = single_lane(road, road.project(scene.position_m[:, :1]).lane[:, 0])
            asked = self.rule.overrides(Around.of(scene, lane))
            acceleration = wish.acceleration_mps2.minimum(asked.most_mps2)
            ego = scene[:, 0]
            turned = wrapped(ego.heading_rad - lane.project(scene.position_m[:, :1]).heading_rad[:, 0])
            sideways_mps2 = -ego.speed_mps.clamp_min(TURN_AT_LEAST_MPS) * turned / STRAIGHTENING_S
            straight = steering_for(sideways_mps2, ego.speed_mps, ego.length_m)
            steering = torch.where(asked.left, wish.steering_rad.minimum(straight), wish.steering_rad)
            steering = torch.where(asked.right, steering.maximum(straight), steering)
            self._acted = (acceleration != wish.acceleration_mps2) | (steering != wish.steering_rad)
            return Controls(acceleration, steering)


class ImaginingSafetyNet(SafetyNet):
    """The same under a driver that shows what it expects."""

    def imagine(self, history: TrafficState, road: Road, goal: Goal) -> Imagination:
        """What the driver expects, who does not know of the net."""
        assert isinstance(self.driver, ImaginingDriver)
        return self.driver.imagine(history, road, goal)


def under_net(rule: str, driver: Driver) -> SafetyNet:
    """`driver` under the net of `rule`."""
    return (ImaginingSafetyNet if isinstance(driver, ImaginingDriver) else SafetyNet)(rule, driver)
