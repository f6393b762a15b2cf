"""highway-env's environments as one `gymnasium.vector.VectorEnv`, all episodes stepped together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from drivecast.envs.batched.observation import Kinematics, KinematicsConfig
from drivecast.envs.batched.simulator import BatchedHighway
from drivecast.worldmodel.errors import InputError

Flags = NDArray[np.bool_]
ONLY_ACTION_OPTIONS = {  # of highway-env's `config["action"]`: the one value that is supported
    "longitudinal": True,
    "lateral": True,
    "dynamical": False,
    "clip": True,
    "speed_range": None,
}


class BatchedHighwayVectorEnv(VectorEnv):
    """What `gymnasium.vector.SyncVectorEnv` of highway-env's `environment` gives, computed in one batch.

    Same spaces, observations, rewards and ends for the same seeds and actions (in float64: from float32 controls
    highway-env computes the ego's speed and heading in float32). Episode `i` has a random generator of its own, seeded
    `seed + i`; an episode that is begun without a seed goes on drawing from it. `infos` has `speed` (m/s) and `crashed`
    of the egos, with gymnasium's masks `_speed` and `_crashed`.

    Args:
        num_envs: Number of episodes at a time.
        environment: highway-env's name, one of `drivecast.envs.batched.simulator.SPAWNS`.
        config: Overrides of highway-env's configuration.
        autoreset_mode: When an episode that has ended begins anew: with the next step, whose action is ignored
            (gymnasium's default), within the same step (`infos` then has `final_obs` and `final_info`), or not at all:
            by `reset(options={"reset_mask": mask})`.
        max_episode_steps: Decisions after which an episode is truncated. None: only highway-env's `duration` counts.
        dtype: float64 is equal to highway-env, float32 faster on accelerators.
        device: Where to run.

    Raises:
        InputError: The environment, or something that its configuration asks for, is not supported.
    """

    def __init__(
        self,
        num_envs: int = 1,
        environment: str = "highway-v0",
        config: dict[str, Any] | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
        render_mode: str | None = None,
    ) -> None:
        if num_envs < 1:
            raise InputError(f"num_envs: expected 1 or more, got {num_envs}")
        if render_mode is not None:
            raise InputError(f"render_mode: expected None, got {render_mode!r}; render with highway-env itself")
        # before highway-env meets them, which would fail in its own words
        _check_action((config or {}).get("action", {}))
        observation = KinematicsConfig.of((config or {}).get("observation", {"type": "Kinematics"}))
        self.simulator = BatchedHighway(environment, config, dtype, device)
        self.observation = Kinematics(observation, self.simulator.lanes, len(self.simulator.obstacles))
        self.num_envs, self.max_episode_steps = num_envs, max_episode_steps
        try:
            self.autoreset_mode = AutoresetMode(autoreset_mode)
        except ValueError:
            modes = ", ".join(mode.value for mode in AutoresetMode)
            raise InputError(f"autoreset_mode: expected one of {modes}; got {autoreset_mode!r}") from None
        self.metadata = {"autoreset_mode": self.autoreset_mode, "render_modes": []}
        self.single_observation_space = spaces.Box(-np.inf, np.inf, self.observation.shape, np.float32)
        self.single_action_space: spaces.Space
        if self.simulator.discrete:
            self.single_action_space = spaces.Discrete(5)
        else:
            self.single_action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._generators: list[np.random.Generator | None] = [None] * num_envs
        self._seeds = [-1] * num_envs
        self._ended = np.zeros(num_envs, dtype=np.bool_)
        self._steps = np.zeros(num_envs, dtype=np.int64)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin all episodes, or those of `options["reset_mask"]` (bool `(num_envs,)`).

        Args:
            seed: Of the first episode, the next ones have `seed + 1`, ...; or one for each. Without one, an episode
                goes on with its generator.
            options: Nothing but `reset_mask`.

        Returns:
            Observations float32 `(num_envs, vehicles_count, feature)`, infos.

        Raises:
            InputError: The number of seeds, an option or the mask is not as expected.
        """
        mask = self._reset_mask(options or {})
        if seed is None or isinstance(seed, (int, np.integer)):
            seeds = [None if seed is None else int(seed) + i for i in range(self.num_envs)]
        else:
            seeds = list(seed)
        if len(seeds) != self.num_envs:
            raise InputError(f"seed: expected one for each of {self.num_envs} environments, got {len(seeds)}")
        for number in np.flatnonzero(mask):
            if seeds[number] is not None or self._generators[number] is None:
                self._generators[number], self._seeds[number] = seeding.np_random(seeds[number])
        self._begin(mask)
        return self._observe(), self._infos(mask)

    def step(self, actions: Any) -> tuple[NDArray[np.float32], NDArray[np.float64], Flags, Flags, dict[str, Any]]:
        """One decision in every episode.

        Args:
            actions: As in `action_space`: long `(num_envs,)` of meta-actions or float `(num_envs, 2)` in [-1, 1].

        Returns:
            Observations float32 `(num_envs, vehicles_count, feature)`, rewards, terminated, truncated, infos.

        Raises:
            InputError: `reset` was not called, or the actions are not of `action_space`.
        """
        if self._generators[0] is None or not self.simulator.episodes:
            raise InputError("step: expected reset() before the first step; call reset(seed=...)")
        action = self._action(actions)
        everyone = np.ones(self.num_envs, dtype=np.bool_)
        ended = self._ended.copy()
        if self.autoreset_mode == AutoresetMode.DISABLED and ended.any():
            raise InputError(
                f"step: environment {int(ended.argmax())} has ended; call reset(options={{'reset_mask': mask}}) first"
            )
        if ended.all():  # gymnasium's NEXT_STEP: this step only begins the episodes anew
            self._begin(ended)
            no = np.zeros(self.num_envs, dtype=np.bool_)
            return self._observe(), np.zeros(self.num_envs), no, no.copy(), self._infos(everyone)
        with torch.no_grad():
            step = self.simulator.step(action)
        self._steps += 1
        rewards = step.reward.cpu().numpy().astype(np.float64)
        terminated, truncated = step.terminated.cpu().numpy().copy(), step.truncated.cpu().numpy().copy()
        if self.max_episode_steps is not None:
            truncated |= self._steps >= self.max_episode_steps
        if ended.any():
            self._begin(ended)
            rewards[ended], terminated[ended], truncated[ended] = 0.0, False, False
        self._ended = terminated | truncated
        infos: dict[str, Any] = {}
        observations = self._observe()
        if self.autoreset_mode == AutoresetMode.SAME_STEP and self._ended.any():
            over = self._ended.copy()
            final = np.full(self.num_envs, None, dtype=object)
            for number in np.flatnonzero(over):
                final[number] = observations[number]
            infos = {
                "final_obs": final,
                "_final_obs": over,
                "final_info": self._infos(over),
                "_final_info": over.copy(),
            }
            self._begin(over)
            observations = np.where(over[:, None, None], self._observe(), observations)
        return observations, rewards, terminated, truncated, {**infos, **self._infos(everyone)}

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The episodes' generators, as gymnasium's own vector environments give them."""
        for number, generator in enumerate(self._generators):
            if generator is None:
                self._generators[number], self._seeds[number] = seeding.np_random()
        return tuple(generator for generator in self._generators if generator is not None)

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """What the episodes' generators were seeded with."""
        return tuple(self._seeds) if len(self.np_random) else ()

    def _begin(self, mask: Flags) -> None:
        """Start the episodes of `mask` from their generators."""
        numbers = np.flatnonzero(mask)
        own = self.np_random
        generators = [own[number] for number in numbers]
        which = None
        if len(numbers) == self.num_envs:
            self.simulator.reset(generators)
        else:
            which = torch.as_tensor(numbers, device=self.simulator.device)
            self.simulator.restart(which, generators)
        self.observation.start(self.simulator.scene, which)
        self._ended[mask], self._steps[mask] = False, 0

    def _observe(self) -> NDArray[np.float32]:
        with torch.no_grad():
            return self.observation.observe(self.simulator.scene).cpu().numpy()

    def _infos(self, mask: Flags) -> dict[str, Any]:
        scene = self.simulator.scene
        speed = scene.speed_mps[:, 0].cpu().numpy().astype(np.float64)
        crashed = scene.crashed[:, 0].cpu().numpy()
        return {
            "speed": np.where(mask, speed, 0.0),
            "_speed": mask.copy(),
            "crashed": crashed & mask,
            "_crashed": mask.copy(),
        }

    def _action(self, actions: Any) -> torch.Tensor:
        action = np.asarray(actions)
        if action.shape != self.action_space.shape:
            raise InputError(f"actions: expected the shape {self.action_space.shape}, got {action.shape}")
        if self.simulator.discrete:
            if action.dtype.kind not in "iu" or action.min() < 0 or action.max() > 4:
                raise InputError(f"actions: expected whole numbers from 0 to 4, got {action.tolist()[:5]}")
            action = action.astype(np.int64)
        elif action.dtype.kind not in "fiu" or not np.isfinite(action).all():
            raise InputError(f"actions: expected finite numbers, got {action.dtype} with {action.tolist()[:2]}")
        return torch.as_tensor(action, device=self.simulator.device)

    def _reset_mask(self, options: dict[str, Any]) -> Flags:
        unknown = [name for name in options if name != "reset_mask"]
        if unknown:
            raise InputError(
                f"options: expected nothing but reset_mask, got {', '.join(unknown)}; give config to the constructor"
            )
        if "reset_mask" not in options:
            return np.ones(self.num_envs, dtype=np.bool_)
        mask = np.asarray(options["reset_mask"])
        if mask.dtype != np.bool_ or mask.shape != (self.num_envs,) or not mask.any():
            raise InputError(
                f"options: expected a reset_mask of {self.num_envs} bools, one or more of them true; "
                f"got {mask.dtype} {mask.shape}"
            )
        if not self.simulator.episodes and not mask.all():
            raise InputError("options: expected a first reset() of all environments before one with a reset_mask")
        return mask


def _check_action(config: dict[str, Any]) -> None:
    for name, only in ONLY_ACTION_OPTIONS.items():
        if config.get(name, only) != only:
            raise InputError(f"action {name}: expected {only}, got {config[name]}; use highway-env itself")
