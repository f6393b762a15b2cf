"""Training the world model: multi-step rollouts, KL schedule, validation, diagnostics, exact resumption."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from worldmodel.checkpoint import load_training_state, save_model, save_training_state
from worldmodel.diagnostics import diagnose
from worldmodel.errors import InputError
from worldmodel.model import WorldModel, WorldModelConfig
from worldmodel.objective import Loss, ObjectiveConfig, loss_of_rollout
from worldmodel.recordings.sampling import (
    WindowRequest,
    WindowSampler,
    mirrored,
    mirrored_road,
    with_short_histories,
)
from worldmodel.recordings.store import Window, WindowStore

Log = Callable[[int, Mapping[str, float]], None]
MODEL_KIND = "world-model"


@dataclass(frozen=True)
class WorldModelTrainingConfig:
    """Training of the world model.

    Args:
        steps: Optimiser steps.
        batch: Windows of a batch; each holds up to `max_agents` vehicles.
        max_agents: Vehicles of a window at most, the nearest to its ego.
        scored_agents: How many of them, the nearest, are scored; the rest are context whose own surroundings are cut.
        history_steps: Steps of past given at most; half the windows show a random part of them.
        horizon_steps: Steps that are unrolled.
        first_horizon_steps: Steps unrolled at the start; the horizon grows to `horizon_steps` over the first half.
        ego_known_share: Share of windows whose ego's motion is known; in the others every vehicle is predicted.
        mirror: Exchange left and right in half the batches.
        learning_rate: Peak of the Adam learning rate; warmed up, then lowered along a cosine.
        weight_decay: AdamW's weight decay.
        gradient_clip: Largest norm of the gradient.
        kl_warmup_share: Share of the steps over which the KL weight grows from zero.
        validate_every: Steps between validations.
        validation_windows: Windows of one validation.
        checkpoint_every: Steps between checkpoints.
        objective: The loss.
    """

    steps: int = 4000
    batch: int = 16
    max_agents: int = 24
    scored_agents: int = 16
    history_steps: int = 20
    horizon_steps: int = 30
    first_horizon_steps: int = 10
    ego_known_share: float = 0.5
    mirror: bool = True
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    gradient_clip: float = 1.0
    kl_warmup_share: float = 0.3
    validate_every: int = 250
    validation_windows: int = 64
    checkpoint_every: int = 250
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)

    def __post_init__(self) -> None:
        positive: tuple[str, ...] = ("steps", "batch", "max_agents", "scored_agents", "history_steps", "horizon_steps")
        positive += ("first_horizon_steps", "validate_every", "validation_windows", "checkpoint_every")
        for name in positive:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("ego_known_share", "kl_warmup_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must lie in [0, 1], not {getattr(self, name)}")
        if self.learning_rate <= 0.0 or self.gradient_clip <= 0.0:
            raise ValueError("learning_rate and gradient_clip must be positive")


def learning_rate_share(step: int, steps: int, warmup: int = 100) -> float:
    """Share of the peak learning rate at `step`: linear warm-up, then a cosine down to 2 %."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(steps - warmup, 1)
    return 0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


@dataclass
class WorldModelTrainer:
    """One training run of a world model, resumable at every checkpoint to the last bit.

    Args:
        model: Architecture.
        config: Training settings.
        stores: Recordings to learn from; their `train` split is trained on, their `val` split validated on.
        output: Folder of `world-model.safetensors` (the best so far in validation) and `training-state.pt`.
        seed: Seed of the weights, the batches and the latents.
        device: Device to train on.
        fingerprint: Fingerprints of the data, kept with the weights.
    """

    model: WorldModelConfig
    config: WorldModelTrainingConfig
    stores: Sequence[WindowStore]
    output: Path
    seed: int = 0
    device: str = "cpu"
    fingerprint: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for store in self.stores:
            if abs(store.dt_s - self.model.dt_s) > 1e-6:
                raise InputError(f"recordings are at {store.dt_s} s per step, the model at {self.model.dt_s} s")
        config = self.config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.network = WorldModel(self.model).to(self.device)
        self.batches = torch.Generator().manual_seed(self.seed)
        self.noise = torch.Generator(self.device).manual_seed(self.seed + 1)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        request = WindowRequest(config.history_steps, config.horizon_steps, config.max_agents)
        self.training_windows = WindowSampler(self.stores, "train", request)
        has_validation = any(len(store.rows("val", 1, config.horizon_steps)) for store in self.stores)
        self.validation_windows = WindowSampler(self.stores, "val" if has_validation else "train", request)
        self.validated_on = "val" if has_validation else "train"
        self.done_steps, self.best = 0, math.inf

    @property
    def model_path(self) -> Path:
        return Path(self.output) / "world-model.safetensors"

    @property
    def state_path(self) -> Path:
        return Path(self.output) / "training-state.pt"

    def train(self, log: Log, on_step: Callable[[int, Mapping[str, float]], None] = lambda *_: None) -> Path:
        """Train to `config.steps`; returns the path of the best model. Resumes where `resume()` left it."""
        config = self.config
        while self.done_steps < config.steps:
            shown, norm = self._step()
            self.done_steps += 1
            step = self.done_steps
            on_step(step, shown)
            if step % 10 == 0:
                log(step, {f"train/{name}": value for name, value in shown.items()} | {"train/gradient_norm": norm})
            if step % config.validate_every == 0 or step == config.steps:
                self._validate(log)
            if step % config.checkpoint_every == 0 or step == config.steps:
                self.save_state()
        return self.model_path

    def _step(self) -> tuple[dict[str, float], float]:
        config, step = self.config, self.done_steps
        growth = min(2.0 * step / config.steps, 1.0)
        first = min(config.first_horizon_steps, config.horizon_steps)
        horizon = round(first + growth * (config.horizon_steps - first))
        kl_weight = config.objective.kl_weight * min(step / max(config.kl_warmup_share * config.steps, 1.0), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * learning_rate_share(step, config.steps)
        self.optimizer.zero_grad(set_to_none=True)
        windows = self.training_windows.draw(config.batch, self.batches)
        losses: list[tuple[float, Loss]] = []
        for window in windows:
            share = window.history.valid.shape[0] / config.batch
            loss = self._loss(window, horizon, kl_weight)
            if not torch.isfinite(loss.total):
                raise FloatingPointError(
                    f"loss is {loss.total.item()} at step {step} on frames {window.frame.tolist()}; "
                    f"the last checkpoint is kept in {self.output}"
                )
            (loss.total * share).backward()
            losses.append((share, loss))
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), config.gradient_clip)
        self.optimizer.step()
        shown = {
            "loss": sum(share * loss.total.item() for share, loss in losses),
            "reconstruction": sum(share * loss.reconstruction.item() for share, loss in losses),
            "kl": sum(share * loss.kl.item() for share, loss in losses),
        }
        return shown, float(norm)

    def _loss(self, window: Window, horizon: int, kl_weight: float) -> Loss:
        config = self.config
        history, future, road = window.history, window.future[:, :horizon], window.road
        history = with_short_histories(history, self.batches)
        if config.mirror and torch.rand((), generator=self.batches) < 0.5:
            history, future, road = mirrored(history), mirrored(future), mirrored_road(road)
        who = torch.zeros_like(history.valid[:, -1])
        who[:, 0] = torch.rand(len(who), generator=self.batches) < config.ego_known_share
        counted = torch.arange(who.shape[1]) < config.scored_agents
        history, future, road = history.to(self.device), future.to(self.device), road.to(self.device)
        who, counted = who.to(self.device), counted.expand_as(who).to(self.device)
        return loss_of_rollout(
            self.network, history, future, road, who, counted, config.objective, kl_weight, self.noise
        )

    def _validate(self, log: Log) -> None:
        """Score the same windows under the same noise each time; keep the model if it is the best so far."""
        config = self.config
        windows = self.validation_windows.draw(config.validation_windows, torch.Generator().manual_seed(self.seed + 2))
        generator = torch.Generator(self.device).manual_seed(self.seed + 3)
        self.network.eval()
        sums: dict[str, float] = {}
        for window in windows:
            share = window.history.valid.shape[0] / config.validation_windows
            for name, value in diagnose(self.network, window, config.objective, self.device, generator).items():
                sums[name] = sums.get(name, 0.0) + share * value
        self.network.train()
        log(self.done_steps, {f"{self.validated_on}/{name}": value for name, value in sums.items()})
        # judged by the forecast without a latent and by the reconstruction with one, so that neither is given up
        score = sums["forecast_error"] + sums["reconstruction"]
        if score < self.best:
            self.best = score
            extra = {"step": self.done_steps, "validation": sums, "data": list(self.fingerprint), "seed": self.seed}
            save_model(self.model_path, self.network, MODEL_KIND, self.model, extra)

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
        return {"model": asdict(self.model), "training": asdict(self.config), "seed": self.seed, "data": data}

    def resume(self) -> int:
        """Take up `training-state.pt` if there is one; returns the steps already done."""
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
