"""Training a joint embedding: windows of recordings, and as many of ways that their egos did not go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.joint_embedding.diagnostics import diagnose
from drivecast.worldmodel.joint_embedding.frames import SceneFrames, window_frames, with_another_way
from drivecast.worldmodel.joint_embedding.loading import JOINT_EMBEDDING_FILE, JOINT_EMBEDDING_KIND
from drivecast.worldmodel.joint_embedding.network import JointEmbedding, JointEmbeddingConfig
from drivecast.worldmodel.joint_embedding.objective import JointEmbeddingObjectiveConfig, loss_of
from drivecast.worldmodel.recordings.sampling import (
    WindowRequest,
    WindowSampler,
    mirrored_window,
    with_short_histories,
)
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.recordings.window import Window
from drivecast.worldmodel.training.optimisation import BestModel, Log, Optimisation


@dataclass(frozen=True)
class JointEmbeddingTrainingConfig:
    """Training of a joint embedding.

    Args:
        steps: Optimiser steps.
        batch: Windows of a batch.
        max_agents: Vehicles of a window at most, the nearest to its ego.
        history_steps: Steps of past given at most; half the windows show a random part of them.
        horizon_steps: Steps that are predicted.
        other_ways_share: Share of windows whose ego goes a way that it did not go, among others that do as they did.
        eventful_share: Share of windows whose ego brakes or changes lane as few do.
        mirror: Exchange left and right in half the batches.
        learning_rate: Peak of the Adam learning rate; warmed up, then lowered along a cosine.
        weight_decay: AdamW's weight decay.
        gradient_clip: Largest norm of the gradient.
        validate_every: Steps between validations.
        validation_windows: Windows of one validation.
        checkpoint_every: Steps between checkpoints.
        objective: The loss.
    """

    steps: int = 3000
    batch: int = 128
    max_agents: int = 12
    history_steps: int = 20
    horizon_steps: int = 50
    other_ways_share: float = 0.7
    eventful_share: float = 0.0
    mirror: bool = True
    learning_rate: float = 2e-3
    weight_decay: float = 1e-5
    gradient_clip: float = 1.0
    validate_every: int = 250
    validation_windows: int = 512
    checkpoint_every: int = 250
    objective: JointEmbeddingObjectiveConfig = field(default_factory=JointEmbeddingObjectiveConfig)

    def __post_init__(self) -> None:
        least = {"batch": 2, "max_agents": 2, "validation_windows": 2}
        for name in ("steps", "history_steps", "horizon_steps", "validate_every", "checkpoint_every", *least):
            value, smallest = getattr(self, name), least.get(name, 1)
            if value < smallest:
                raise InputError(f"joint_embedding.training.{name}: expected at least {smallest}, got {value}")
        for name in ("other_ways_share", "eventful_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(f"joint_embedding.training.{name}: expected 0 to 1, got {getattr(self, name)}")
        if self.learning_rate <= 0.0 or self.gradient_clip <= 0.0:
            raise InputError("joint_embedding.training: expected learning_rate and gradient_clip above 0")


@dataclass
class JointEmbeddingTrainer:
    """One training run, resumable at every checkpoint to the last bit.

    Args:
        model: Architecture.
        config: Training settings.
        stores: Recordings to learn from; their `train` split is trained on, their `val` split validated on.
        output: Folder of `joint-embedding.safetensors` (the best so far in validation) and `training-state.pt`.
        seed: Seed of the weights and the batches.
        device: Device to train on.
    """

    model: JointEmbeddingConfig
    config: JointEmbeddingTrainingConfig
    stores: Sequence[WindowStore]
    output: Path
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        config, output = self.config, Path(self.output)
        for store in self.stores:
            if abs(store.dt_s - self.model.dt_s) > 1e-6:
                raise InputError(f"recordings are at {store.dt_s} s per step, the model at {self.model.dt_s} s")
        if config.horizon_steps < self.model.stride:
            raise InputError(
                f"joint_embedding.training.horizon_steps: expected a frame of {self.model.stride} steps at least, "
                f"got {config.horizon_steps}"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.network = JointEmbedding(self.model).to(self.device)
        data = [store.fingerprint for store in self.stores]
        self.optimisation = Optimisation(
            self.network,
            torch.optim.AdamW(self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay),
            config,
            BestModel(output / JOINT_EMBEDDING_FILE, JOINT_EMBEDDING_KIND, self.model, {"data": data}),
            output / "training-state.pt",
            {"model": asdict(self.model), "training": asdict(config), "seed": self.seed, "data": data},
            self.seed,
        )
        request = WindowRequest(config.history_steps, config.horizon_steps, config.max_agents)
        self.training_windows = WindowSampler(self.stores, "train", request, eventful_share=config.eventful_share)
        has_validation = any(len(store.rows("val", 1, config.horizon_steps)) for store in self.stores)
        self.validated_on = "val" if has_validation else "train"
        self.validation_windows = WindowSampler(self.stores, self.validated_on, request)

    def resume(self) -> int:
        """Take up `training-state.pt` if there is one; returns the steps already done."""
        return self.optimisation.resume()

    def train(self, log: Log, on_step: Log = lambda *_: None) -> Path:
        """Train to `config.steps`; returns the path of the best model. Resumes where `resume()` left it."""
        return self.optimisation.train(self._step, self._validate, self.validated_on, log, on_step)

    def _step(self) -> dict[str, float]:
        config, optimisation = self.config, self.optimisation
        optimisation.start_step()
        batch = optimisation.crew.share(config.batch)
        windows = self.training_windows.draw(batch, optimisation.batches)
        joined, past = self._joined(windows)
        parts = loss_of(self.network, joined.to(self.device), past, config.objective, optimisation.noise)
        frames = [frame for window in windows for frame in window.frame.tolist()]
        optimisation.descend(parts["loss"], where=f"on frames {frames}")
        return {name: value.item() for name, value in parts.items()} | {"gradient_norm": optimisation.finish_step()}

    def _joined(self, windows: Sequence[Window]) -> tuple[SceneFrames, int]:
        """One batch of several stores' windows, changed as the training asks; and its frames of history."""
        config, generator, model = self.config, self.optimisation.batches, self.model
        found, past = [], 1
        for window in windows:
            window = replace(window, history=with_short_histories(window.history, generator))
            if config.mirror and torch.rand((), generator=generator) < 0.5:
                window = mirrored_window(window)
            who = torch.rand(len(window.frame), generator=generator) < config.other_ways_share
            window = with_another_way(window, model.dt_s, who, generator)
            frames, past = window_frames(window, model.dt_s, model.stride)
            found.append(frames)
        return SceneFrames.cat(found), past

    def _validate(self) -> tuple[dict[str, float], float]:
        """Score the same windows each time, by the loss of what was recorded."""
        config = self.config
        windows = self.validation_windows.draw(config.validation_windows, torch.Generator().manual_seed(self.seed + 2))
        frames = [window_frames(window, self.model.dt_s, self.model.stride) for window in windows]
        joined, past = SceneFrames.cat([each for each, _ in frames]).to(self.device), frames[0][1]
        self.network.eval()
        measures = diagnose(self.network, joined, past, config.objective, self.seed + 3)
        self.network.train()
        return measures, measures["loss"]
