"""highway-env's traffic as closed-loop episodes in lockstep, simulated as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from drivecast.envs.batched.mixing import mix_drivers
from drivecast.envs.batched.road_lanes import RoadLanes
from drivecast.envs.batched.scene import Scene
from drivecast.envs.batched.simulator import SPAWNS, BatchedHighway
from drivecast.envs.behaviour.intents import Intents
from drivecast.envs.highway.road import road_of, through_lanes
from drivecast.envs.highway.traffic import ENDLESS, check_desired_speed, scenario_of, start_of
from drivecast.envs.lockstep import LockstepStart, LockstepStep
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.kinematics import within_limits
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls, TrafficState

BATCHED = tuple(SPAWNS)  # the environments that it has


class BatchedHighwayTraffic:
    """`HighwayTraffic` on the batched simulator: the same episodes for the same seeds, many times faster.

    Arguments, controls and ends of an episode are those of `HighwayTraffic`.

    Args:
        environment: One of `BATCHED`.
        vehicles, lanes, density, duration_s, dt_s, desired_speed_mps, reactive, mixed: As for `HighwayTraffic`.
        dtype: float64 is equal to highway-env, float32 faster.
        device: Where to run.

    Raises:
        InputError: A value is out of range, or the environment is not known.
    """

    def __init__(
        self,
        environment: str = "highway-v0",
        vehicles: int | None = None,
        lanes: int | None = None,
        density: float | None = None,
        duration_s: float = 30.0,
        dt_s: float = 0.1,
        desired_speed_mps: float = 30.0,
        reactive: bool = False,
        mixed: bool = False,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        check_desired_speed(desired_speed_mps)
        self.scenario = scenario_of(environment, vehicles, lanes, density, duration_s, dt_s)
        self.simulator = BatchedHighway(environment, self.scenario.highway_config(), dtype, device)
        self.desired_speed_mps, self.name, self.dt_s = desired_speed_mps, environment, dt_s
        self.reactive, self.mixed = reactive, mixed
        through = through_lanes(self.simulator.network)
        self._road = road_of(through).to(device)
        self._lanes = RoadLanes.of(self.simulator.lanes, through)
        self._announced: Tensor | None = None
        self._ended = torch.zeros(0, dtype=torch.bool)
        self._steps = 0

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process gets the same traffic, not the episodes that run here."""
        of, simulator = self.scenario, self.simulator
        given = (of.environment, of.vehicles, of.lanes, of.density, of.duration_s, of.dt_s, self.desired_speed_mps)
        return type(self), (*given, self.reactive, self.mixed, simulator.dtype, str(simulator.device))

    def reset(self, seeds: Sequence[int]) -> LockstepStart:
        """Start one episode per seed of highway-env."""
        self.simulator.reset([int(seed) for seed in seeds])
        if self.mixed:
            mix_drivers(self.simulator, seeds)
        self._announced = None
        self._ended = torch.zeros(len(seeds), dtype=torch.bool, device=self.simulator.device)
        self._steps = 0
        return start_of(self._state(), Road.batch([self._road] * len(seeds)), self.desired_speed_mps, seeds)

    def step(self, controls: Controls | None) -> LockstepStep:
        """Advance every episode that is not over; `controls` in our frame, steering positive to the left."""
        if controls is None:
            raise InputError(f"driver 'human': {self.name} has no recorded ego; drive it with another driver")
        simulator, before = self.simulator, self.simulator.scene
        if self.reactive:
            simulator.show(self._target_lane(), torch.full_like(before.x_m[:, 0], self.desired_speed_mps))
        held = within_limits(controls, before.speed_mps[:, 0], self.dt_s)
        scene = simulator.drive(held.acceleration_mps2, -held.steering_rad)
        simulator.scene = before.where(self._ended, scene) if bool(self._ended.any()) else scene
        self._steps += 1
        late = self._steps * self.dt_s >= self.scenario.duration_s - 1e-6
        running, crashed = ~self._ended, simulator.scene.crashed[:, 0]
        off_road = ~simulator.on_road
        if self.name in ENDLESS:
            completed = torch.full_like(crashed, late)
        else:
            completed = ~crashed & (simulator.scene.x_m[:, 0] > simulator.end_m)
        timed_out = ~completed & late
        collided, off_road, completed, timed_out = (e & running for e in (crashed, off_road, completed, timed_out))
        self._ended = self._ended | collided | off_road | completed | timed_out
        dtype = torch.get_default_dtype()
        return LockstepStep(
            self._state(),
            held.map(lambda values: values.to(dtype)),
            collided,
            off_road,
            completed,
            timed_out,
            unpushed=self._unpushed(before, collided),
        )

    @property
    def ended(self) -> Tensor:
        """Bool `(batch,)`: episodes that are over."""
        return self._ended

    def announce(self, lane: Tensor | None) -> None:
        """The lane of the road `(batch,)` that the ego steers for, which others see where the traffic is reactive."""
        self._announced = lane

    def intents(self) -> Intents:
        """What everyone in fact is about to do; of the road's lanes, `(batch, agent)`."""
        scene = self.simulator.scene
        limit = self.simulator.lanes.limit_mps.take(scene.lane)
        dtype = torch.get_default_dtype()
        return Intents(
            self._lanes.number()[scene.target_lane], scene.target_speed_mps.minimum(limit).clamp_min(0.0).to(dtype)
        )

    def _target_lane(self) -> Tensor:
        """The simulator's lane that the ego steers for, `(episode,)`: the one announced, where it runs beside it."""
        own = self.simulator.scene.lane[:, 0]
        return self.lane_announced(self._announced, own)

    def lane_announced(self, wanted: Tensor | None, own: Tensor) -> Tensor:
        """The simulator's lane of the road's lane `wanted (row,)`; where that does not run beside it, `own (row,)`."""
        return self._lanes.announced(wanted, own)

    def _unpushed(self, before: Scene, collided: Tensor) -> TrafficState | None:
        """The scene as it were without this step's impacts, in the episodes that `collided (episode,)` by one."""
        pushed = (collided & before.struck[:, 0])[:, None]
        if not bool(pushed.any()):
            return None
        now = self.simulator.scene
        return self._state(
            now.but(x_m=now.x_m - before.impact_x_m * pushed, y_m=now.y_m - before.impact_y_m * pushed),
        )

    def _state(self, scene: Scene | None = None) -> TrafficState:
        scene = self.simulator.scene if scene is None else scene
        return state_of(scene, len(self.simulator.obstacles), torch.get_default_dtype())


def state_of(scene: Scene, obstacles: int, dtype: torch.dtype) -> TrafficState:
    """The scene in our frame: +y to the left, headings within ±pi; its last `obstacles` agents are obstacles."""
    valid = scene.vehicle.clone()
    if obstacles:
        valid[:, -obstacles:] = True
    nothing = torch.zeros_like(scene.x_m)
    position = torch.stack([scene.x_m, -scene.y_m], -1).where(valid[..., None], nothing[..., None])
    length, width = nothing + 5.0, nothing + 2.0
    if obstacles:
        length[:, -obstacles:] = 2.0
    return TrafficState(
        position_m=position.to(dtype),
        heading_rad=scene.heading_to_the_left_rad.to(dtype),
        speed_mps=scene.speed_mps.to(dtype),
        length_m=length.to(dtype),
        width_m=width.to(dtype),
        valid=valid,
    )
