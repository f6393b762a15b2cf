"""One recorded episode of highway-env: who drives the ego, what varies, and the tracks it leaves."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from multiprocessing import get_context
from typing import Any

import numpy as np
import pandas as pd

from envs.highway_road import ThroughLane, through_lanes
from envs.highway_simulator import HighwayScenario, make_simulator, read_state, road_users
from envs.recording_drivers import BEHAVIOURS, CLASSES, OtherCar, desired_speed, vary_driver
from worldmodel.recordings.lane import Lane
from worldmodel.recordings.recording import Recording

EGO_ID = 0
USUAL_LANES_SHARE = 0.6  # of the episodes have the middle number of lanes
FROM_THE_PACK_SHARE = 0.5  # of the egos start in the place of any car; highway-env puts its ego behind them all
VARIED_DRIVERS_SHARE = 0.5  # of the episodes have other cars that differ in more than highway-env's own exponent
STRAIGHT = ("highway-", "merge-")  # cars of the main road may trade places; on the others each has its own route
COUNTED = ("highway-", "merge-generic-")  # take a number of cars and lanes


@dataclass(frozen=True)
class RecordingPlan:
    """What is recorded; the same plan gives the same episodes, whoever runs them and in whichever order.

    Attributes:
        environment: highway-env's name.
        seed: Of all episodes together; episode i draws from (seed, i).
        duration_s: Longest an episode is recorded, s.
        vehicles: Range of the number of other cars.
        lanes: Range of the number of lanes; the middle of it is drawn more often.
        density: Range of highway-env's traffic density.
        speed_scale: Range of the factor on the other cars' initial and desired speeds, one per episode.
        desired_speed_mps: Range of the speed that egos want, m/s.
        dt_s: Time step, s.
    """

    environment: str
    seed: int
    duration_s: float
    vehicles: tuple[int, int]
    lanes: tuple[int, int]
    density: tuple[float, float]
    speed_scale: tuple[float, float]
    desired_speed_mps: tuple[float, float]
    dt_s: float = 0.1


@dataclass(frozen=True)
class RecordedEpisode:
    """One episode in our frame: what becomes a `Recording`, and who drove how.

    Attributes:
        name: Of the recording.
        tracks: Columns of equal length, ordered by (vehicle, time); the ego is vehicle 0.
        controls: `(step, 2)`, the ego's acceleration in m/s² and steering in rad; step i leads from frame i to i + 1.
        lanes: Of the road.
        ended: "time", "collision", "off_road" or "completed".
        behaviour: Of the ego, one of `BEHAVIOURS`.
        dt_s: Time step, s.
    """

    name: str
    tracks: dict[str, np.ndarray]
    controls: np.ndarray
    lanes: list[ThroughLane]
    ended: str
    behaviour: str
    dt_s: float

    def recording(self) -> Recording:
        """Tracks and lanes; lane 1 is the leftmost."""
        lanes = tuple(
            Lane(
                lane_id=number,
                centre_m=lane.centre_m,
                width_m=lane.width_m,
                speed_limit_mps=lane.speed_limit_mps,
                left=lane.left + 1,
                right=lane.right + 1,
                open_start=lane.open_start,
                open_end=lane.open_end,
            )
            for number, lane in enumerate(self.lanes, 1)
        )
        about = {"ended": self.ended, "behaviour": self.behaviour}
        return Recording(self.name, pd.DataFrame(self.tracks), lanes, about)

    def drive(self) -> pd.DataFrame:
        """The ego's controls at the times at which they were given."""
        count = len(self.controls)
        return pd.DataFrame(
            {
                "recording": np.full(count, self.name),
                "vehicle_id": np.full(count, EGO_ID),
                "time_s": (np.arange(count) * self.dt_s).round(6),
                "acceleration_mps2": self.controls[:, 0],
                "steering_rad": self.controls[:, 1],
            }
        )


def record_episodes(plan: RecordingPlan, episodes: int, workers: int) -> Iterator[RecordedEpisode]:
    """Episodes 0 to `episodes - 1` in this order, run by `workers` processes (1: in this one)."""
    record = partial(record_episode, plan)
    if workers == 1:
        yield from map(record, range(episodes))
        return
    # spawned, not forked: the caller may hold threads (a tracking client, torch) whose locks a fork would copy
    pool = ProcessPoolExecutor(workers, get_context("spawn"))
    try:
        with _interrupts_ignored():  # inherited by the processes: Ctrl-C is the caller's to handle
            recorded = pool.map(record, range(episodes))
        yield from recorded
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set signals, and only it is interrupted
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def record_episode(plan: RecordingPlan, index: int) -> RecordedEpisode:
    """Run episode `index` of the plan until the ego crashes, leaves the road or the section, or time is up."""
    draw = np.random.default_rng([plan.seed, index])
    scenario, density = _draw_scenario(plan, draw)
    simulator = _simulator(scenario)
    if density is not None:
        simulator.config["vehicles_density"] = density
    simulator.reset(seed=int(draw.integers(2**31)))
    behaviour = str(draw.choice(list(BEHAVIOURS), p=np.array(list(BEHAVIOURS.values()))))
    _cast(simulator, plan, behaviour, draw)
    lanes = through_lanes(simulator.road.network)
    lane_number = {segment: number for number, lane in enumerate(lanes, 1) for segment in lane.segments}
    users = road_users(simulator)
    states, lane_ids, controls = [read_state(users)], [[lane_number[u.lane_index] for u in users]], []
    ended = "time"
    for _ in range(round(plan.duration_s / plan.dt_s)):
        *_, terminated, _, _ = simulator.step(None)
        ego = simulator.vehicle
        controls.append((ego.action["acceleration"], -ego.action["steering"]))
        states.append(read_state(users))
        lane_ids.append([lane_number[u.lane_index] for u in users])
        ended = "collision" if ego.crashed else "off_road" if not ego.on_road else "completed" if terminated else ended
        if ended != "time":
            break
    name = f"{plan.environment}-{index:05d}"
    return RecordedEpisode(
        name=name,
        tracks=_tracks(np.stack(states), np.array(lane_ids), users, plan.dt_s),
        controls=np.array(controls),
        lanes=lanes,
        ended=ended,
        behaviour=behaviour,
        dt_s=plan.dt_s,
    )


def _draw_scenario(plan: RecordingPlan, draw: np.random.Generator) -> tuple[HighwayScenario, float | None]:
    vehicles = int(draw.integers(plan.vehicles[0], plan.vehicles[1] + 1))
    low, high = plan.lanes
    lanes = (low + high) // 2 if draw.random() < USUAL_LANES_SHARE else int(draw.integers(low, high + 1))
    density = float(draw.uniform(*plan.density))
    scenario = HighwayScenario(plan.environment, duration_s=plan.duration_s, dt_s=plan.dt_s)
    if not plan.environment.startswith(COUNTED):
        return scenario, None
    scenario = replace(scenario, vehicles=vehicles, lanes=lanes)
    return scenario, density if plan.environment.startswith("highway") else None


@lru_cache(maxsize=64)
def _simulator(scenario: HighwayScenario) -> Any:
    kind = f"{OtherCar.__module__}.{OtherCar.__qualname__}"
    return make_simulator(scenario, other_vehicles_type=kind)


def _cast(simulator: Any, plan: RecordingPlan, behaviour: str, draw: np.random.Generator) -> None:
    """Put the recorded ego in the place of highway-env's, and vary the other cars."""
    road, old = simulator.road, simulator.vehicle
    others = [vehicle for vehicle in road.vehicles if vehicle is not old]
    road.steps_per_s = 1 / plan.dt_s
    scale = draw.uniform(*plan.speed_scale)
    varied = draw.random() < VARIED_DRIVERS_SHARE
    for vehicle in others:
        vehicle.speed *= scale
        vehicle.target_speed *= scale
        if varied:
            vary_driver(vehicle, draw)
    position, heading, speed = old.position.copy(), old.heading, old.speed
    if others and plan.environment.startswith(STRAIGHT) and draw.random() < FROM_THE_PACK_SHARE:
        partner = others[draw.integers(len(others))]
        position, partner.position = partner.position.copy(), position
        heading, partner.heading = partner.heading, heading
        partner.on_state_update()
        partner.target_lane_index = partner.lane_index
    wanted = desired_speed(behaviour, plan.desired_speed_mps, draw)
    speed *= draw.uniform(0.75, 1.1)
    ego = CLASSES[behaviour](road, position, heading, speed, target_speed=wanted, draw=draw, dt_s=plan.dt_s)
    road.vehicles[road.vehicles.index(old)] = ego
    ego.check_collisions = old.check_collisions
    simulator.vehicle = ego


def _tracks(states: np.ndarray, lane_ids: np.ndarray, users: list[Any], dt_s: float) -> dict[str, np.ndarray]:
    """`states (time, agent, 6)` as tidy columns. Acceleration looks back, so that no frame tells of the next."""
    time, agents, _ = states.shape
    by_agent = states.transpose(1, 0, 2).reshape(agents * time, 6)
    speed = states[..., 3].T
    acceleration = np.diff(speed, axis=1, prepend=speed[:, :1]) / dt_s
    kinds = np.array(["car" if hasattr(user, "clip_actions") else "obstacle" for user in users])
    return {
        "vehicle_id": np.repeat(np.arange(agents), time),
        "time_s": np.tile(np.arange(time) * dt_s, agents).round(6),
        "x_m": by_agent[:, 0],
        "y_m": by_agent[:, 1],
        "heading_rad": by_agent[:, 2],
        "length_m": by_agent[:, 4],
        "width_m": by_agent[:, 5],
        "class": np.repeat(kinds, time),
        "speed_mps": by_agent[:, 3],
        "accel_mps2": acceleration.reshape(-1),
        "lane_id": lane_ids.T.reshape(-1),
    }
