"""Training Stable-Baselines3's PPO and DQN in the batched simulator, with highway-env's own settings."""

from __future__ import annotations

import io
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from drivecast.envs.drivers.learned.card import ALGORITHMS, MODEL_FILE, BaselineCard
from drivecast.envs.drivers.learned.driver import NOT_INSTALLED
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.storage.files import atomic_file
from drivecast.worldmodel.storage.interrupts import held_back

Report = Callable[[int, Mapping[str, float]], None]  # environment steps so far, measures

TRAINING_SEED = 2**30  # seeds of scenes of training and its validation, up to 2^31: nobody is evaluated on these
SEEDS_PER_RUN = 2**14
MOST_SEED = 2**30 // SEEDS_PER_RUN - 1
EPISODES_SHOWN = 100  # the measures of training are means over this many last episodes


@dataclass(frozen=True)
class PPOSettings:
    """PPO, as highway-env's `scripts/sb3_highway_ppo.py` has it.

    Args:
        rollout: Decisions between two updates, of all environments together.
        batch: Decisions of a batch.
        epochs: Times that an update goes through them.
    """

    rollout: int = 768
    batch: int = 64
    epochs: int = 10


@dataclass(frozen=True)
class DQNSettings:
    """DQN, as highway-env's `scripts/sb3_highway_dqn.py` has it; one gradient step for each decision.

    Args:
        buffer: Decisions kept to learn from.
        learning_starts: Decisions before the first gradient step.
        batch: Decisions of a batch.
        target_update: Decisions between two updates of the target network.
    """

    buffer: int = 15_000
    learning_starts: int = 200
    batch: int = 32
    target_update: int = 50


@dataclass(frozen=True)
class BaselineTrainingConfig:
    """Learning of both algorithms; the defaults are those of highway-env's scripts.

    Args:
        learning_rate: Of Adam.
        gamma: Discount of the next decision's reward.
        net_arch: Widths of the hidden layers.
        validation_episodes: New episodes driven at the end to measure what was learned.
        ppo: What only PPO has.
        dqn: What only DQN has.
    """

    learning_rate: float = 5e-4
    gamma: float = 0.8
    net_arch: tuple[int, ...] = (256, 256)
    validation_episodes: int = 128
    ppo: PPOSettings = field(default_factory=PPOSettings)
    dqn: DQNSettings = field(default_factory=DQNSettings)

    def __post_init__(self) -> None:
        if not self.learning_rate > 0 or not 0 <= self.gamma <= 1:
            raise ValueError("expected learning_rate above 0 and gamma from 0 to 1")
        if self.validation_episodes < 1:
            raise ValueError(f"validation_episodes: expected at least 1, got {self.validation_episodes}")
        for settings in (self.ppo, self.dqn):
            for name, value in asdict(settings).items():
                if value < 1:
                    raise ValueError(f"{name}: expected at least 1, got {value}")


@dataclass(frozen=True)
class BaselineTrainer:
    """One training of one model.

    Stable-Baselines3 draws from torch's and NumPy's global generators, which it seeds.

    Args:
        algorithm: `ppo` or `dqn`.
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
            model.learn(self.steps, callback=_watch(log, on_step, every, lambda: interrupts.waiting))
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
            config=dict(self.overrides),
            seed=self.seed,
            steps=model.num_timesteps,
            settings={
                "learning_rate": self.config.learning_rate,
                "gamma": self.config.gamma,
                "environments": self.environments,
                **asdict(getattr(self.config, self.algorithm)),
            },
            trained_with={name: version(name) for name in ("stable-baselines3", "torch", "highway-env")},
        )
        content = io.BytesIO()
        model.save(content)
        path.parent.mkdir(parents=True, exist_ok=True)
        card.write(path)
        with atomic_file(path) as temporary:
            temporary.write_bytes(content.getbuffer())

    def validate(self, model: Any) -> dict[str, float]:
        """Mean reward and length, share of crashes and mean speed (m/s) of episodes that training has not seen."""
        from drivecast.envs.batched.vector_env import BatchedHighwayVectorEnv

        episodes = self.config.validation_episodes
        vector = BatchedHighwayVectorEnv(
            episodes, self.environment, dict(self.overrides), autoreset_mode=AutoresetMode.NEXT_STEP
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

    def _model(self) -> Any:
        try:
            from stable_baselines3 import DQN, PPO

            from drivecast.envs.batched.stable_baselines import BatchedHighwayVecEnv
        except ImportError as error:
            raise InputError(NOT_INSTALLED) from error
        config, count = self.config, self.environments
        environments = BatchedHighwayVecEnv.make(count, self.environment, dict(self.overrides))
        shared: dict[str, Any] = {
            "learning_rate": config.learning_rate,
            "gamma": config.gamma,
            "seed": self.seed,
            "device": self.device,
        }
        arch = list(config.net_arch)
        if self.algorithm == "ppo":
            shared["policy_kwargs"] = {"net_arch": {"pi": arch, "vf": arch}}
            steps = max(config.ppo.rollout // count, 2)  # of each environment; with 1, advantages cannot be normalised
            model: Any = PPO(
                "MlpPolicy",
                environments,
                n_steps=steps,
                batch_size=min(config.ppo.batch, steps * count),
                n_epochs=config.ppo.epochs,
                **shared,
            )
        else:
            shared["policy_kwargs"] = {"net_arch": arch}
            with warnings.catch_warnings():  # the target is updated once for all environments
                warnings.filterwarnings("ignore", message="The number of environments used is greater than the target")
                model = DQN(
                    "MlpPolicy",
                    environments,
                    buffer_size=config.dqn.buffer,
                    learning_starts=config.dqn.learning_starts,
                    batch_size=config.dqn.batch,
                    target_update_interval=config.dqn.target_update,
                    train_freq=1,
                    gradient_steps=-1,  # as many as there were decisions
                    **shared,
                )
        environments.seed(self._first_seed)  # after Stable-Baselines3, which has seeded them with its own
        return model


def _watch(log: Report, on_step: Report, every: int, is_to_end: Callable[[], bool]) -> Any:
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
