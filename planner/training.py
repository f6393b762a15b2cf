"""MPUR: training a policy by backpropagating the energy through imagined rollouts of the frozen world model."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from planner.energy import Energy, EnergyConfig
from planner.lane_choice import LaneChoiceConfig
from planner.policy import Policy, PolicyConfig
from planner.rollout import imagine
from planner.starts import StartConfig, Starts, StartSampler
from planner.uncertainty import UncertaintyConfig, UncertaintyScale
from worldmodel.checkpoint import load_training_state, save_model, save_training_state, weights_digest
from worldmodel.errors import InputError
from worldmodel.kinematics import recorded_controls
from worldmodel.model import WorldModel
from worldmodel.recordings.sampling import WindowRequest, WindowSampler
from worldmodel.recordings.store import WindowStore
from worldmodel.traffic import Controls, Goal, TrafficState

Log = Callable[[int, Mapping[str, float]], None]
POLICY_KIND = "policy"


@dataclass(frozen=True)
class PolicyTrainingConfig:
    """Training of the policy (MPUR).

    Args:
        steps: Optimiser steps.
        batch: Rollouts of a batch.
        horizon_steps: Steps of a rollout.
        learning_rate: Peak of the Adam learning rate; warmed up, then lowered along a cosine.
        gradient_clip: Largest norm of the gradient.
        sample_latent: Draw z from the prior; False trains against the model's likeliest future.
        use_uncertainty: Add the uncertainty cost.
        others_listen: Let the gradient flow through the others' answers to the ego.
        validate_every: Steps between validations.
        validation_rollouts: Rollouts of one validation.
        checkpoint_every: Steps between checkpoints.
        starts: Start states.
        energy: The cost energy.
        uncertainty: The uncertainty cost.
        lane_choice: How the trained policy chooses lanes when it drives; it has no part in training.
    """

    steps: int = 400
    batch: int = 128
    horizon_steps: int = 40
    learning_rate: float = 2e-3
    gradient_clip: float = 1.0
    sample_latent: bool = True
    use_uncertainty: bool = True
    others_listen: bool = True
    validate_every: int = 50
    validation_rollouts: int = 256
    checkpoint_every: int = 50
    starts: StartConfig = field(default_factory=StartConfig)
    energy: EnergyConfig = field(default_factory=EnergyConfig)
    uncertainty: UncertaintyConfig = field(default_factory=UncertaintyConfig)
    lane_choice: LaneChoiceConfig = field(default_factory=LaneChoiceConfig)

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "horizon_steps", "validate_every", "validation_rollouts", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.learning_rate <= 0.0 or self.gradient_clip <= 0.0:
            raise ValueError("learning_rate and gradient_clip must be positive")


@torch.no_grad()
def measure_uncertainty(
    model: WorldModel,
    stores: Sequence[WindowStore],
    config: PolicyTrainingConfig,
    generator: torch.Generator,
    noise: torch.Generator,
    windows: int = 256,
    mask_draws: int = 16,
) -> UncertaintyScale:
    """Mean and spread of the model's disagreement when the egos drive as they were recorded.

    Pooled over `mask_draws` sets of dropout masks: one set's disagreement differs from another's as much as one
    scene's does from another's.
    """
    request = WindowRequest(config.starts.history_steps, config.horizon_steps, config.starts.max_agents)
    device = next(model.parameters()).device
    raws = []
    sampler = WindowSampler(stores, "train", request)
    drawn = [sampler.draw(max(windows // mask_draws, 1), generator) for _ in range(mask_draws)]
    for window in itertools.chain.from_iterable(drawn):
        history, future, road = window.history.to(device), window.future.to(device), window.road.to(device)
        heading = torch.cat([history.heading_rad[:, -1:, 0], future.heading_rad[:, :, 0]], 1)
        speed = torch.cat([history.speed_mps[:, -1:, 0], future.speed_mps[:, :, 0]], 1)
        acceleration, steering = recorded_controls(heading, speed, history.length_m[:, -1, 0], model.config.dt_s)
        nothing = torch.zeros_like(speed[:, 0])
        goal = Goal(nothing, torch.full_like(nothing, -1, dtype=torch.long))

        def recorded(
            step: int, scene: TrafficState, before: TrafficState, a: Tensor = acceleration, s: Tensor = steering
        ) -> Controls:
            return Controls(a[:, step], s[:, step])

        memory = model.observe(history, road)
        _, raw = imagine(
            model,
            memory,
            history[:, -2],
            road,
            goal,
            recorded,
            config.horizon_steps,
            noise,
            config.sample_latent,
            config.uncertainty,
        )
        assert raw is not None
        raws.append(raw)
    return UncertaintyScale.measured(torch.cat(raws))


@dataclass
class PolicyTrainer:
    """One training run of a policy, resumable at every checkpoint to the last bit.

    Args:
        world_model: The frozen world model.
        policy: Architecture of the policy.
        config: Training settings.
        stores: Recordings whose scenes rollouts start from.
        output: Folder of `policy.safetensors` and `policy-training-state.pt`.
        seed: Seed of the weights, the starts and the latents.
        device: Device to train on.
        world_model_file: Where the world model came from, kept with the weights.
    """

    world_model: WorldModel
    policy: PolicyConfig
    config: PolicyTrainingConfig
    stores: Sequence[WindowStore]
    output: Path
    seed: int = 0
    device: str = "cpu"
    world_model_file: str = ""

    def __post_init__(self) -> None:
        if abs(self.policy.dt_s - self.world_model.config.dt_s) > 1e-6:
            raise InputError(
                f"the policy is at {self.policy.dt_s} s per step, the world model at {self.world_model.config.dt_s} s"
            )
        config = self.config
        self.world_model = self.world_model.to(self.device).eval().requires_grad_(False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.network = Policy(self.policy).to(self.device)
        self.batches = torch.Generator().manual_seed(self.seed)
        self.noise = torch.Generator(self.device).manual_seed(self.seed + 1)
        self.energy = Energy(config.energy)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate)
        self.starts = StartSampler(self.stores, "train", config.starts, self.policy.dt_s)
        has_validation = any(len(store.rows("val", 1, 1)) for store in self.stores)
        self.validated_on = "val" if has_validation else "train"
        self.validation_starts = StartSampler(self.stores, self.validated_on, config.starts, self.policy.dt_s)
        self.scale = self._scale() if config.use_uncertainty else None
        self.done_steps, self.best = 0, math.inf

    def _scale(self) -> UncertaintyScale:
        generator = torch.Generator().manual_seed(self.seed + 4)
        noise = torch.Generator(self.device).manual_seed(self.seed + 5)
        return measure_uncertainty(self.world_model, self.stores, self.config, generator, noise)

    @property
    def policy_path(self) -> Path:
        return Path(self.output) / "policy.safetensors"

    @property
    def state_path(self) -> Path:
        return Path(self.output) / "policy-training-state.pt"

    def train(self, log: Log, on_step: Callable[[int, Mapping[str, float]], None] = lambda *_: None) -> Path:
        """Train to `config.steps`; returns the path of the policy. Resumes where `resume()` left it."""
        config = self.config
        while self.done_steps < config.steps:
            terms, norm = self._step()
            self.done_steps += 1
            step = self.done_steps
            on_step(step, {"energy": sum(terms.values()), "proximity": terms.get("proximity", 0.0)})
            if step % 10 == 0:
                values = {f"train/{name}": value for name, value in terms.items()}
                log(step, values | {"train/energy": sum(terms.values()), "train/gradient_norm": norm})
            if step % config.validate_every == 0 or step == config.steps:
                self._validate(log)
            if step % config.checkpoint_every == 0 or step == config.steps:
                self.save_state()
        return self.policy_path

    def unroll(self, starts: Starts, noise: torch.Generator) -> dict[str, Tensor]:
        """Weighted cost terms `(batch, time)` of the policy's imagined rollouts from `starts`."""
        with torch.no_grad():
            memory = self.world_model.observe(starts.history, starts.road)

        def control(step: int, scene: TrafficState, before: TrafficState) -> Controls:
            return self.network(scene, before, starts.road, starts.goal)

        config = self.config
        trajectory, _ = imagine(
            self.world_model,
            memory,
            starts.history[:, -2],
            starts.road,
            starts.goal,
            control,
            config.horizon_steps,
            noise,
            config.sample_latent,
            config.uncertainty if self.scale else None,
            self.scale,
            config.others_listen,
        )
        return self.energy.terms(trajectory)

    def _step(self) -> tuple[dict[str, float], float]:
        config, step = self.config, self.done_steps
        warmup = min((step + 1) / 50, 1.0)
        cosine = 0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * step / config.steps))
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * warmup * cosine
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        batches = self.starts.draw(config.batch, self.batches)
        total = sum(starts.history.valid.shape[0] for starts in batches)
        for drawn in batches:
            starts = drawn.to(self.device)
            terms = self.unroll(starts, self.noise)
            loss = self.energy.total(terms).sum() / total
            if not torch.isfinite(loss):
                raise FloatingPointError(
                    f"energy is {loss.item()} at step {step}; the last checkpoint is kept in {self.output}"
                )
            loss.backward()
            for name, values in terms.items():
                sums[name] = sums.get(name, 0.0) + float(values.detach().mean(1).sum()) / total
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), config.gradient_clip)
        if torch.isfinite(norm):  # a rollout that blew up loses its turn, not the run
            self.optimizer.step()
        return sums, float(norm)

    @torch.no_grad()
    def _validate(self, log: Log) -> None:
        """Score the same starts under the same noise each time; keep the policy if it is the best so far."""
        config = self.config
        noise = torch.Generator(self.device).manual_seed(self.seed + 3)
        drawn = self.validation_starts.draw(config.validation_rollouts, torch.Generator().manual_seed(self.seed + 2))
        total = sum(starts.history.valid.shape[0] for starts in drawn)
        sums: dict[str, float] = {"energy": 0.0}
        for each in drawn:
            terms = self.unroll(each.to(self.device), noise)
            sums["energy"] += float(self.energy.total(terms).sum()) / total
            for name, values in terms.items():
                sums[name] = sums.get(name, 0.0) + float(values.mean(1).sum()) / total
        log(self.done_steps, {f"{self.validated_on}/{name}": value for name, value in sums.items()})
        if sums["energy"] < self.best:
            self.best = sums["energy"]
            extra = {
                "step": self.done_steps,
                "validation": sums,
                "energy": asdict(config.energy),
                "lane_choice": asdict(config.lane_choice),
                "training": asdict(config),
                "world_model": self.world_model_file,
                "seed": self.seed,
            }
            save_model(self.policy_path, self.network, POLICY_KIND, self.policy, extra)

    def save_state(self) -> None:
        """Write all that `resume` needs, atomically."""
        save_training_state(
            self.state_path,
            config=self._identity(),
            network=self.network.state_dict(),
            optimizer=self.optimizer.state_dict(),
            batches=self.batches.get_state(),
            noise=self.noise.get_state(),
            done_steps=self.done_steps,
            best=self.best,
        )

    def _identity(self) -> dict:
        data = [store.fingerprint for store in self.stores]
        model = weights_digest(self.world_model)
        # as JSON has it, so that what was stored compares equal to what is asked for
        return json.loads(
            json.dumps(
                {
                    "policy": asdict(self.policy),
                    "training": asdict(self.config),
                    "seed": self.seed,
                    "data": data,
                    "world_model": model,
                }
            )
        )

    def resume(self) -> int:
        """Take up `policy-training-state.pt` if there is one; returns the steps already done."""
        if not self.state_path.is_file():
            return 0
        state = load_training_state(self.state_path)
        if state["config"] != self._identity():
            raise InputError(
                f"{self.state_path}: belongs to a run with other settings; choose another --output or delete it"
            )
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.batches.set_state(state["batches"])
        self.noise.set_state(state["noise"])
        self.done_steps, self.best = state["done_steps"], state["best"]
        return self.done_steps
