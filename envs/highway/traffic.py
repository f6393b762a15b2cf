"""highway-env's traffic as closed-loop episodes in lockstep, driven with continuous controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from drivecast.envs.highway.ego import mix_vehicles, show_ego
from drivecast.envs.highway.road import road_of, through_lanes
from drivecast.envs.highway.simulator import (
    HighwayScenario,
    make_simulator,
    read_impacts,
    read_state,
    road_users,
)
from drivecast.envs.lockstep import LockstepStart, LockstepStep
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.kinematics import within_limits
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState

ENDLESS = ("highway-v0", "highway-fast-v0")  # nothing to reach: who lasts the episode has completed it


def scenario_of(
    environment: str,
    vehicles: int | None,
    lanes: int | None,
    density: float | None,
    duration_s: float,
    dt_s: float,
) -> HighwayScenario:
    """The scenario of closed-loop episodes: 20 cars on highway-* where no number is given."""
    if vehicles is None and environment in ENDLESS:
        vehicles = 20
    return HighwayScenario(environment, vehicles, lanes, density, duration_s, dt_s)


def check_desired_speed(desired_speed_mps: float) -> None:
    """Refuse a speed that nobody can be asked for."""
    if not desired_speed_mps > 0:
        raise InputError(f"desired_speed_mps: expected a speed above zero, got {desired_speed_mps}")


def start_of(state: TrafficState, road: Road, desired_speed_mps: float, seeds: Sequence[int]) -> LockstepStart:
    """The start in `state (batch, agent)`: nothing is known of the past, and any lane will do."""
    batch, device = len(seeds), state.valid.device
    goal = Goal(
        desired_speed_mps=torch.full((batch,), desired_speed_mps, device=device),
        lane=torch.full((batch,), NO_LANE, dtype=torch.long, device=device),
    )
    task: tuple[dict[str, str | int | float], ...] = tuple({"seed": int(seed)} for seed in seeds)
    return LockstepStart(state[:, None], road, goal, task)


class HighwayTraffic:
    """One of highway-env's environments per episode, stepped side by side in this process.

    The state is complete (every vehicle, no observation in between) and in our frame; the spawn of a seed, the initial
    speeds and the other cars are highway-env's own. Controls are held within what the bicycle allows (`within_limits`).
    An episode ends when the ego crashes (highway-env counts an overlap that it predicts for the next step, too; other
    cars may crash among themselves), when its centre leaves the road, when it has done what the environment asks for
    (highway-*: lasted `duration_s`; merge-*, exit-*: reached the end of the road section), or after `duration_s`.

    highway-env's cars never change lane in front of an ego with continuous controls: it has no target speed, so their
    lane change model expects it to be braked beyond any limit. Nor do they give way to it in a lane change. Where the
    traffic is `reactive` it has both a target speed, the one it is asked for, and the lane that it announces.

    Args:
        environment: highway-env's name: `highway-v0`, `highway-fast-v0`, `merge-v1`, ...
        vehicles: Number of cars beside the ego. None: 20 on highway-*, else highway-env's own.
        lanes: Number of lanes. None: highway-env's own (highway-v0 4, highway-fast-v0 3).
        density: Of the traffic at the start, highway-env's measure. None: its own, 1.
        duration_s: Length of an episode, s.
        dt_s: Time step, s.
        desired_speed_mps: Speed the ego is asked for, m/s.
        reactive: Others see the ego's target speed and lane, as they see each other's.
        mixed: Others differ in their IDM and MOBIL, from timid to aggressive (`envs/behaviour/mixed.py`).

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
    ) -> None:
        check_desired_speed(desired_speed_mps)
        self.scenario = scenario_of(environment, vehicles, lanes, density, duration_s, dt_s)
        self.desired_speed_mps = desired_speed_mps
        self.name = environment
        self.dt_s = dt_s
        self.reactive, self.mixed = reactive, mixed
        self._announced: torch.Tensor | None = None
        self._segments: list[list[tuple[Any, ...]]] = []
        self._simulators: list[Any] = []
        self._users: list[list[Any]] = []
        self._state = np.zeros((0, 0, 6))
        self._valid = np.zeros((0, 0), bool)
        self._ended = np.zeros(0, bool)
        self._steps = 0

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process gets the same traffic, not the episodes that run here."""
        scenario = self.scenario
        given = (scenario.environment, scenario.vehicles, scenario.lanes, scenario.density)
        return type(self), (*given, scenario.duration_s, self.dt_s, self.desired_speed_mps, self.reactive, self.mixed)

    def reset(self, seeds: Sequence[int]) -> LockstepStart:
        """Start one episode per seed of highway-env."""
        while len(self._simulators) < len(seeds):
            self._simulators.append(make_simulator(self.scenario))
        roads, self._users, self._segments, self._announced = [], [], [], None
        for simulator, seed in zip(self._simulators, seeds, strict=False):
            simulator.reset(seed=int(seed))
            if self.mixed:
                mix_vehicles(simulator, int(seed))
            if self.reactive:
                show_ego(simulator, self.desired_speed_mps)
            self._users.append(road_users(simulator))
            through = through_lanes(simulator.road.network)
            self._segments.append([tuple(lane.segments) for lane in through])
            roads.append(road_of(through))
        agents = max(len(users) for users in self._users)
        self._state = np.zeros((len(seeds), agents, 6))
        self._state[..., 4:] = 1.0
        self._valid = np.zeros((len(seeds), agents), bool)
        for episode, users in enumerate(self._users):
            self._state[episode, : len(users)] = read_state(users)
            self._valid[episode, : len(users)] = True
        self._ended = np.zeros(len(seeds), bool)
        self._steps = 0
        return start_of(self._traffic_state(), Road.batch(roads), self.desired_speed_mps, seeds)

    def step(self, controls: Controls | None) -> LockstepStep:
        """Advance every episode that is not over; `controls` in our frame, steering positive to the left."""
        if controls is None:
            raise InputError(f"driver 'human': {self.name} has no recorded ego; drive it with another driver")
        held = within_limits(controls.detach(), torch.from_numpy(self._state[:, 0, 3]), self.dt_s)
        acceleration, steering = held.acceleration_mps2.numpy(), held.steering_rad.numpy()
        self._steps += 1
        out_of_time = self._steps * self.dt_s >= self.scenario.duration_s - 1e-6
        events = np.zeros((4, len(self._ended)), bool)  # collided, off_road, completed, timed_out
        impacts = np.zeros((*self._valid.shape, 2))
        for episode in np.flatnonzero(~self._ended):
            simulator, users = self._simulators[episode], self._users[episode]
            if self.reactive:
                simulator.vehicle.target_lane_index = self._target_lane(int(episode))
            if simulator.vehicle.impact is not None:
                impacts[episode, : len(users)] = read_impacts(users)
            simulator.step(np.array([acceleration[episode], -steering[episode]]))
            self._state[episode, : len(users)] = read_state(users)
            ego = simulator.vehicle
            reached_end = not ego.crashed and self._reached_end(simulator)
            completed = reached_end or (out_of_time and self.name in ENDLESS)
            events[:, episode] = (ego.crashed, not ego.on_road, completed, out_of_time and not completed)
        self._ended |= events.any(0)
        dtype = torch.get_default_dtype()
        collided, off_road, done, late = (torch.from_numpy(event.copy()) for event in events)
        return LockstepStep(
            self._traffic_state(),
            held.map(lambda values: values.to(dtype)),
            collided,
            off_road,
            done,
            late,
            unpushed=self._traffic_state(impacts) if impacts.any() else None,
        )

    def announce(self, lane: torch.Tensor | None) -> None:
        """The lane of the road `(batch,)` that the ego steers for, which others see where the traffic is reactive."""
        self._announced = lane

    def _target_lane(self, episode: int) -> Any:
        """The lane announced, where it runs beside the ego; else its own."""
        own = self._simulators[episode].vehicle.lane_index
        number = NO_LANE if self._announced is None else int(self._announced[episode])
        if number == NO_LANE:
            return own
        return next((index for index in self._segments[episode][number] if index[:2] == own[:2]), own)

    def _reached_end(self, simulator: Any) -> bool:
        if self.name in ENDLESS:
            return False
        if self.name.startswith("exit"):
            return bool(simulator._is_success())
        if self.name.startswith("roundabout"):
            return bool(simulator.vehicle.lane_index[1].endswith("r"))  # an exit road: its outer node
        return bool(simulator._is_terminated())

    def _traffic_state(self, impacts_m: np.ndarray | float = 0.0) -> TrafficState:
        """The state in our frame; with `impacts_m (episode, agent, 2)`, as it would have been without them."""
        state = torch.as_tensor(self._state, dtype=torch.get_default_dtype())
        return TrafficState(
            position_m=torch.as_tensor(self._state[..., :2] - impacts_m, dtype=state.dtype),
            heading_rad=state[..., 2].clone(),
            speed_mps=state[..., 3].clone(),
            length_m=state[..., 4].clone(),
            width_m=state[..., 5].clone(),
            valid=torch.from_numpy(self._valid.copy()),
        )
