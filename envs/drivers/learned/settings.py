"""Settings of the learning of Stable-Baselines3's algorithms."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


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
class TQCSettings:
    """TQC, sb3-contrib's, on continuous controls; highway-env has no script for it.

    It sees more than the default: everybody near, also behind, and headings, each over the range in which it varies.
    And its reward grows with speed from 0 m/s: highway-env's own is flat below 20 m/s, and with that it learned to
    drive backwards, away from everybody.

    Args:
        decisions_per_s: Choices of controls in a second.
        learning_rate: Of Adam.
        gamma: Discount of the next decision's reward.
        buffer: Decisions kept to learn from.
        learning_starts: Decisions, at random, before the first gradient step.
        batch: Decisions of a batch.
        decisions_per_gradient_step: Decisions for each gradient step.
        acceleration_mps2: The largest that it may ask for, either way.
        steering_rad: The same.
        vehicles_seen: Rows of the observation, its own among them.
    """

    decisions_per_s: int = 5
    learning_rate: float = 5e-4
    gamma: float = 0.95
    buffer: int = 200_000
    learning_starts: int = 4_096
    batch: int = 256
    decisions_per_gradient_step: int = 4
    acceleration_mps2: float = 5.0
    steering_rad: float = 0.06
    vehicles_seen: int = 10

    def highway_config(self) -> dict[str, Any]:
        """Overrides of highway-env's configuration."""
        return {
            "observation": {
                "type": "Kinematics",
                "vehicles_count": self.vehicles_seen,
                "features": ["presence", "x", "y", "vx", "vy", "cos_h", "sin_h"],
                "features_range": {
                    "x": [-100.0, 100.0],
                    "y": [-16.0, 16.0],
                    "vx": [-30.0, 30.0],
                    "vy": [-5.0, 5.0],
                    "sin_h": [-0.2, 0.2],
                },
                "see_behind": True,
            },
            "action": {
                "type": "ContinuousAction",
                "acceleration_range": [-self.acceleration_mps2, self.acceleration_mps2],
                "steering_range": [-self.steering_rad, self.steering_rad],
            },
            "policy_frequency": self.decisions_per_s,
            "offroad_terminal": True,
            "reward_speed_range": [0.0, 30.0],
            "high_speed_reward": 0.8,
            "right_lane_reward": 0.0,
        }


@dataclass(frozen=True)
class BaselineTrainingConfig:
    """Learning of all algorithms; the defaults are those of highway-env's scripts, where it has one.

    Args:
        learning_rate: Of Adam; of PPO and DQN.
        gamma: Discount of the next decision's reward; of PPO and DQN, which decide once a second.
        net_arch: Widths of the hidden layers.
        validation_episodes: New episodes driven at the end to measure what was learned.
        ppo: What only PPO has.
        dqn: What only DQN has.
        tqc: What only TQC has.
    """

    learning_rate: float = 5e-4
    gamma: float = 0.8
    net_arch: tuple[int, ...] = (256, 256)
    validation_episodes: int = 128
    ppo: PPOSettings = field(default_factory=PPOSettings)
    dqn: DQNSettings = field(default_factory=DQNSettings)
    tqc: TQCSettings = field(default_factory=TQCSettings)

    def __post_init__(self) -> None:
        if not self.learning_rate > 0 or not 0 <= self.gamma <= 1:
            raise ValueError("expected learning_rate above 0 and gamma from 0 to 1")
        if self.validation_episodes < 1:
            raise ValueError(f"validation_episodes: expected at least 1, got {self.validation_episodes}")
        for settings in (self.ppo, self.dqn, self.tqc):
            for name, value in asdict(settings).items():
                if (isinstance(value, int) and value < 1) or value <= 0:
                    raise ValueError(f"{name}: expected at least 1, got {value}")
