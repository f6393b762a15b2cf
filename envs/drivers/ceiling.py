"""What any planner could reach: proposals driven in a branch of the traffic's own simulator. A bound, no competitor."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from drivecast.envs.batched.frame import Frame
from drivecast.envs.batched.scene import Scene
from drivecast.envs.batched.situation import Situation, behind
from drivecast.envs.drivers.lane_frame import LaneFrame
from drivecast.envs.drivers.proposals import RuleConfig
from drivecast.envs.drivers.rule import RuleDriver
from drivecast.envs.lockstep import LockstepTraffic
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.rules.driver_parameters import DriverParameters
from drivecast.worldmodel.rules.laws import free_acceleration
from drivecast.worldmodel.scene.kinematics import MAX_BRAKING_MPS2, within_limits
from drivecast.worldmodel.scene.lane_neighbours import LaneNeighbours, lane_neighbours
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import Controls, TrafficState, with_ego

if TYPE_CHECKING:
    from drivecast.envs.batched.traffic import BatchedHighwayTraffic

CEILING = RuleConfig(
    time_gaps_s=(0.2, 0.4, 0.6, 0.9, 1.3, 2.0),
    starts_s=(0.0, 0.8, 1.6, 3.0),
    offsets_m=(0.0,),
    jam_gap_m=1.5,
    exponent=10.0,
    ttc_cost=0.0,
    imposed_cost=0.0,
    decide_every_s=1.0,
)


class CeilingDriver(RuleDriver):
    """`RuleDriver` that knows: every proposal is driven in a copy of the episode, with everybody's true intentions.

    More proposals, finer in their timing, and nothing but contacts, progress and comfort in the score: the copy says
    what comes of it. Only in traffic that can be copied: highway-env's as tensors.

    Args:
        config: Proposals and score.
        dt_s: Time between two calls, s.
    """

    name = "ceiling"

    def __init__(self, config: RuleConfig = CEILING, dt_s: float = 0.1) -> None:
        super().__init__(config, dt_s, MAX_BRAKING_MPS2)  # as hard as in its branch
        self._traffic: BatchedHighwayTraffic | None = None

    def attend(self, traffic: LockstepTraffic) -> None:
        """Told which traffic it will drive in.

        Raises:
            InputError: It cannot be copied.
        """
        from drivecast.envs.batched.traffic import BatchedHighwayTraffic

        if not isinstance(traffic, BatchedHighwayTraffic) or not traffic.simulator.lanes.parallel:
            raise InputError(
                f"driver 'ceiling': {traffic.name} cannot be branched; it drives on highway-v0 and highway-fast-v0, "
                "with the simulator batched"
            )
        self._traffic = traffic

    def _in_the_way(self, scene: TrafficState, road: Road, lane: Tensor) -> LaneNeighbours:
        return lane_neighbours(scene, road, lane)  # as in its branch

    def _scores(self, frame: LaneFrame, wish_mps: Tensor) -> Tensor:
        if self._traffic is None:
            raise InputError("driver 'ceiling': expected to be told its traffic (attend) before it drives")
        config, proposals, traffic = self.config, self._proposals, self._traffic
        simulator, count = traffic.simulator, len(proposals)
        running = (~traffic.ended).nonzero()[:, 0]
        scores = torch.zeros(len(wish_mps), count, device=wish_mps.device)
        lanes, own = simulator.lanes, simulator.scene.lane[running, 0]
        there = torch.stack([own, lanes.left[own], lanes.right[own]], 1)[:, proposals.side]  # (running, proposal)
        possible = there != NO_LANE
        rows = running.repeat_interleave(count)[possible.flatten()]
        scene = Scene(**{field.name: getattr(simulator.scene, field.name)[rows] for field in fields(Scene)})

        def each(values: Tensor) -> Tensor:
            return values.repeat(len(running))[possible.flatten()].to(scene.x_m)

        branch = EgoBranch(
            traffic,
            scene,
            simulator.drivers.map(lambda values: values[rows]),
            ego_parameters(config, each(proposals.time_gap_s)),
            there.flatten()[possible.flatten()],
            each(proposals.start_s),
            wish_mps[rows].to(scene.x_m),
        )
        found = torch.full((len(running), count), -torch.inf, device=scores.device)
        found[possible] = branch.score(config).to(found)
        scores[running] = found - config.change_cost * (proposals.side != 0)
        return scores


def ego_parameters(config: RuleConfig, time_gap_s: Tensor) -> DriverParameters:
    """The ego's IDM, `(row,)`."""
    return DriverParameters(
        time_gap_s=time_gap_s,
        jam_distance_m=config.jam_gap_m + 5.0,
        comfort_acceleration_mps2=config.acceleration_mps2,
        comfort_braking_mps2=config.braking_mps2,
    )


class EgoBranch:
    """Copies of episodes that go on with the ego driven by IDM towards a lane, `(row,)` each.

    Args:
        traffic: Where they were copied from.
        scene: The copies.
        others: Everybody's parameters there.
        ego: The ego's.
        aim: The simulator's lane that it goes to.
        start_s: When it sets out for it.
        wish_mps: Speed that it wants.
    """

    def __init__(
        self,
        traffic: BatchedHighwayTraffic,
        scene: Scene,
        others: DriverParameters,
        ego: DriverParameters,
        aim: Tensor,
        start_s: Tensor,
        wish_mps: Tensor,
    ) -> None:
        self.traffic, self.scene, self.others, self.ego = traffic, scene, others, ego
        self.aim, self.start_s, self.wish_mps = aim, start_s, wish_mps
        self.dt_s = traffic.dt_s

    @torch.no_grad()
    def score(self, config: RuleConfig) -> Tensor:
        """Progress and comfort, less what the first contact costs."""
        self.exponent = config.exponent
        began_m = self.scene.x_m[:, 0]
        steps = round(config.horizon_s / self.dt_s)
        contact_at, squared = torch.full_like(began_m, torch.inf), torch.zeros_like(began_m)
        for step in range(steps):
            squared = squared + self._step(step).square()
            crashed = self.scene.crashed[:, 0] & contact_at.isinf()
            contact_at = torch.where(crashed, (step + 1) * self.dt_s, contact_at)
        crash = torch.where(contact_at.isinf(), 0.0, 1.0 - 0.5 * contact_at / config.horizon_s)
        progress = (self.scene.x_m[:, 0] - began_m) / config.horizon_s + self.scene.speed_mps[:, 0]
        comfort = (squared / steps).sqrt()
        return config.progress_gain * progress - config.collision_cost * crash - config.comfort_cost * comfort

    def _step(self, step: int) -> Tensor:
        """One frame; returns the ego's acceleration."""
        traffic, scene = self.traffic, self.scene
        simulator = traffic.simulator
        going = step * self.dt_s >= self.start_s - 1e-6
        aim = torch.where(going, self.aim, scene.lane[:, 0])
        if traffic.reactive:
            scene = scene.but(target_lane=with_ego(scene.target_lane, aim))
        frame = Frame.decided(scene, simulator.lanes, self.others, scene.vehicle & ~scene.crashed, aim)
        wish = Controls(self._following(frame.now, aim), frame.steering_rad[:, 0])
        own = within_limits(wish, scene.speed_mps[:, 0], self.dt_s)
        frame = frame.with_ego(own.acceleration_mps2, own.steering_rad)
        self.scene = frame.carried_out(self.dt_s, simulator.ego_only, len(simulator.obstacles))
        return own.acceleration_mps2

    def _following(self, now: Situation, aim: Tensor) -> Tensor:
        """IDM behind the leaders on its lane and on the one that it goes to, m/s²."""
        scene, motion = now.scene, now.motion
        row = torch.arange(len(aim), device=aim.device)
        me = torch.zeros_like(row)
        mine, speed = motion.of(row, me), scene.speed_mps[:, 0]
        free = free_acceleration(speed, self.wish_mps, self.exponent, self.ego)
        on_each = [
            behind(mine, motion.of(row, now.order.leader(row, me, lane)), free, self.ego)
            for lane in (scene.lane[:, 0], aim)
        ]
        return torch.minimum(*on_each)
