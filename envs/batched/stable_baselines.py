"""The batched highway-env for Stable-Baselines3 (`pip install drivecast[baselines]`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from drivecast.envs.batched.vector_env import BatchedHighwayVectorEnv
from drivecast.worldmodel.errors import InputError

try:
    from stable_baselines3.common.vec_env import VecEnv
except ImportError as error:
    raise InputError(
        "stable-baselines3 is not installed; install it by `pip install 'drivecast[baselines]'`"
    ) from error


class BatchedHighwayVecEnv(VecEnv):
    """Stable-Baselines3's view of a `BatchedHighwayVectorEnv`; give it to `PPO`, `DQN` and the like as their `env`.

    An episode that ends begins anew within the same step; its info then has `terminal_observation`, and
    `TimeLimit.truncated` says whether it only ran out of time. All infos have `speed` (m/s) and `crashed`.

    Args:
        environments: With the autoreset mode `SAME_STEP`.

    Raises:
        InputError: The autoreset mode is another one.
    """

    def __init__(self, environments: BatchedHighwayVectorEnv) -> None:
        if environments.autoreset_mode != AutoresetMode.SAME_STEP:
            raise InputError(
                f"autoreset_mode: expected SameStep, got {environments.autoreset_mode.value}; "
                "make the environments with autoreset_mode='SameStep'"
            )
        self.environments = environments
        self._actions: NDArray[Any] | None = None
        super().__init__(environments.num_envs, environments.single_observation_space, environments.single_action_space)

    @staticmethod
    def make(
        num_envs: int, environment: str = "highway-v0", config: dict[str, Any] | None = None, **settings: Any
    ) -> BatchedHighwayVecEnv:
        """`num_envs` episodes of highway-env's `environment`; `settings` as of `BatchedHighwayVectorEnv`."""
        environments = BatchedHighwayVectorEnv(
            num_envs, environment, config, autoreset_mode=AutoresetMode.SAME_STEP, **settings
        )
        return BatchedHighwayVecEnv(environments)

    def reset(self) -> NDArray[np.float32]:
        """Begin all episodes, with the seeds of the last call of `seed`, if there was one since."""
        observations, infos = self.environments.reset(seed=self._seeds)
        self.reset_infos = _by_environment(infos)
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the `actions (num_envs, ...)` for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Observations, rewards, which episodes ended, and one info for each."""
        observations, rewards, terminated, truncated, infos = self.environments.step(self._actions)
        over = terminated | truncated
        by_environment = _by_environment(infos)
        timed_out = (truncated & ~terminated).tolist()
        for info, late in zip(by_environment, timed_out, strict=True):
            info["TimeLimit.truncated"] = late
        for number in np.flatnonzero(over):
            ended, begun = by_environment[number], {name: by_environment[number][name] for name in ("speed", "crashed")}
            self.reset_infos[number] = begun
            ended["terminal_observation"] = infos["final_obs"][number]
            ended["speed"] = float(infos["final_info"]["speed"][number])
            ended["crashed"] = bool(infos["final_info"]["crashed"][number])
        return observations, rewards.astype(np.float32), over, by_environment

    def close(self) -> None:
        """Nothing is held open."""
        self.environments.close()

    def get_attr(self, attr_name: str, indices: int | Iterable[int] | None = None) -> list[Any]:
        """The same attribute of the whole batch, once for each of `indices`."""
        value = getattr(self.environments, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: int | Iterable[int] | None = None) -> None:
        """Refused: the environments are one batch and share what they have."""
        raise InputError(f"{attr_name}: expected to be set when the environments are made; give it to the constructor")

    def env_method(
        self, method_name: str, *method_args: Any, indices: int | Iterable[int] | None = None, **method_kwargs: Any
    ) -> list[Any]:
        """Refused: there are no single environments to ask."""
        raise InputError(f"{method_name}: expected a method of single environments; these are one batch and have none")

    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper], indices: int | Iterable[int] | None = None
    ) -> list[bool]:
        """Nobody is wrapped."""
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[None]:
        """Nothing is drawn."""
        return [None] * self.num_envs


def _by_environment(infos: dict[str, Any]) -> list[dict[str, Any]]:
    """One dict for each environment instead of one array for each name."""
    speeds, crashed = infos["speed"].tolist(), infos["crashed"].tolist()
    return [{"speed": speed, "crashed": crash} for speed, crash in zip(speeds, crashed, strict=True)]
