"""Imagined traffic as a gymnasium environment with one episode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from drivecast.envs.imagined.config import ImaginedTrafficConfig
from drivecast.envs.imagined.traffic import ImaginedTraffic
from drivecast.envs.recorded.gym import controls_of, observation, outcome_of, spaces
from drivecast.worldmodel.errors import InputError


class ImaginedTrafficEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """`ImaginedTraffic` for gymnasium: drive one vehicle while a world model moves the others.

    Actions and observations are those of `RecordedTrafficEnv`.
    Reward: the distance driven in this step over the distance at the desired speed through the whole episode (so 1 for
    who drives at that speed to the end), and -1 for a contact or leaving the road.
    Terminated by contact or leaving the road; truncated when the episode has lasted its time.
    `info` holds `outcome`, and after a reset the task (`recording`, `vehicle_id`, `start_s`).

    Args:
        model: World model: a file, or the folder that holds it.
        data: Recording store, or several: episodes begin at their scenes.
        split: Part of it: train, val, test or all.
        config: Imagined traffic.
        render_mode: Only None; use `drivecast replay` to look at episodes.
    """

    metadata = {"render_modes": [], "render_fps": 10}  # noqa: RUF012

    def __init__(
        self,
        model: Path | str | None = None,
        data: Path | str | list[Path | str] | None = None,
        split: str = "train",
        config: ImaginedTrafficConfig | None = None,
        render_mode: None = None,
    ) -> None:
        if not model:
            raise InputError(
                "model: ImaginedTraffic needs a world model; give model=PATH, made by `drivecast train-world-model`"
            )
        if not data:
            raise InputError("data: ImaginedTraffic needs a recording store; give data=DIR, made by `drivecast ingest`")
        folders = [Path(folder) for folder in (data if isinstance(data, list) else [data])]
        self.traffic = ImaginedTraffic.open(model, folders, split, config)
        self.render_mode = render_mode
        self.action_space, self.observation_space = spaces()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Start the episode that the environment's random numbers choose, or `options={"episode": n}`, n as a seed of
        `ImaginedTraffic`."""
        super().reset(seed=seed)
        drawn = int(self.np_random.integers(2**31))
        start = self.traffic.reset([(options or {}).get("episode", drawn)])
        self._road, self._goal = start.road, start.goal
        self._at_m = start.history.position_m[0, -1, 0]
        return observation(start.history[:, -1], start.road, start.goal), dict(start.task[0])

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step of the model's time.

        Raises:
            InputError: The action is not two finite numbers.
        """
        step = self.traffic.step(controls_of(action))
        driven_m = float((step.state.position_m[0, 0] - self._at_m).norm())
        self._at_m = step.state.position_m[0, 0]
        failed = bool(step.collided) or bool(step.off_road)
        whole_m = float(self._goal.desired_speed_mps) * self.traffic.config.duration_s
        seen = observation(step.state, self._road, self._goal)
        return seen, driven_m / whole_m - failed, failed, bool(step.completed), {"outcome": outcome_of(step)}
