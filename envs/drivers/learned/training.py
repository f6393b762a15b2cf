"""Training Stable-Baselines3's algorithms in the batched simulator."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from drivecast.envs.drivers.learned.card import ALGORITHMS, MODEL_FILE, BaselineCard
from drivecast.envs.drivers.learned.driver import NOT_INSTALLED
from drivecast.envs.drivers.learned.settings import BaselineTrainingConfig
from drivecast.envs.drivers.learned.watch import Report, watch
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.storage.files import atomic_file
from drivecast.worldmodel.storage.interrupts import held_back

TRAINING_SEED = 2**30  # seeds of scenes of training and its validation, up to 2^31: nobody is evaluated on these
SEEDS_PER_RUN = 2**14
MOST_SEED = 2**30 // SEEDS_PER_RUN - 1
TRAINED_WITH = ("stable-baselines3", "sb3-contrib", "torch", "highway-env")


@dataclass(frozen=True)
class BaselineTrainer:
    """One training of one model.

    Stable-Baselines3 draws from torch's and NumPy's global generators, which it seeds.

    Args:
        algorithm: `ppo`, `dqn` or `tqc`.
        environment: highway-env's name, one that the batched simulator has.
        output: Folder of `model.zip` and `model.json`.
        config: Settings of the learning.
        steps: Decisions in all; PPO goes on to the end of its last rollout.
        environments: Episodes side by side.
        seed: Of weights, scenes and exploration.
        overrides: Of highway-env's configuration.
        device: Of the networks.

    Raises:
        InputError: Stable-Baselines3 is not installed, there is a model in `output`, or a value is out of range.
    """

    algorithm: str
    environment: str
    output: Path
    config: BaselineTrainingConfig
    steps: int
    environments: int
    seed: int = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise InputError(f"algorithm: expected one of {', '.join(ALGORITHMS)}; got '{self.algorithm}'")
        for name in ("steps", "environments"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if not 0 <= self.seed <= MOST_SEED:
            raise InputError(f"seed: expected from 0 to {MOST_SEED}, got {self.seed}")
        if self.path.exists():
            raise InputError(f"{self.path}: is trained already; choose another --output, or delete it to train anew")

    @property
    def path(self) -> Path:
        """Of the model."""
        return Path(self.output) / MODEL_FILE

    @property
    def stopped(self) -> Path:
        """Of the model of a training that was stopped."""
        return Path(self.output) / "stopped" / MODEL_FILE

    def train(self, log: Report, on_step: Report = lambda *_: None) -> Path:
        """Train to the last step and write the model and its card; returns the model's path.

        Asked to end (Ctrl-C, or a signal that raises `KeyboardInterrupt`), it ends its update and writes what it has
        learned to `stopped`. That drives; it cannot be gone on with.

        Args:
            log: Told `train/NAME` now and then: mean reward and length (decisions) of the last episodes, share of
                crashes among them; at the end `validation/NAME` of new episodes, driven without exploring.
            on_step: Told the same after each decision of all environments.
        """
        model = self._model()
        with held_back() as interrupts:
            every = max(self.steps // 200, 1)
            model.learn(self.steps, callback=watch(log, on_step, every, lambda: interrupts.waiting))
            if interrupts.waiting:
                self._write(model, self.stopped)
            interrupts.deliver()
        log(model.num_timesteps, {f"validation/{name}": value for name, value in self.validate(model).items()})
        self._write(model, self.path)
        for file in (self.stopped, self.stopped.with_suffix(".json")):
            file.unlink(missing_ok=True)
        with suppress(OSError):  # there is none, or somebody put something else there
            self.stopped.parent.rmdir()
        return self.path

    def _write(self, model: Any, path: Path) -> None:
        card = BaselineCard(
            algorithm=self.algorithm,
            environment=self.environment,
            net_arch=self.config.net_arch,
            seed=self.seed,
            steps=model.num_timesteps,
            settings={
                "learning_rate": self.config.learning_rate,
                "gamma": self.config.gamma,
                "environments": self.environments,
                **asdict(getattr(self.config, self.algorithm)),
            },
            trained_with={name: version(name) for name in TRAINED_WITH},
            **self._task(),
        )
        content = io.BytesIO()
        model.save(content)
        path.parent.mkdir(parents=True, exist_ok=True)
        card.write(path)
        with atomic_file(path) as temporary:
            temporary.write_bytes(content.getbuffer())

    def _task(self) -> dict[str, Any]:
        """What the card says of highway-env's configuration."""
        rest = self.highway_config
        named = {"observation": "observation", "action": "action", "policy_frequency_hz": "policy_frequency"}
        task = {field: rest.pop(name) for field, name in named.items() if name in rest}
        return {**task, "config": rest}

    def validate(self, model: Any) -> dict[str, float]:
        """Mean reward and length, share of crashes and mean speed (m/s) of episodes that training has not seen."""
        from drivecast.envs.batched.vector_env import BatchedHighwayVectorEnv

        episodes = self.config.validation_episodes
        vector = BatchedHighwayVectorEnv(
            episodes, self.environment, self.highway_config, autoreset_mode=AutoresetMode.NEXT_STEP
        )
        seen, _ = vector.reset(seed=self._first_seed + SEEDS_PER_RUN // 2)
        running = np.ones(episodes, dtype=np.bool_)
        crashed = np.zeros(episodes, dtype=np.bool_)
        reward, length, speed = (np.zeros(episodes) for _ in range(3))
        while running.any():
            action, _ = model.predict(seen, deterministic=True)
            seen, rewards, terminated, truncated, infos = vector.step(action)
            reward += rewards * running
            length += running
            speed += infos["speed"] * running
            crashed |= infos["crashed"] & running
            running &= ~(terminated | truncated)
        return {
            "episode_reward": float(reward.mean()),
            "episode_length": float(length.mean()),
            "crash_share": float(crashed.mean()),
            "speed_mps": float(speed.sum() / length.sum()),
        }

    @property
    def _first_seed(self) -> int:
        return TRAINING_SEED + self.seed * SEEDS_PER_RUN

    @property
    def highway_config(self) -> dict[str, Any]:
        """Overrides of highway-env's configuration in training: its traffic, and what the algorithm sees and does."""
        own = self.config.tqc.highway_config() if self.algorithm == "tqc" else {}
        return {**own, **self.overrides}

    def _model(self) -> Any:
        try:
            from drivecast.envs.batched.stable_baselines import BatchedHighwayVecEnv
            from drivecast.envs.drivers.learned.models import make_model
        except ImportError as error:
            raise InputError(NOT_INSTALLED) from error
        environments = BatchedHighwayVecEnv.make(self.environments, self.environment, self.highway_config)
        model = make_model(self.algorithm, environments, self.config, self.seed, self.device)
        environments.seed(self._first_seed)  # after Stable-Baselines3, which has seeded them with its own
        return model
