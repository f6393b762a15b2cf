"""What is known of a Stable-Baselines3 model: a small JSON beside its zip."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.storage.files import atomic_file

ALGORITHMS = ("ppo", "dqn")
MODEL_FILE = "model.zip"
EXAMPLE = '{"algorithm": "dqn", "environment": "highway-fast-v0", "net_arch": [256, 256]}'


@dataclass(frozen=True)
class BaselineCard:
    """How a model was trained and what it sees and does; the rest of a `MODEL.json` beside `MODEL.zip`.

    Attributes:
        algorithm: `ppo` or `dqn`.
        environment: highway-env's name.
        net_arch: Widths of the hidden layers of the MlpPolicy (of PPO: of both its networks).
        observation: highway-env's `config["observation"]`; only its default Kinematics are known here, with any
            `vehicles_count`.
        action: highway-env's `config["action"]`; only its default meta-actions are known here.
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
        extra = sorted(set(self.observation) - {"type", "vehicles_count"})
        if self.observation.get("type") != "Kinematics" or extra:
            raise InputError(
                "observation: expected highway-env's default Kinematics (type and vehicles_count only), "
                f"got {self.observation}"
            )
        if not isinstance(self.rows, int) or self.rows < 2:
            raise InputError(f"observation vehicles_count: expected 2 or more, got {self.rows}")
        if self.action != {"type": "DiscreteMetaAction"}:
            raise InputError(f"action: expected highway-env's default DiscreteMetaAction, got {self.action}")
        if not self.policy_frequency_hz > 0:
            raise InputError(f"policy_frequency_hz: expected more than 0, got {self.policy_frequency_hz}")

    @property
    def rows(self) -> int:
        """Vehicles that it sees, itself included."""
        return self.observation.get("vehicles_count", 5)

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


def model_file(path: Path) -> Path:
    """The zip at `path`, or in the folder `path`."""
    return path / MODEL_FILE if path.is_dir() else path
