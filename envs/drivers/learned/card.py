"""What is known of a Stable-Baselines3 model: a small JSON beside its zip."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from math import isfinite
from pathlib import Path
from typing import Any

from drivecast.envs.batched.observation import KinematicsConfig
from drivecast.envs.drivers.learned.observation import SEEN
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.storage.files import atomic_file

ALGORITHMS = ("ppo", "dqn", "tqc")
META_ACTIONS, CONTINUOUS = "DiscreteMetaAction", "ContinuousAction"
OBSERVATION_OPTIONS = ("type", "vehicles_count", "features", "features_range", "see_behind")
RANGES = ("acceleration_range", "steering_range")
MODEL_FILE = "model.zip"
EXAMPLE = '{"algorithm": "dqn", "environment": "highway-fast-v0", "net_arch": [256, 256]}'


@dataclass(frozen=True)
class BaselineCard:
    """How a model was trained and what it sees and does; the rest of a `MODEL.json` beside `MODEL.zip`.

    Attributes:
        algorithm: `ppo`, `dqn` or `tqc`.
        environment: highway-env's name.
        net_arch: Widths of the hidden layers of the MlpPolicy (of PPO and TQC: of actor and critic).
        observation: highway-env's `config["observation"]`: Kinematics, of which `OBSERVATION_OPTIONS` are known here.
        action: highway-env's `config["action"]`: its default meta-actions, or `ContinuousAction` with
            `acceleration_range`, m/s², and `steering_range`, rad. DQN has the former, TQC the latter.
        policy_frequency_hz: Decisions in a second.
        config: Other overrides of highway-env's configuration in training.
        seed: Of the training; None: not known.
        steps: Environment steps of the training; None: not known.
        settings: Of the learning.
        trained_with: Versions of what it was trained with.
    """

    algorithm: str
    environment: str
    net_arch: tuple[int, ...]
    observation: dict[str, Any] = field(default_factory=lambda: {"type": "Kinematics"})
    action: dict[str, Any] = field(default_factory=lambda: {"type": "DiscreteMetaAction"})
    policy_frequency_hz: float = 1.0
    config: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    steps: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    trained_with: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise InputError(f"algorithm: expected one of {', '.join(ALGORITHMS)}; got '{self.algorithm}'")
        if not self.net_arch or any(not isinstance(width, int) or width < 1 for width in self.net_arch):
            raise InputError(f"net_arch: expected widths such as [256, 256], got {list(self.net_arch)}")
        extra = sorted(set(self.observation) - set(OBSERVATION_OPTIONS))
        if self.observation.get("type") != "Kinematics" or extra:
            raise InputError(
                f"observation: expected highway-env's Kinematics (only {', '.join(OBSERVATION_OPTIONS)}), "
                f"got {self.observation}"
            )
        unseen = sorted(set(self.kinematics.features) - set(SEEN))
        if unseen:
            raise InputError(f"observation features: expected some of {', '.join(SEEN)}; got {', '.join(unseen)}")
        self._check_action()
        if not self.policy_frequency_hz > 0:
            raise InputError(f"policy_frequency_hz: expected more than 0, got {self.policy_frequency_hz}")

    def _check_action(self) -> None:
        if self.continuous:
            ranges = [self.action.get(name) for name in RANGES]
            if set(self.action) != {"type", *RANGES} or not all(_is_range(values) for values in ranges):
                raise InputError(f"action: expected ContinuousAction with {' and '.join(RANGES)}; got {self.action}")
        elif self.action != {"type": META_ACTIONS}:
            raise InputError(
                f"action: expected highway-env's default {META_ACTIONS}, or {CONTINUOUS}; got {self.action}"
            )
        for algorithm, only in (("dqn", False), ("tqc", True)):
            if self.algorithm == algorithm and self.continuous != only:
                raise InputError(f"action: expected {CONTINUOUS if only else META_ACTIONS} of {algorithm}")

    @property
    def kinematics(self) -> KinematicsConfig:
        """What it sees."""
        return KinematicsConfig.of(self.observation)

    @property
    def continuous(self) -> bool:
        """Whether it chooses controls, not meta-actions."""
        return self.action.get("type") == CONTINUOUS

    def write(self, model: Path) -> Path:
        """Write it beside the zip `model`."""
        path = model.with_suffix(".json")
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        return path

    @staticmethod
    def read(model: Path) -> BaselineCard:
        """The card beside the zip `model`.

        Raises:
            InputError: It is missing or says what is not known here.
        """
        path = model.with_suffix(".json")
        if not path.is_file():
            raise InputError(
                f"{path}: missing, so what {model.name} observes is not known; train it with "
                f"`drivecast train-baseline`, or write {EXAMPLE} there if it was trained on highway-env's default "
                "observation and actions"
            )
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path}: not readable as JSON ({error}); expected such as {EXAMPLE}") from error
        known = {one.name for one in fields(BaselineCard)}
        if not isinstance(values, dict) or not {"algorithm", "environment", "net_arch"} <= set(values) <= known:
            found = sorted(values) if isinstance(values, dict) else type(values).__name__
            raise InputError(f"{path}: expected {EXAMPLE} and nothing but {', '.join(sorted(known))}; found {found}")
        try:
            return BaselineCard(**{**values, "net_arch": tuple(values["net_arch"])})
        except (InputError, TypeError) as error:
            raise InputError(f"{path}: {error}") from error


def _is_range(values: Any) -> bool:
    """Whether these are [lowest, highest]."""
    two = isinstance(values, (list, tuple)) and len(values) == 2
    return (
        two and all(isinstance(value, (int, float)) and isfinite(value) for value in values) and values[0] < values[1]
    )


def model_file(path: Path) -> Path:
    """The zip at `path`, or in the folder `path`."""
    return path / MODEL_FILE if path.is_dir() else path
