"""Recorded traffic as a gymnasium environment with one episode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from drivecast.envs.highway.simulator import check_finite
from drivecast.envs.lockstep import LockstepStep
from drivecast.envs.recorded.config import RecordedTrafficConfig
from drivecast.envs.recorded.traffic import RecordedTraffic
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.kinematics import wrapped
from drivecast.worldmodel.scene.lane_neighbours import nearest_agents
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState, along_and_left

MOST_ACCELERATION_MPS2 = 6.0  # an action of 1
MOST_STEERING_RAD = 0.3
NEIGHBOURS = 12
OWN: tuple[str, ...] = (
    "speed / 30 m/s",
    "desired speed / 30 m/s",
    "across the lane / 4 m",
    "heading to the lane, rad",
    "lane width / 4 m",
)
OTHER: tuple[str, ...] = (
    "1 if there",
    "ahead / 50 m",
    "left / 50 m",
    "velocity ahead / 30 m/s",
    "velocity left / 30 m/s",
    "cosine of the heading",
    "sine of the heading",
    "length / 10 m",
    "width / 10 m",
)
LIMIT = 10.0  # observations are held within this


class RecordedTrafficEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """`RecordedTraffic` for gymnasium: drive one recorded vehicle while the others replay.

    Action: `Box(-1, 1, (2,))`, acceleration in units of 6 m/s² and steering in units of 0.3 rad, left positive.
    Observation: `Box(-10, 10, (5 + 12 * 9,))`: `OWN`, then for each of the 12 nearest vehicles `OTHER`, relative to the
    ego and in its frame; zeros where there are fewer.
    Reward: the share of the task covered in this step (they add up to 1), and -1 for a contact or leaving the road.
    Terminated by contact, leaving the road or completion; truncated when the clock or the recording ends.
    `info` holds `outcome` and `progress`, and after a reset the task (`recording`, `vehicle_id`, ...).

    Args:
        data: Recording store, or several.
        split: Part of it: train, val, test or all.
        config: Recorded traffic.
        render_mode: Only None; use `drivecast replay` to look at episodes.
    """

    metadata = {"render_modes": [], "render_fps": 10}  # noqa: RUF012

    def __init__(
        self,
        data: Path | str | list[Path | str] | None = None,
        split: str = "train",
        config: RecordedTrafficConfig | None = None,
        render_mode: None = None,
    ) -> None:
        if not data:
            raise InputError("data: RecordedTraffic needs a recording store; give data=DIR, made by `drivecast ingest`")
        folders = [Path(folder) for folder in (data if isinstance(data, list) else [data])]
        self.traffic = RecordedTraffic.open(folders, split, config)
        self.render_mode = render_mode
        self.action_space, self.observation_space = spaces()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start with a vehicle drawn by the environment's random numbers, or `options={"vehicle": n}`, n as a seed of
        `RecordedTraffic`."""
        super().reset(seed=seed)
        drawn = int(self.np_random.integers(self.traffic.count))
        start = self.traffic.reset([(options or {}).get("vehicle", drawn)])
        self._road, self._goal = start.road, start.goal
        self._progress = 0.0
        return observation(start.history[:, -1], start.road, start.goal), dict(start.task[0])

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step of the recording's time.

        Raises:
            InputError: The action is not two finite numbers.
        """
        step = self.traffic.step(controls_of(action))
        assert step.progress is not None
        progress = float(step.progress)
        failed = bool(step.collided) or bool(step.off_road)
        reward = progress - self._progress - float(failed)
        self._progress = progress
        info = {"outcome": outcome_of(step), "progress": progress}
        seen = observation(step.state, self._road, self._goal)
        return seen, reward, failed or bool(step.completed), bool(step.timed_out), info


def spaces() -> tuple[gymnasium.spaces.Box, gymnasium.spaces.Box]:
    """Of actions, and of what `observation` shows."""
    size = len(OWN) + NEIGHBOURS * len(OTHER)
    box = gymnasium.spaces.Box
    return box(-1.0, 1.0, (2,), np.float32), box(-LIMIT, LIMIT, (size,), np.float32)


def controls_of(action: np.ndarray) -> Controls:
    """The controls `(1,)` that an action asks for.

    Raises:
        InputError: It is not two finite numbers.
    """
    if np.shape(action) != (2,):
        raise InputError(f"action: expected the shape (2,), got {np.shape(action)}")
    check_finite(action)
    forward, left = (float(value) for value in np.clip(action, -1.0, 1.0))
    return Controls(torch.tensor([forward * MOST_ACCELERATION_MPS2]), torch.tensor([left * MOST_STEERING_RAD]))


def outcome_of(step: LockstepStep) -> str:
    """How the one episode of `step` ended; empty while it goes on."""
    events = {
        "collision": step.collided,
        "off_road": step.off_road,
        "completed": step.completed,
        "timed_out": step.timed_out,
    }
    return next((name for name, event in events.items() if bool(event)), "")


def observation(state: TrafficState, road: Road, goal: Goal) -> np.ndarray:
    """What `RecordedTrafficEnv` shows of a scene `(1, agent)`."""
    near = nearest_agents(state, NEIGHBOURS)
    ego = near[:, :1]
    there = road.project(ego.position_m)
    own = torch.stack(
        [
            ego.speed_mps[0, 0] / 30,
            goal.desired_speed_mps[0] / 30,
            there.across_m[0, 0] / 4,
            wrapped(ego.heading_rad - there.heading_rad)[0, 0],
            there.width_m[0, 0] / 4,
        ]
    )
    ahead, left = along_and_left(near.position_m - ego.position_m, ego.direction)
    faster, drifting = along_and_left(near.velocity_mps - ego.velocity_mps, ego.direction)
    turn = near.heading_rad - ego.heading_rad
    others = torch.stack(
        [
            near.valid.to(ahead),
            ahead / 50,
            left / 50,
            faster / 30,
            drifting / 30,
            turn.cos(),
            turn.sin(),
            near.length_m / 10,
            near.width_m / 10,
        ],
        -1,
    )
    others = (others * near.valid[..., None])[0, 1:]
    padded = torch.zeros(NEIGHBOURS, len(OTHER))
    padded[: len(others)] = others
    return torch.cat([own, padded.flatten()]).clamp(-LIMIT, LIMIT).numpy().astype(np.float32)
