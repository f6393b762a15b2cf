"""What a training of Stable-Baselines3 reports."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Report = Callable[[int, Mapping[str, float]], None]  # environment steps so far, measures

EPISODES_SHOWN = 100  # the measures of training are means over this many last episodes


def watch(log: Report, on_step: Report, every: int, is_to_end: Callable[[], bool]) -> Any:
    """Stable-Baselines3's callback that reports, and ends the training between two updates where it is to end."""
    from stable_baselines3.common.callbacks import BaseCallback

    class Watch(BaseCallback):
        def _on_training_start(self) -> None:
            count = self.training_env.num_envs
            self.rewards, self.lengths = np.zeros(count), np.zeros(count)
            self.episodes: deque[tuple[float, float, float]] = deque(maxlen=EPISODES_SHOWN)
            self.logged, self.started_s = 0, time.monotonic()

        def _on_step(self) -> bool:
            self.rewards += self.locals["rewards"]
            self.lengths += 1
            for number in np.flatnonzero(self.locals["dones"]):
                crashed = float(self.locals["infos"][number]["crashed"])
                self.episodes.append((self.rewards[number], self.lengths[number], crashed))
                self.rewards[number] = self.lengths[number] = 0.0
            measures: dict[str, float] = {}
            if self.episodes:
                means = np.mean(self.episodes, axis=0)
                names = ("episode_reward", "episode_length", "crash_share")
                measures = {name: float(value) for name, value in zip(names, means, strict=True)}
            on_step(self.num_timesteps, measures)
            if measures and self.num_timesteps - self.logged >= every:
                self.logged = self.num_timesteps
                rate = self.num_timesteps / max(time.monotonic() - self.started_s, 1e-9)
                values = {f"train/{name}": value for name, value in measures.items()}
                log(self.num_timesteps, {**values, "train/steps_per_s": rate})
            return not is_to_end()

    return Watch()
