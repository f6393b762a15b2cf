"""Training the raster predictor on pictures of recorded windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.raster.clips import Clip, Seen, window_clips
from drivecast.worldmodel.raster.diagnostics import diagnose
from drivecast.worldmodel.raster.loading import RASTER_FILE, RASTER_KIND
from drivecast.worldmodel.raster.network import RasterConfig, RasterModel
from drivecast.worldmodel.raster.objective import RasterObjectiveConfig, loss_of
from drivecast.worldmodel.recordings.sampling import WindowRequest, WindowSampler, mirrored_window
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.recordings.window import Window
from drivecast.worldmodel.storage.checkpoint import weights_digest
from drivecast.worldmodel.training.optimisation import BestModel, Log, Optimisation


@dataclass(frozen=True)
class RasterTrainingConfig:
    """Training of a raster predictor.

    Args:
        steps: Optimiser steps.
        batch: Clips of a batch.
        max_agents: Vehicles of a clip at most, the nearest to its ego.
        horizon_steps: Pictures that are predicted one from the other, in the end.
        first_horizon_steps: And in the beginning.
        grow_share: Share of the training over which the horizon grows.
        eventful_share: Share of clips whose ego brakes or changes lane as few do.
        mirror: Exchange left and right in half the batches.
        learning_rate: Peak of the Adam learning rate; warmed up, then lowered along a cosine.
        weight_decay: AdamW's weight decay.
        gradient_clip: Largest norm of the gradient.
        validate_every: Steps between validations.
        validation_clips: Clips of one validation.
        checkpoint_every: Steps between checkpoints.
        objective: The loss.
    """

    steps: int = 3000
    batch: int = 16
    max_agents: int = 24
    horizon_steps: int = 20
    first_horizon_steps: int = 4
    grow_share: float = 0.6
    eventful_share: float = 0.2
    mirror: bool = True
    learning_rate: float = 1.5e-3
    weight_decay: float = 1e-5
    gradient_clip: float = 100.0
    validate_every: int = 200
    validation_clips: int = 128
    checkpoint_every: int = 100
    objective: RasterObjectiveConfig = field(default_factory=RasterObjectiveConfig)

    def __post_init__(self) -> None:
        least = {"batch": 2, "max_agents": 2, "validation_clips": 2}
        for name in ("steps", "horizon_steps", "first_horizon_steps", "validate_every", "checkpoint_every", *least):
            value, smallest = getattr(self, name), least.get(name, 1)
            if value < smallest:
                raise InputError(f"raster.training.{name}: expected at least {smallest}, got {value}")
        for name in ("grow_share", "eventful_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(f"raster.training.{name}: expected 0 to 1, got {getattr(self, name)}")
        if self.first_horizon_steps > self.horizon_steps:
            raise InputError(
                f"raster.training.first_horizon_steps: expected at most horizon_steps, {self.horizon_steps}, "
                f"got {self.first_horizon_steps}"
            )
        if self.learning_rate <= 0.0 or self.gradient_clip <= 0.0:
            raise InputError("raster.training: expected learning_rate and gradient_clip above 0")

    def horizon_at(self, step: int) -> int:
        """Pictures that are predicted in `step`."""
        growth = min(step / max(self.steps * self.grow_share, 1.0), 1.0)
        return round(self.first_horizon_steps + (self.horizon_steps - self.first_horizon_steps) * growth)


@dataclass
class RasterTrainer:
    """One training run, resumable at every checkpoint to the last bit.

    Args:
        model: Architecture.
        config: Training settings.
        stores: Recordings to learn from; their `train` split is trained on, their `val` split validated on.
        output: Folder of `raster-model.safetensors` (the best so far in validation) and `training-state.pt`.
        seed: Seed of the weights and the batches.
        device: Device to train on.
        start_from: A model of this architecture whose weights it starts from; None: random ones.
    """

    model: RasterConfig
    config: RasterTrainingConfig
    stores: Sequence[WindowStore]
    output: Path
    seed: int = 0
    device: str = "cpu"
    start_from: RasterModel | None = None

    def __post_init__(self) -> None:
        config, output = self.config, Path(self.output)
        for store in self.stores:
            if abs(store.dt_s - self.model.dt_s) > 1e-6:
                raise InputError(f"recordings are at {store.dt_s} s per step, the model at {self.model.dt_s} s")
        if self.model.latent_dims and config.horizon_steps > self.model.hold_steps:
            raise InputError(
                f"raster.training.horizon_steps: expected at most raster.model.hold_steps, {self.model.hold_steps}, "
                f"for which a latent holds; got {config.horizon_steps}"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.network = RasterModel(self.model).to(self.device)
        started = {}
        if self.start_from is not None:
            self.network.load_state_dict(self.start_from.state_dict())
            started = {"start_from": weights_digest(self.start_from)}
        data = [store.fingerprint for store in self.stores]
        self.optimisation = Optimisation(
            self.network,
            torch.optim.AdamW(self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay),
            config,
            BestModel(output / RASTER_FILE, RASTER_KIND, self.model, {"data": data, **started}),
            output / "training-state.pt",
            {"model": asdict(self.model), "training": asdict(config), "seed": self.seed, "data": data, **started},
            self.seed,
        )
        future = max(config.horizon_steps, self.model.hold_steps)
        request = WindowRequest(self.model.context, future, config.max_agents)
        self.training_windows = WindowSampler(self.stores, "train", request, eventful_share=config.eventful_share)
        has_validation = any(len(store.rows("val", 1, future)) for store in self.stores)
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
        windows = self.training_windows.draw(optimisation.crew.share(config.batch), optimisation.batches)
        seen, future = self._drawn([self._maybe_mirrored(window) for window in windows])
        steps = config.horizon_at(optimisation.done_steps)
        parts = loss_of(self.network, seen, future, steps, config.objective, optimisation.noise)
        frames = [frame for window in windows for frame in window.frame.tolist()]
        optimisation.descend(parts["loss"], where=f"on frames {frames}")
        return {name: value.item() for name, value in parts.items()} | {"gradient_norm": optimisation.finish_step()}

    def _maybe_mirrored(self, window: Window) -> Window:
        if not self.config.mirror or torch.rand((), generator=self.optimisation.batches) < 0.5:
            return window
        return mirrored_window(window)

    @torch.no_grad()
    def _drawn(self, windows: Sequence[Window]) -> tuple[Seen, Clip]:
        """Pictures of several stores' windows as one batch: what is seen, and the future."""
        model = self.model
        pairs = [window_clips(window.to(self.device), model.context, model.dt_s, model.picture) for window in windows]
        return Seen.cat([seen for seen, _ in pairs]), Clip.cat([future for _, future in pairs])

    def _validate(self) -> tuple[dict[str, float], float]:
        """Score the same clips each time, by the error of what is reconstructed and of what is forecast."""
        config, seed = self.config, self.seed
        drawn = self.validation_windows.draw(config.validation_clips, torch.Generator().manual_seed(seed + 2))
        seen, future = self._drawn(drawn)
        self.network.eval()
        measures = diagnose(self.network, seen, future, config.objective.road, seed + 3)
        self.network.train()
        return measures, measures["forecast"] + measures.get("reconstruction", 0.0)
