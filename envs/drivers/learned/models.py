"""Models of Stable-Baselines3, untrained; importing this needs the extra `baselines`."""

from __future__ import annotations

import warnings
from typing import Any

from sb3_contrib import TQC
from stable_baselines3 import DQN, PPO

from drivecast.envs.batched.stable_baselines import BatchedHighwayVecEnv
from drivecast.envs.drivers.learned.settings import BaselineTrainingConfig


def make_model(
    algorithm: str, environments: BatchedHighwayVecEnv, config: BaselineTrainingConfig, seed: int, device: str
) -> Any:
    """The model that is to learn in `environments`; seeds them, too.

    Args:
        algorithm: `ppo`, `dqn` or `tqc`.
        environments: Where.
        config: Settings of the learning.
        seed: Of weights and exploration.
        device: Of the networks.
    """
    make = {"ppo": _ppo, "dqn": _dqn, "tqc": _tqc}[algorithm]
    return make(environments, config, {"seed": seed, "device": device})


def _ppo(environments: BatchedHighwayVecEnv, config: BaselineTrainingConfig, shared: dict[str, Any]) -> PPO:
    arch, count = list(config.net_arch), environments.num_envs
    steps = max(config.ppo.rollout // count, 2)  # of each environment; with 1, advantages cannot be normalised
    return PPO(
        "MlpPolicy",
        environments,
        learning_rate=config.learning_rate,
        gamma=config.gamma,
        policy_kwargs={"net_arch": {"pi": arch, "vf": arch}},
        n_steps=steps,
        batch_size=min(config.ppo.batch, steps * count),
        n_epochs=config.ppo.epochs,
        **shared,
    )


def _dqn(environments: BatchedHighwayVecEnv, config: BaselineTrainingConfig, shared: dict[str, Any]) -> DQN:
    with warnings.catch_warnings():  # the target is updated once for all environments
        warnings.filterwarnings("ignore", message="The number of environments used is greater than the target")
        return DQN(
            "MlpPolicy",
            environments,
            learning_rate=config.learning_rate,
            gamma=config.gamma,
            policy_kwargs={"net_arch": list(config.net_arch)},
            buffer_size=config.dqn.buffer,
            learning_starts=config.dqn.learning_starts,
            batch_size=config.dqn.batch,
            target_update_interval=config.dqn.target_update,
            train_freq=1,
            gradient_steps=-1,  # as many as there were decisions
            **shared,
        )


def _tqc(environments: BatchedHighwayVecEnv, config: BaselineTrainingConfig, shared: dict[str, Any]) -> TQC:
    own = config.tqc
    return TQC(
        "MlpPolicy",
        environments,
        learning_rate=own.learning_rate,
        gamma=own.gamma,
        policy_kwargs={"net_arch": list(config.net_arch)},
        buffer_size=own.buffer,
        learning_starts=own.learning_starts,
        batch_size=own.batch,
        train_freq=1,
        gradient_steps=max(environments.num_envs // own.decisions_per_gradient_step, 1),
        **shared,
    )
