"""highway-env's traffic for many episodes at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from gymnasium.utils import seeding
from torch import Tensor

from drivecast.envs.batched.decisions import TAU_ACCELERATION_S
from drivecast.envs.batched.first_scene import first_scene, widened
from drivecast.envs.batched.frame import Frame
from drivecast.envs.batched.lanes import Lanes
from drivecast.envs.batched.random_streams import RandomStreams
from drivecast.envs.batched.rewards import highway_reward, merge_reward
from drivecast.envs.batched.scene import Scene
from drivecast.envs.batched.spawn import Spawn, spawn_highway, spawn_merge, spawn_merge_generic
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.rules.driver_parameters import HIGHWAY_ENV, DriverParameters
from drivecast.worldmodel.scene.traffic import with_ego

SPAWNS: dict[str, Callable[[RandomStreams, dict[str, Any]], Spawn]] = {
    "highway-v0": spawn_highway,
    "highway-fast-v0": spawn_highway,
    "merge-v0": spawn_merge,
    "merge-v1": spawn_merge,
    "merge-generic-v0": spawn_merge_generic,
    "merge-generic-v1": spawn_merge_generic,
}
LANE_LEFT, IDLE, LANE_RIGHT, FASTER, SLOWER = range(5)


@dataclass(frozen=True)
class Step:
    """What one decision of the ego brought, `(episode,)` each.

    Attributes:
        reward: highway-env's.
        terminated: Bool. The ego crashed, left the road where that ends an episode, or passed the merge.
        truncated: Bool. The time is up.
    """

    reward: Tensor
    terminated: Tensor
    truncated: Tensor


class BatchedHighway:
    """highway-env 1.12.1's highway and merge environments, many episodes in lockstep as tensors.

    The same seed gives the same scene as highway-env, the same actions the same future (docs/simulator.md has what was
    compared). Every operation is differentiable in the states and in continuous controls, decisions aside: lane
    changes, who follows whom and who collides are taken as they are.

    Args:
        environment: One of `SPAWNS`.
        config: Overrides of highway-env's configuration, as highway-env takes them.
        dtype: float64 is equal to highway-env, float32 faster.
        device: Where to run.

    Attributes:
        config: highway-env's configuration with the overrides.
        network: highway-env's road network.
        lanes: The road.
        scene: The state of all episodes.
        drivers: Everybody's IDM and MOBIL: highway-env's, unless others are put there after a reset.
        time_s: `(episode,)` float64, since each episode began.

    Raises:
        InputError: The environment is not one of those, or asks for what is not supported.
    """

    def __init__(
        self,
        environment: str = "highway-v0",
        config: dict[str, Any] | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        if environment not in SPAWNS:
            raise InputError(f"environment: expected one of {', '.join(SPAWNS)}; got {environment!r}")
        reference = _reference(environment, config)
        self.environment, self.dtype, self.device = environment, dtype, torch.device(device)
        self.config = reference.config
        self.discrete = self.config["action"]["type"] == "DiscreteMetaAction"
        self.network = reference.road.network
        self.lanes = Lanes.of(self.network, bool(self.config["neighbour_vehicles_connected_lanes"]), dtype, device)
        self.obstacles = [tuple(float(v) for v in thing.position) for thing in reference.road.objects]
        self.ego_only = environment.startswith("highway-fast")  # it switches the other cars' collisions off
        self.end_m = float(getattr(reference, "end_position", 370.0))
        action = reference.action_type
        if self.discrete:
            self.target_speeds = torch.as_tensor(np.asarray(action.target_speeds), dtype=dtype, device=device)
        else:
            self.acceleration_range, self.steering_range = action.acceleration_range, action.steering_range
        self.frames = int(self.config["simulation_frequency"] // self.config["policy_frequency"])
        self.frame_s = 1 / self.config["simulation_frequency"]
        self.step_s = 1 / self.config["policy_frequency"]
        self.scene: Scene
        self.drivers = HIGHWAY_ENV
        self.speed_index = torch.zeros(0, dtype=torch.long)
        self.time_s = torch.zeros(0, dtype=torch.float64)

    @property
    def episodes(self) -> int:
        """How many run."""
        return len(self.time_s)

    def reset(self, seeds: Sequence[int | np.random.Generator]) -> Scene:
        """Start one episode per seed of highway-env (or per generator, which goes on where it is)."""
        self.scene, self.speed_index = self._spawned(seeds)
        self.time_s = torch.zeros(len(seeds), dtype=torch.float64, device=self.device)
        return self.scene

    def restart(self, which: Tensor, seeds: Sequence[int | np.random.Generator]) -> None:
        """Start the episodes `which` (their numbers) anew, the others go on."""
        scene, speed_index = self._spawned(seeds)
        agents = max(scene.x_m.shape[1], self.scene.x_m.shape[1])
        scene, mine = widened(scene, agents, len(self.obstacles)), widened(self.scene, agents, len(self.obstacles))
        self.scene = Scene(
            **{name: values.index_copy(0, which, getattr(scene, name)) for name, values in vars(mine).items()}
        )
        self.speed_index = self.speed_index.index_copy(0, which, speed_index)
        self.time_s = self.time_s.index_fill(0, which, 0.0)

    def step(self, action: Tensor) -> Step:
        """One decision of the ego: highway-env's own actions and rewards.

        Args:
            action: Long `(episode,)` of meta-actions, or `(episode, 2)` of throttle and steering in [-1, 1].
        """
        self.time_s = self.time_s + self.step_s
        lane_before = self.scene.lane[:, 0]
        if self.discrete:
            scene = self._meta_action(self.scene, action)
        else:
            action = action.to(self.scene.x_m).clamp(-1.0, 1.0)
            low, high = self.acceleration_range
            acceleration = low + (action[:, 0] + 1) * (high - low) / 2
            low, high = self.steering_range
            scene = _driven(self.scene, acceleration, low + (action[:, 1] + 1) * (high - low) / 2)
        self.scene = self._simulate(scene)
        return Step(self._reward(action, lane_before), self._terminated(), self._truncated())

    def drive(self, acceleration_mps2: Tensor, steering_rad: Tensor) -> Scene:
        """One decision in SI units, `(episode,)` each and in highway-env's frame, neither scaled nor clipped."""
        self.time_s = self.time_s + self.step_s
        self.scene = self._simulate(_driven(self.scene, acceleration_mps2, steering_rad))
        return self.scene

    def show(self, target_lane: Tensor, target_speed_mps: Tensor) -> None:
        """Let the others see where the ego is going, `(episode,)` each: a `ControlledVehicle` that is driven by hand.

        Without it an ego with continuous controls has a target speed of 0 m/s, before which no car ever changes lane,
        and no target lane, for which no car ever breaks off its own lane change.
        """
        self.scene = shown(self.scene, target_lane, target_speed_mps)

    @property
    def on_road(self) -> Tensor:
        """Bool `(episode,)`: the ego's centre is on its lane."""
        ego = self.scene.x_m[:, 0], self.scene.y_m[:, 0]
        return self.lanes.on_lane(*ego, self.scene.lane[:, 0])

    @property
    def passed_the_end(self) -> Tensor:
        """Bool `(episode,)`: the ego is beyond the merge; a highway has no end."""
        x_m = self.scene.x_m[:, 0]
        return torch.zeros_like(x_m, dtype=torch.bool) if self.environment.startswith("highway") else x_m > self.end_m

    def _simulate(self, scene: Scene) -> Scene:
        for _ in range(self.frames):
            scene = advance(
                scene, self.lanes, self.frame_s, self.ego_only, len(self.obstacles), self.drivers, self.discrete
            )
        return scene

    def _meta_action(self, scene: Scene, action: Tensor) -> Scene:
        """`MDPVehicle.act`: another target lane, or another of the target speeds."""
        x, y, speed = scene.x_m[:, 0], scene.y_m[:, 0], scene.speed_mps[:, 0]
        target = self.lanes.onwards(x, scene.target_lane[:, 0])
        for meta, side in ((LANE_LEFT, self.lanes.left), (LANE_RIGHT, self.lanes.right)):
            beside = side[target]
            beside = torch.where(beside < 0, target, beside)
            target = torch.where((action == meta) & self.lanes.reachable(x, y, beside), beside, target)
        top = len(self.target_speeds) - 1
        lowest, highest = self.target_speeds[0], self.target_speeds[-1]
        now = ((speed - lowest) / (highest - lowest) * top).round().clamp(0, top).long()
        index = torch.where(action == FASTER, now + 1, torch.where(action == SLOWER, now - 1, self.speed_index))
        self.speed_index = index.clamp(0, top)
        wanted = self.target_speeds[self.speed_index]
        return scene.but(
            target_lane=with_ego(scene.target_lane, target),
            target_speed_mps=with_ego(scene.target_speed_mps, wanted),
        )

    def _reward(self, action: Tensor, lane_before: Tensor) -> Tensor:
        ego_lane = self.scene.target_lane[:, 0] if self.discrete else self.scene.lane[:, 0]
        if self.environment.startswith("highway"):
            return highway_reward(self.scene, self.lanes, self.config, ego_lane, self.on_road)
        if self.discrete:
            changes = (action == LANE_LEFT) | (action == LANE_RIGHT)
        else:  # what highway-env has no rule for: whether the ego came to the lane beside it
            edge = self.lanes.edge
            changes = (edge[lane_before] == edge[ego_lane]) & (lane_before != ego_lane)
        return merge_reward(self.scene, self.lanes, self.config, changes)

    def _terminated(self) -> Tensor:
        crashed = self.scene.crashed[:, 0]
        if self.environment.startswith("highway"):
            return crashed | ~self.on_road if self.config["offroad_terminal"] else crashed
        return crashed | self.passed_the_end

    def _truncated(self) -> Tensor:
        if self.environment.startswith("highway"):
            return self.time_s >= self.config["duration"]
        return torch.zeros_like(self.time_s, dtype=torch.bool)

    def _spawned(self, seeds: Sequence[int | np.random.Generator]) -> tuple[Scene, Tensor]:
        random = RandomStreams(
            [seed if isinstance(seed, np.random.Generator) else seeding.np_random(int(seed))[0] for seed in seeds]
        )
        spawn = SPAWNS[self.environment](random, self.config)
        random.close()
        scene = first_scene([spawn], self.lanes, self.obstacles, self.dtype)
        speed_index = torch.zeros(len(seeds), dtype=torch.long, device=self.device)
        if self.discrete:  # `MDPVehicle.__init__`: the nearest of its target speeds
            steps = self.target_speeds.numel() - 1
            lowest, highest = self.target_speeds[0], self.target_speeds[-1]
            share = (scene.speed_mps[:, 0] - lowest) / (highest - lowest)
            speed_index = (share * steps).round().clamp(0, steps).long()
            scene.aims[:, 0] = True
            scene.target_speed_mps[:, 0] = self.target_speeds[speed_index]
        return scene, speed_index


def shown(scene: Scene, target_lane: Tensor, target_speed_mps: Tensor) -> Scene:
    """The scene with an ego that steers for this lane at this speed, `(episode,)` each, for all to see."""
    return scene.but(
        target_lane=with_ego(scene.target_lane, target_lane),
        target_speed_mps=with_ego(scene.target_speed_mps, target_speed_mps),
        aims=with_ego(scene.aims, torch.ones_like(scene.aims[:, 0])),
    )


def advance(
    scene: Scene,
    lanes: Lanes,
    dt_s: float,
    ego_only: bool = False,
    obstacles: int = 0,
    drivers: DriverParameters = HIGHWAY_ENV,
    by_meta_actions: bool = True,
) -> Scene:
    """One frame, as highway-env has it.

    Args:
        scene: The frame before.
        lanes: The road.
        dt_s: Its length, s.
        ego_only: Only collisions of the ego are looked for.
        obstacles: Number of obstacles; they are the last agents.
        drivers: Everybody's IDM and MOBIL.
        by_meta_actions: An ego with a target lane and speed steers for them by itself.
    """
    steers = scene.aims if by_meta_actions else scene.idm
    frame = Frame.decided(scene, lanes, drivers, steers & ~scene.crashed)
    if by_meta_actions:  # `ControlledVehicle.act`
        towards = 1 / TAU_ACCELERATION_S * (scene.target_speed_mps - scene.speed_mps)
        acceleration = torch.where(scene.aims & ~scene.idm, towards, frame.acceleration_mps2)
        frame = replace(frame, acceleration_mps2=acceleration)
    return frame.carried_out(dt_s, ego_only, obstacles)


def _driven(scene: Scene, acceleration_mps2: Tensor, steering_rad: Tensor) -> Scene:
    """The ego's controls put into force."""
    return scene.but(
        acceleration_mps2=with_ego(scene.acceleration_mps2, acceleration_mps2),
        steering_rad=with_ego(scene.steering_rad, steering_rad),
    )


def _reference(environment: str, config: dict[str, Any] | None) -> Any:
    """highway-env's own environment, for its road, its configuration and its action ranges."""
    from drivecast.envs.highway.simulator import mended_class

    reference = mended_class(environment)(config=config)
    problems = {
        "controlled_vehicles": reference.config.get("controlled_vehicles", 1) != 1,
        "other_vehicles_type": not reference.config["other_vehicles_type"].endswith("behavior.IDMVehicle"),
        "action": reference.config["action"]["type"] not in ("DiscreteMetaAction", "ContinuousAction"),
    }
    for name, differs in problems.items():
        if differs:
            raise InputError(
                f"{name}: {reference.config[name]} is not supported by the batched simulator; use highway-env itself"
            )
    return reference
