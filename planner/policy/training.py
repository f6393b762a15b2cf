"""Training a policy by backpropagating the energy through its rollouts: imagined ones (MPUR), or simulated ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from drivecast.planner.costs.energy import PLANNING_ENERGY, Energy, EnergyConfig
from drivecast.planner.costs.trajectory import Trajectory
from drivecast.planner.imagination.imagined_rollouts import Rollouts
from drivecast.planner.imagination.starts import InteractionConfig, StartConfig, Starts
from drivecast.planner.policy.lane_choice import LaneChoiceConfig
from drivecast.planner.policy.network import Policy
from drivecast.planner.policy.saturation import saturated_share
from drivecast.worldmodel.energy.uncertainty import UncertaintyConfig
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.loading import POLICY_FILE
from drivecast.worldmodel.training.optimisation import BestModel, Log, Optimisation

POLICY_KIND = "policy"
MPUR_ENERGY = replace(PLANNING_ENERGY, weights=replace(PLANNING_ENERGY.weights, uncertainty=0.1))
COLLAPSED_SHARE = 0.5  # of the controls at their limits: no traffic asks for that


@dataclass(frozen=True)
class RolloutTrainingConfig:
    """Training of a policy through its rollouts, whoever answers it there.

    Args:
        steps: Optimiser steps.
        batch: Rollouts of a batch.
        horizon_steps: Steps of a rollout.
        learning_rate: Peak of the Adam learning rate; warmed up, then lowered along a cosine.
        gradient_clip: Largest norm of the gradient.
        others_listen: Let the gradient flow through the others' answers to the ego.
        validate_every: Steps between validations.
        validation_rollouts: Rollouts of one validation.
        checkpoint_every: Steps between checkpoints.
        starts: Start states.
        energy: The cost energy.
        lane_choice: How the trained policy chooses lanes when it drives; it has no part in training.
    """

    steps: int = 400
    batch: int = 128
    horizon_steps: int = 40
    learning_rate: float = 2e-3
    gradient_clip: float = 1.0
    others_listen: bool = True
    validate_every: int = 50
    validation_rollouts: int = 256
    checkpoint_every: int = 50
    starts: InteractionConfig = field(default_factory=InteractionConfig)
    energy: EnergyConfig = field(default_factory=EnergyConfig)
    lane_choice: LaneChoiceConfig = field(default_factory=LaneChoiceConfig)

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "horizon_steps", "validate_every", "validation_rollouts", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.learning_rate <= 0.0 or self.gradient_clip <= 0.0:
            raise ValueError("learning_rate and gradient_clip must be positive")


@dataclass(frozen=True)
class PolicyTrainingConfig(RolloutTrainingConfig):
    """Training of the policy through imagined rollouts (MPUR).

    Args:
        sample_latent: Draw z from the prior; False trains against the model's likeliest future.
        use_uncertainty: Add the uncertainty cost.
        uncertainty: The uncertainty cost.
    """

    steps: int = 200
    others_listen: bool = False
    starts: StartConfig = field(default_factory=StartConfig)
    energy: EnergyConfig = field(default_factory=lambda: MPUR_ENERGY)
    sample_latent: bool = True
    use_uncertainty: bool = True
    uncertainty: UncertaintyConfig = field(default_factory=UncertaintyConfig)


@dataclass(frozen=True)
class PolicyKind:
    """What sort of policy is trained.

    Attributes:
        build: Makes the network from its configuration, which has the limits of `PolicyConfig`.
        kind: What its file says that it is.
        file: Name of its file.
    """

    build: Callable[[Any], nn.Module]
    kind: str
    file: str


ON_SCENES = PolicyKind(Policy, POLICY_KIND, POLICY_FILE)


@dataclass
class PolicyTrainer:
    """One training run of a policy, resumable at every checkpoint to the last bit.

    Args:
        rollouts: Where rollouts start, and who answers the policy there.
        policy: Architecture of the policy.
        config: Training settings.
        output: Folder of the policy's file (the best so far in validation) and `policy-training-state.pt`.
        seed: Seed of the weights, the starts and the latents.
        device: Device to train on.
        warn: Told, in one line, that the policy has collapsed; at most once.
        kind: What sort of policy it is.
    """

    rollouts: Rollouts[Any]
    policy: Any
    config: RolloutTrainingConfig
    output: Path
    seed: int = 0
    device: str = "cpu"
    warn: Callable[[str], None] = lambda line: None
    kind: PolicyKind = ON_SCENES

    def __post_init__(self) -> None:
        if abs(self.policy.dt_s - self.rollouts.dt_s) > 1e-6:
            raise InputError(f"the policy is at {self.policy.dt_s} s per step, its rollouts at {self.rollouts.dt_s} s")
        config, output = self.config, Path(self.output)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.network = self.kind.build(self.policy).to(self.device)
        policy, training = asdict(self.policy), asdict(config)
        extra = {
            "energy": training["energy"],
            "lane_choice": training["lane_choice"],
            "training": training,
            **self.rollouts.origin,
        }
        self.optimisation = Optimisation(
            self.network,
            torch.optim.Adam(self.network.parameters(), lr=config.learning_rate),
            config,
            BestModel(output / self.kind.file, self.kind.kind, self.policy, extra),
            output / "policy-training-state.pt",
            {"policy": policy, "training": training, "seed": self.seed, **self.rollouts.identity},
            self.seed,
            warmup=50,
            falls_from=0,
        )
        self.energy = Energy(config.energy, self.rollouts.more_terms(config.energy.weights))
        self.validated_on = self.rollouts.validated_on
        self._warned = False

    def resume(self) -> int:
        """Take up `policy-training-state.pt` if there is one; returns the steps already done."""
        return self.optimisation.resume()

    def train(self, log: Log, on_step: Log = lambda *_: None) -> Path:
        """Train to `config.steps`; returns the path of the best policy. Resumes where `resume()` left it."""
        return self.optimisation.train(self._step, self._validate, self.validated_on, log, on_step)

    def unroll(self, starts: Starts, noise: torch.Generator) -> Trajectory:
        """The policy's rollouts from `starts`."""
        return self.rollouts.unroll(self.network, starts, noise)

    def _step(self) -> dict[str, float]:
        self.optimisation.start_step()
        measures: dict[str, float] = {}
        batch = self.optimisation.crew.share(self.config.batch)
        batches = self.rollouts.draw(batch, self.optimisation.batches)
        total = sum(starts.history.valid.shape[0] for starts in batches)
        for starts in batches:
            terms = self.energy.terms(self.unroll(starts.to(self.device), self.optimisation.noise))
            self.optimisation.descend(self.energy.total(terms).sum() / total, "energy")
            for name, values in terms.items():
                measures[name] = measures.get(name, 0.0) + float(values.detach().mean(1).sum()) / total
        return measures | {"energy": sum(measures.values()), "gradient_norm": self.optimisation.finish_step()}

    @torch.no_grad()
    def _validate(self) -> tuple[dict[str, float], float]:
        """Score the same starts under the same noise each time."""
        config = self.config
        noise = torch.Generator(self.device).manual_seed(self.seed + 3)
        drawn = self.rollouts.draw_validation(config.validation_rollouts, torch.Generator().manual_seed(self.seed + 2))
        total = sum(starts.history.valid.shape[0] for starts in drawn)
        sums = {"energy": 0.0, "saturated_share": 0.0}
        for each in drawn:
            starts = each.to(self.device)
            trajectory = self.unroll(starts, noise)
            terms = self.energy.terms(trajectory)
            sums["energy"] += float(self.energy.total(terms).sum()) / total
            share = saturated_share(trajectory, starts.history[:, -1], self.policy)
            sums["saturated_share"] += float(share.sum()) / total
            for name, values in terms.items():
                sums[name] = sums.get(name, 0.0) + float(values.mean(1).sum()) / total
        self._warn_of_collapse(sums["saturated_share"])
        return sums, sums["energy"]

    def _warn_of_collapse(self, share: float) -> None:
        step, steps = self.optimisation.done_steps, self.config.steps
        if share > COLLAPSED_SHARE and step >= steps / 4 and not self._warned:
            self._warned = True
            self.warn(
                f"warning: at step {step}, {share:.0%} of the rollouts' controls are at their limits: the policy has "
                "probably collapsed into one answer to everything, such as full braking; try a lower "
                "--training.learning-rate or softer cost weights (--training.energy.weights.proximity)"
            )
