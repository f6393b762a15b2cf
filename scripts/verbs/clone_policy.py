"""`drivecast clone-policy`: a driver that imitates recorded vehicles."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from drivecast.planner.policy.cloning import CloningConfig, CloningTrainer
from drivecast.planner.policy.network import PolicyConfig
from drivecast.scripts.command.device import available_device
from drivecast.scripts.tracking.run import Run
from drivecast.scripts.verbs.training import train
from drivecast.worldmodel.recordings.store import WindowStore

PANELS = [
    ("error in units of the recorded spread", ["train/loss", "*/loss"]),
    ("mean errors, m/s²", ["*/acceleration_error_mps2", "*/lateral_error_mps2"]),
    ("unexplained share of the variance", ["*/acceleration_unexplained", "*/steering_unexplained"]),
]


@dataclass(frozen=True)
class ClonePolicyConfig:
    """Train a driving policy by behaviour cloning: the network of `train-policy`, fitted to recorded controls.

    Imitates every recorded vehicle; in simulated recordings not the egos that drive badly on purpose. Leaves
    OUTPUT/policy.safetensors, the best policy in validation, and training-curves.png; it drives as policy:OUTPUT,
    without a world model. Started again with the same settings, it goes on where it was stopped, to the last bit.

    Args:
        data: Folders of recording stores; give it several times for several.
        output: Folder of the policy.
        seed: Seed of weights and batches.
        device: Where it is trained: cpu, or cuda where there is one.
        policy: Architecture and limits of the policy.
        training: Training settings.
        name: Name under which the policy is registered.
    """

    data: list[Path]
    output: Path
    seed: int = 0
    device: str = "cpu"
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    training: CloningConfig = field(default_factory=CloningConfig)
    name: str = "cloned-policy"


def run(config: ClonePolicyConfig, run: Run) -> None:
    """Train, report and register."""
    stores = [WindowStore.open(folder) for folder in config.data]
    device = available_device(config.device)
    trainer = CloningTrainer(config.policy, config.training, stores, config.output, config.seed, device)
    done = trainer.resume()
    run.log_params({"decisions": trainer.decisions.count})
    run.say(
        f"{trainer.decisions.count} recorded decisions; accelerations spread by {trainer.spread.forward_mps2:.2f} m/s² "
        f"along the road and {trainer.spread.lateral_mps2:.2f} m/s² across"
    )
    train(trainer, done, run, "cloned policy", config.name, ["loss"], PANELS)
