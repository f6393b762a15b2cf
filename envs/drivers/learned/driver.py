"""A Stable-Baselines3 model that was trained on highway-env, as a Driver."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from drivecast.envs.drivers.learned.card import BaselineCard, model_file
from drivecast.envs.drivers.learned.continuous_actions import ContinuousActions
from drivecast.envs.drivers.learned.meta_actions import MetaActions
from drivecast.envs.drivers.learned.observation import HighwayObservation
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState

NOT_INSTALLED = (
    "stable-baselines3 (with sb3-contrib) is not installed; install it by `pip install 'drivecast[baselines]'`"
)


class StableBaselinesDriver:
    """Sees highway-env's observation; now and then chooses an action and follows it in between as highway-env would.

    A meta-action each second or controls more often, as its card says. The goal has no part in it: such a model was
    trained for highway-env's reward, which is for 20 to 30 m/s.

    Args:
        policy: Stable-Baselines3's policy: `predict(observations (batch, vehicle, feature), deterministic=True)`.
        card: What it was trained on.
        dt_s: Time between two calls, s.
        name: Its name in results.
    """

    history_steps = 1

    def __init__(self, policy: Any, card: BaselineCard, dt_s: float = 0.1, name: str = "") -> None:
        self.policy, self.card, self.name = policy, card, name or card.algorithm
        self.every_steps = max(1, round(1 / (card.policy_frequency_hz * dt_s)))
        self.observation = HighwayObservation(card.kinematics)
        self.actions = ContinuousActions(card.action) if card.continuous else MetaActions()
        self._steps = 0

    def reset(self, scene: TrafficState, road: Road, goal: Goal) -> None:
        self.observation.start(scene, road)
        self.actions.start(scene, road)
        self._steps = 0

    @torch.no_grad()
    def act(self, history: TrafficState, road: Road, goal: Goal) -> Controls:
        scene = history[:, -1]
        if self._steps % self.every_steps == 0:
            seen = self.observation.observe(scene, road)
            action, _ = self.policy.predict(seen.cpu().numpy().astype(np.float32), deterministic=True)
            self.actions.choose(scene, road, torch.as_tensor(action, device=seen.device))
        self._steps += 1
        return self.actions.controls(scene, road)


def load_baseline(
    path: Path | str, algorithm: str, dt_s: float = 0.1, device: str = "cpu", name: str = ""
) -> StableBaselinesDriver:
    """The driver of the model in `path`, a zip of Stable-Baselines3 or the folder that holds `model.zip`.

    Only the weights of the zip are read: the rest of it is pickled and could run code. The card beside it says what
    network they belong to.

    Raises:
        InputError: Stable-Baselines3 is not installed; the file or its card is missing, foreign, or of another
            algorithm.
    """
    model = model_file(Path(path))
    if not model.is_file():
        raise InputError(f"{model}: expected a model of Stable-Baselines3, found nothing; `drivecast train-baseline`")
    card = BaselineCard.read(model)
    if card.algorithm != algorithm:
        raise InputError(f"{model}: is a {card.algorithm} model, not {algorithm}; name it {card.algorithm}:{path}")
    policy = untrained_policy(card, device)
    try:
        policy.load_state_dict(_weights(model, device))
    except RuntimeError as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"{model}: weights do not fit the network that its card describes ({first})") from error
    policy.set_training_mode(False)
    return StableBaselinesDriver(policy, card, dt_s, name or f"{algorithm}:{path}")


def untrained_policy(card: BaselineCard, device: str = "cpu") -> Any:
    """Stable-Baselines3's MlpPolicy for what the card describes."""
    try:
        from sb3_contrib.tqc.policies import TQCPolicy
        from stable_baselines3.common.policies import ActorCriticPolicy
        from stable_baselines3.dqn.policies import DQNPolicy
    except ImportError as error:
        raise InputError(NOT_INSTALLED) from error
    from gymnasium import spaces

    make = {"ppo": ActorCriticPolicy, "dqn": DQNPolicy, "tqc": TQCPolicy}[card.algorithm]
    kinematics = card.kinematics
    seen = spaces.Box(-np.inf, np.inf, (kinematics.vehicles_count, len(kinematics.features)), np.float32)
    chosen = spaces.Box(-1.0, 1.0, (2,), np.float32) if card.continuous else spaces.Discrete(5)
    return make(seen, chosen, lambda _: 0.0, net_arch=list(card.net_arch)).to(device)


def _weights(model: Path, device: str) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(model) as archive:
            content = io.BytesIO(archive.read("policy.pth"))
        return torch.load(content, map_location=device, weights_only=True)
    except (zipfile.BadZipFile, KeyError, OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise InputError(f"{model}: not a model of Stable-Baselines3 ({reason}); give its .zip") from error
