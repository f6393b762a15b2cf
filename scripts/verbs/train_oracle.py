"""`drivecast train-oracle`: the driver of `train-policy`, with the simulator itself in the world model's place."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from drivecast.envs.recording.moment_bank import MomentBank, MomentBankConfig
from drivecast.planner.imagination.simulated_rollouts import SimulatedRollouts
from drivecast.planner.policy.lane_choice import LaneChoiceConfig
from drivecast.planner.policy.network import PolicyConfig
from drivecast.planner.policy.training import PolicyTrainer, RolloutTrainingConfig
from drivecast.scripts.command.device import available_device
from drivecast.scripts.tracking.run import Run
from drivecast.scripts.verbs.train_policy import PANELS as POLICY_PANELS
from drivecast.scripts.verbs.training import train
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.loading import WORLD_MODEL_FILE
from drivecast.worldmodel.forecaster.model import MODEL_KIND
from drivecast.worldmodel.storage.checkpoint import load_model
from drivecast.worldmodel.storage.files import copy_file

PANELS = [("energy of simulated rollouts", ["train/energy", "*/energy"]), *POLICY_PANELS[1:]]


@dataclass(frozen=True)
class TrainOracleConfig:
    """Train the policy of train-policy through the simulator itself: an oracle to set beside the world model's.

    Policy, energy, starts and optimiser are those of train-policy; what answers the ego is the batched simulator,
    through which the gradient flows, and no world model. So what separates the two policies on the road is due to the
    world model, and what is wrong with both is not. Leaves OUTPUT/policy.safetensors, the best policy in validation,
    and training-curves.png; it drives as policy:OUTPUT. Started again with the same settings, it goes on where it was
    stopped, to the last bit.

    Args:
        output: Folder of the policy.
        environment: Where: highway-v0, highway-fast-v0, merge-v0, merge-v1, merge-generic-v0 or merge-generic-v1.
        world_model: World model by which the driver chooses lanes: its file, its folder, or models:/NAME/VERSION of the
            registry; it has no part in training. Empty: none, and the driver keeps to its lane.
        seed: Seed of weights, traffic and starts.
        device: Where it is trained: cpu, or cuda where there is one.
        policy: Architecture and limits of the policy.
        training: Training settings.
        traffic: Simulated traffic that the rollouts start from.
        name: Name under which the policy is registered.
    """

    output: Path
    environment: str = "highway-v0"
    world_model: str = ""
    seed: int = 0
    device: str = "cpu"
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    training: RolloutTrainingConfig = field(default_factory=RolloutTrainingConfig)
    traffic: MomentBankConfig = field(default_factory=MomentBankConfig)
    name: str = "oracle-policy"

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InputError(f"seed: expected 0 or more, got {self.seed}")


def run(config: TrainOracleConfig, run: Run) -> None:
    """Train, report and register."""
    from drivecast.scripts.driving.registry import resolve_model

    device, output = available_device(config.device), Path(config.output)
    source = load_model(resolve_model(config.world_model), MODEL_KIND).path if config.world_model else None
    training = config.training
    if source is None:
        training = replace(training, lane_choice=LaneChoiceConfig(enabled=False))
    bank = MomentBank(config.environment, config.traffic, config.seed, config.policy.dt_s)
    rollouts = SimulatedRollouts(bank, training)
    trainer = PolicyTrainer(rollouts, config.policy, training, output, config.seed, device, run.say)
    done = trainer.resume()  # refuses another run's output before anything in it is touched
    run.say(f"{bank.count('train')} starts of simulated traffic, {bank.count('val')} to validate from")
    copy = output / WORLD_MODEL_FILE
    if source:
        copy_file(source, copy)
    companions = [copy] if source else []
    train(trainer, done, run, "oracle", config.name, ["energy", "proximity"], PANELS, companions)
