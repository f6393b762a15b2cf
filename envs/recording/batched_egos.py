"""The egos of recorded episodes and the cars around them, as tensors; `highway_egos.py` has them singly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from drivecast.envs.batched.frame import Frame
from drivecast.envs.batched.lanes import NO_LANE, Lanes
from drivecast.envs.batched.scene import Scene
from drivecast.envs.recording.cast import VARIED_PARAMETERS, Cast, Whims
from drivecast.worldmodel.rules.driver_parameters import HIGHWAY_ENV, DriverParameters
from drivecast.worldmodel.scene.kinematics import within_limits
from drivecast.worldmodel.scene.traffic import Controls, with_ego

MOBIL_BEHAVIOURS = ("idm", "idm-any-speed", "tailgater", "sudden-braking", "bully")  # others change lane as they like
EGO_PARAMETERS = ("least_gain_mps2", "most_imposed_mps2")  # differ from highway-env's for some egos only


@dataclass(frozen=True)
class CastTraffic:
    """Who drives in each episode.

    Attributes:
        lanes: The road.
        drivers: Everybody's parameters.
        looks: Bool `(episode,)`. The ego follows by IDM; else it looks at nobody.
        whims: Of the egos, tensors `(step, episode)`.
        dt_s: Time step, s.
        ego_only: Only collisions of the ego are looked for.
        obstacles: Number of obstacles; they are the last agents.
    """

    lanes: Lanes
    drivers: DriverParameters
    looks: Tensor
    whims: dict[str, Tensor]
    dt_s: float
    ego_only: bool
    obstacles: int

    @staticmethod
    def enter(
        scene: Scene, casts: Sequence[Cast], lanes: Lanes, dt_s: float, ego_only: bool, obstacles: int
    ) -> tuple[CastTraffic, Scene]:
        """Put the egos of `casts` into `scene` and make the others theirs; an episode each."""

        def tensor(values: Sequence[float] | np.ndarray) -> Tensor:
            return torch.as_tensor(np.asarray(values)).to(scene.x_m)

        def each(values: Sequence[float]) -> Tensor:
            return tensor(values)[:, None]

        def of_others(values: Sequence[np.ndarray], otherwise: float) -> Tensor:
            return tensor(_table(values, tuple(scene.x_m.shape), otherwise))

        # in highway-env's order: the scale of the episode, then the car's own factor
        scale, factor = each([cast.speed_scale for cast in casts]), of_others([c.target_speed_factor for c in casts], 1)
        speed, target_speed = scene.speed_mps * scale, scene.target_speed_mps * scale * factor
        speed[:, 0] = scene.speed_mps[:, 0] * tensor([cast.speed_factor for cast in casts])
        target_speed[:, 0] = tensor([cast.desired_speed_mps for cast in casts])
        # who trades places keeps its timer, but for the ego
        rows = torch.arange(len(casts))
        partner = torch.tensor([0 if cast.partner is None else cast.partner + 1 for cast in casts])
        x, y, heading = scene.x_m.clone(), scene.y_m.clone(), scene.heading_rad.clone()
        for values in (x, y, heading):
            values[rows, 0], values[rows, partner] = values[rows, partner], values[rows, 0]
        timer = scene.timer_s.clone()
        timer[:, 0] = ((x[:, 0] + y[:, 0]) * np.pi) % 1.0
        lane = lanes.nearest(x, y, heading)
        idm, aims = scene.idm.clone(), scene.aims.clone()
        idm[:, 0] = torch.tensor([cast.behaviour in MOBIL_BEHAVIOURS for cast in casts])
        aims[:, 0] = True

        drivers = {}
        for name in (*VARIED_PARAMETERS, *EGO_PARAMETERS):
            usual = getattr(HIGHWAY_ENV, name)
            values = of_others([cast.others.get(name, np.zeros(0)) for cast in casts], usual)
            values[:, 0] = tensor([cast.ego.get(name, usual) for cast in casts])
            drivers[name] = values
        whims = {
            name: torch.as_tensor(np.stack([getattr(cast.whims, name) for cast in casts], 1))
            for name in Whims.__dataclass_fields__
        }
        looks = torch.tensor([cast.behaviour != "noise" for cast in casts])
        traffic = CastTraffic(lanes, DriverParameters(**drivers), looks, whims, dt_s, ego_only, obstacles)
        scene = scene.but(
            x_m=x,
            y_m=y,
            heading_rad=heading,
            speed_mps=speed,
            target_speed_mps=target_speed,
            timer_s=timer,
            lane=lane,
            target_lane=lane,
            idm=idm,
            aims=aims,
        )
        return traffic, scene

    def step(self, scene: Scene, number: int, given: Controls | None = None) -> Scene:
        """Step `number` of all episodes: everyone decides, everyone moves, then who touches whom.

        `given (episode,)` is what egos do that somebody else drives, in the simulator's frame.
        """
        whims = {name: values[number] for name, values in self.whims.items()}
        scene = self._roam(scene, whims)
        frame = Frame.decided(scene, self.lanes, self.drivers, scene.vehicle & ~scene.crashed)
        if given is None:
            own = self._ego_controls(scene, frame.acceleration_mps2[:, 0], frame.steering_rad[:, 0], whims)
        else:
            own = within_limits(given, scene.speed_mps[:, 0], self.dt_s)
        frame = frame.without_reverse(self.dt_s).with_ego(own.acceleration_mps2, own.steering_rad)
        return frame.carried_out(self.dt_s, self.ego_only, self.obstacles)

    def _roam(self, scene: Scene, whims: dict[str, Tensor]) -> Scene:
        """Egos that feel like it take a lane beside theirs, unless they are changing lane already."""
        if not bool(whims["roams"].any()):
            return scene
        x, y, target = scene.x_m[:, 0], scene.y_m[:, 0], self.lanes.onwards(scene.x_m, scene.target_lane)[:, 0]
        beside = torch.stack([self.lanes.left[target], self.lanes.right[target]], 1)
        open_ = (beside != NO_LANE) & torch.stack([self.lanes.reachable(x, y, lane) for lane in beside.unbind(1)], 1)
        choice = (whims["side"] * open_.sum(1)).long()  # 0: the first open one; 1: the second
        chosen = beside.gather(1, torch.where(open_[:, 0], choice, 1)[:, None])[:, 0]
        roams = whims["roams"] & (scene.lane[:, 0] == target) & open_.any(1)
        target = torch.where(roams, chosen, target)
        return scene.but(target_lane=with_ego(scene.target_lane, target))

    def _ego_controls(self, scene: Scene, acceleration: Tensor, steering: Tensor, whims: dict[str, Tensor]) -> Controls:
        """What the egos do, by IDM or not, with their whims, held to what our bicycle allows."""
        speed = scene.speed_mps[:, 0]
        wandering = 0.3 * (scene.target_speed_mps[:, 0] - speed) + whims["acceleration_mps2"]
        acceleration = torch.where(self.looks, acceleration, wandering)
        braking = whims["braking_mps2"]
        acceleration = torch.where(braking > 0, acceleration.minimum(-braking), acceleration)
        return within_limits(Controls(acceleration, steering + whims["steering_rad"]), speed, self.dt_s)


def _table(values: Sequence[np.ndarray], shape: tuple[int, ...], otherwise: float) -> np.ndarray:
    """`(episode, agent)` with the values of the others, who come after the ego."""
    table = np.full(shape, otherwise, dtype=np.float64)
    for row, own in zip(table, values, strict=True):
        row[1 : 1 + len(own)] = own
    return table
