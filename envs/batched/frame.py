"""One frame of traffic: everyone decides, everyone moves, then who touches whom (`Road.act`, `Road.step`)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from drivecast.envs.batched.collisions import collide
from drivecast.envs.batched.decisions import choose_lanes, idm_actions, steering_towards
from drivecast.envs.batched.dynamics import move
from drivecast.envs.batched.lanes import Lanes
from drivecast.envs.batched.scene import Scene
from drivecast.envs.batched.situation import Situation
from drivecast.worldmodel.rules.driver_parameters import DriverParameters
from drivecast.worldmodel.scene.traffic import with_ego


@dataclass(frozen=True)
class Frame:
    """A frame that is decided, not yet carried out, `(episode, agent)`; an ego with a will of its own comes between.

    Attributes:
        now: What everyone saw.
        target_lane: Lane that each steers for from now on.
        timer_s: Since each last thought of changing lane, s.
        acceleration_mps2, steering_rad: What each will do.
    """

    now: Situation
    target_lane: Tensor
    timer_s: Tensor
    acceleration_mps2: Tensor
    steering_rad: Tensor

    @staticmethod
    def decided(
        scene: Scene, lanes: Lanes, drivers: DriverParameters, drives: Tensor, ego_lane: Tensor | None = None
    ) -> Frame:
        """IDM, MOBIL and lane-keeping for those who drive by them.

        Args:
            scene: The frame before.
            lanes: The road.
            drivers: Everybody's parameters.
            drives: Bool. Who follows and steers by these laws; the others go on with what they do.
            ego_lane: Lane `(episode,)` that the ego steers for; None: its target.
        """
        now = Situation.of(scene, lanes, drivers)
        target, timer = choose_lanes(now)
        acceleration = torch.where(drives, idm_actions(now, target, drives), scene.acceleration_mps2)
        towards = target if ego_lane is None else with_ego(target, ego_lane)
        steering = torch.where(drives, steering_towards(scene, lanes, towards), scene.steering_rad)
        return Frame(now, target, timer, acceleration, steering)

    def without_reverse(self, dt_s: float) -> Frame:
        """Nobody brakes into reverse, as highway-env's own drivers do when their leader is too near."""
        least = -self.now.scene.speed_mps.clamp_min(0.0) * (1 / dt_s)
        return replace(self, acceleration_mps2=self.acceleration_mps2.maximum(least))

    def with_ego(self, acceleration_mps2: Tensor, steering_rad: Tensor) -> Frame:
        """The ego does something else, `(episode,)` each."""
        return replace(
            self,
            acceleration_mps2=with_ego(self.acceleration_mps2, acceleration_mps2),
            steering_rad=with_ego(self.steering_rad, steering_rad),
        )

    def carried_out(self, dt_s: float, ego_only: bool, obstacles: int) -> Scene:
        """The frame after; `ego_only`: only collisions of the ego are looked for, `obstacles` are the last agents."""
        scene = self.now.scene.but(
            target_lane=self.target_lane,
            timer_s=self.timer_s,
            acceleration_mps2=self.acceleration_mps2,
            steering_rad=self.steering_rad,
        )
        return collide(move(scene, self.now.lanes, dt_s), dt_s, ego_only, obstacles)
