"""A world of rules: the others follow by IDM or hold their speed. What a learned world is to be compared with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from drivecast.worldmodel.rules.driver_parameters import HIGHWAY_ENV
from drivecast.worldmodel.rules.in_the_way import ROOM_M, bound_lane
from drivecast.worldmodel.rules.laws import (
    MOST_TURN_RAD,
    TAU_HEADING_S,
    TAU_LATERAL_S,
    desired_gap,
    free_acceleration,
    interaction,
)
from drivecast.worldmodel.scene.kinematics import MAX_ACCELERATION_MPS2, MAX_BRAKING_MPS2, drive, unicycle_step
from drivecast.worldmodel.scene.lane_neighbours import single_lane
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls, TrafficState

LEAST_DISTANCE_M = 0.1
LEAST_WISH_MPS = 1.0  # who stands wants to go on
CAR_M = 5.0  # IDM's jam distance is from centre to centre of two cars of this length
EXPONENT = 4.0


@dataclass
class RuleWorld:
    """Scenes that go on under the ego's controls, `(row, agent)`, the others by rules: a `World`.

    Everybody settles on the lane that it is bound for at the start, and stays there. Along it, each follows whoever is
    in its way, the ego too, by IDM with highway-env's parameters, and wants the speed that it has at the start; or
    holds that speed, whatever happens. The others' answers carry no gradient.

    Attributes:
        scene: The present.
        before: One step earlier.
        road: The road of each row.
        dt_s: Time step, s.
        follows: They follow by IDM; if False, they hold their speed.
        bound: Long `(row, agent)`. Lanes of the road.
        wish_mps: `(row, agent)`. What each wants to drive.
        acceleration_mps2: `(row, agent)`. What each decided last.
        step: How many were taken.
    """

    scene: TrafficState
    before: TrafficState
    road: Road
    dt_s: float
    follows: bool
    bound: Tensor
    wish_mps: Tensor
    acceleration_mps2: Tensor
    step: int = 0

    decide_steps: ClassVar[int] = 2  # as seldom as in a learned world

    def __post_init__(self) -> None:
        self._axis = single_lane(self.road, self.bound[:, 0])  # along which leaders are looked for

    @staticmethod
    def of(scene: TrafficState, before: TrafficState, road: Road, dt_s: float, follows: bool) -> RuleWorld:
        """The present `scene (row, agent)`, one step after `before`."""
        bound, wish = bound_lane(scene, road), scene.speed_mps.clamp_min(LEAST_WISH_MPS)
        return RuleWorld(scene, before, road, dt_s, follows, bound, wish, torch.zeros_like(wish))

    @property
    def first_acceleration(self) -> Tensor:
        """The ego's, m/s², over the step that led here, `(row,)`."""
        return (self.scene.speed_mps[:, 0] - self.before.speed_mps[:, 0]) / self.dt_s

    def announce(self, lane: Tensor) -> None:
        """They see what the ego does, not its indicator."""

    def advance(self, controls: Controls) -> TrafficState:
        """One step on under `controls (row,)`; the scene after it. Differentiable in the controls, by the ego alone."""
        ego = drive(self.scene[:, 0], controls, self.dt_s)
        with torch.no_grad():
            if self.follows and self.step % self.decide_steps == 0:
                self.acceleration_mps2 = self._followed()
            others = self._moved()
        self.before, self.scene = self.scene, others.with_ego(ego)
        self.step += 1
        return self.scene

    def picked(self, rows: Tensor) -> RuleWorld:
        """The worlds of `rows`, which may be named several times: from here on they go their own ways."""
        return replace(
            self,
            scene=self.scene[rows],
            before=self.before[rows],
            road=self.road[rows],
            bound=self.bound[rows],
            wish_mps=self.wish_mps[rows],
            acceleration_mps2=self.acceleration_mps2[rows],
        )

    def _moved(self) -> TrafficState:
        """Where everybody is a step later, on the way to the centre of its lane."""
        scene = self.scene
        here = self.road.project(scene.position_m, self.bound)
        across_mps = -here.across_m / TAU_LATERAL_S / scene.speed_mps.clamp_min(LEAST_WISH_MPS)
        wanted = here.heading_rad + across_mps.clamp(-1.0, 1.0).asin().clamp(-MOST_TURN_RAD, MOST_TURN_RAD)
        turn_rate = (wanted - scene.heading_rad) / TAU_HEADING_S
        position, heading, speed = unicycle_step(
            scene.position_m, scene.heading_rad, scene.speed_mps, self.acceleration_mps2, turn_rate, self.dt_s
        )
        return replace(scene, position_m=position, heading_rad=heading, speed_mps=speed)

    def _followed(self) -> Tensor:
        """IDM's acceleration behind whoever is in the way and holds back most, `(row, agent)`, m/s²."""
        scene = self.scene
        there = self._axis.project(scene.position_m)
        sideways_mps = scene.speed_mps * (scene.heading_rad - there.heading_rad).sin()
        then_m = there.across_m + sideways_mps * TAU_LATERAL_S
        along = there.along_m[:, None, :] - there.along_m[:, :, None]  # (row, who, whom)
        room = (scene.width_m[:, None, :] + scene.width_m[:, :, None]) / 2 + ROOM_M
        met = (there.across_m[:, None, :] - then_m[:, :, None]).abs() < room
        met |= (then_m[:, None, :] - then_m[:, :, None]).abs() < room
        longer = (scene.length_m[:, None, :] + scene.length_m[:, :, None]) / 2 - CAR_M
        counts = met & (along > 0) & scene.valid[:, None, :]
        distance = torch.where(counts, (along - longer).clamp_min(LEAST_DISTANCE_M), torch.inf)
        speed = scene.speed_mps[:, :, None]
        # from a leader that pulls away nothing is wanted
        closing = speed - scene.speed_mps[:, None, :]
        held_back = interaction(speed, closing, distance, HIGHWAY_ENV)
        held_back = torch.where(desired_gap(speed, closing, HIGHWAY_ENV) > 0, held_back, 0.0).amax(-1)
        free = free_acceleration(scene.speed_mps, self.wish_mps, EXPONENT, HIGHWAY_ENV)
        return (free - held_back).clamp(-MAX_BRAKING_MPS2, MAX_ACCELERATION_MPS2)
