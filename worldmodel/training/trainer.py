"""Training the world model: multi-step rollouts, growing horizon, KL schedule, validation by diagnostics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from drivecast.worldmodel.energy.reconstruction_scale import ENERGY_SCALE, ReconstructionScale
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.loading import WORLD_MODEL_FILE, stored_model, world_model_of
from drivecast.worldmodel.forecaster.model import MODEL_KIND, WorldModel, WorldModelConfig
from drivecast.worldmodel.recordings.sampling import (
    WindowRequest,
    WindowSampler,
    mirrored,
    mirrored_road,
    scaled,
    scaled_road,
    with_short_histories,
)
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.recordings.window import Window
from drivecast.worldmodel.storage.checkpoint import save_model, weights_digest
from drivecast.worldmodel.training.calibration import coverage_gaps, shrunk
from drivecast.worldmodel.training.diagnostics import diagnose
from drivecast.worldmodel.training.objective import Loss, ObjectiveConfig, loss_of_rollout
from drivecast.worldmodel.training.optimisation import BestModel, Log, Optimisation


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
        eventful_share: Share of windows whose ego brakes or changes lane as few do (`eventful_rows`). Its motion is
            known there, so that others learn to answer what is rare, and nobody learns that it is not. At most
            `ego_known_share`, of which they are a part.
        mirror: Exchange left and right in half the batches.
        scale: Each window's lengths and speeds, the road's with them, are multiplied by a factor of up to 1 + `scale`
            or divided by it: whoever follows at two seconds does so at any size of the world. 0: not at all.
        learning_rate: Peak of the Adam learning rate; warmed up, then lowered along a cosine.
        weight_decay: AdamW's weight decay.
        gradient_clip: Largest norm of the gradient.
        kl_warmup_share: Share of the steps over which the KL weight grows from zero.
        validate_every: Steps between validations.
        validation_windows: Windows of one validation.
        checkpoint_every: Steps between checkpoints.
        calibrate: Afterwards, choose a temperature: half-way to that at which samples are as wide as validation.
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
    eventful_share: float = 0.0
    mirror: bool = True
    scale: float = 0.0
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    gradient_clip: float = 1.0
    kl_warmup_share: float = 0.3
    validate_every: int = 250
    validation_windows: int = 64
    checkpoint_every: int = 250
    calibrate: bool = False
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
        if not 0.0 <= self.eventful_share <= self.ego_known_share:
            known = self.ego_known_share
            raise ValueError(f"eventful_share must lie in [0, ego_known_share = {known}], not {self.eventful_share}")
        if self.scale < 0.0:
            raise ValueError(f"scale must not be negative, not {self.scale}")
        if self.learning_rate <= 0.0 or self.gradient_clip <= 0.0:
            raise ValueError("learning_rate and gradient_clip must be positive")


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
        start_from: A model of this architecture whose weights it starts from; None: random ones.
    """

    model: WorldModelConfig
    config: WorldModelTrainingConfig
    stores: Sequence[WindowStore]
    output: Path
    seed: int = 0
    device: str = "cpu"
    start_from: WorldModel | None = None

    def __post_init__(self) -> None:
        for store in self.stores:
            if abs(store.dt_s - self.model.dt_s) > 1e-6:
                raise InputError(f"recordings are at {store.dt_s} s per step, the model at {self.model.dt_s} s")
        config, output = self.config, Path(self.output)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.network = WorldModel(self.model).to(self.device)
        started = {}
        if self.start_from is not None:
            self.network.load_state_dict(self.start_from.state_dict())
            started = {"start_from": weights_digest(self.start_from)}
        data = [store.fingerprint for store in self.stores]
        self.optimisation = Optimisation(
            self.network,
            torch.optim.AdamW(self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay),
            config,
            BestModel(output / WORLD_MODEL_FILE, MODEL_KIND, self.model, {"data": data, **started}),
            output / "training-state.pt",
            {"model": asdict(self.model), "training": asdict(config), "seed": self.seed, "data": data, **started},
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
        path = self.optimisation.train(self._step, self._validate, self.validated_on, log, on_step)
        if self.optimisation.crew.leads:
            if self.config.calibrate and self.model.latent_dims:
                self._calibrate(path, log)
            self._measure_scale(path)
        return path

    def _measure_scale(self, path: Path) -> None:
        """Store the best model's usual errors with it, on training windows: its energies count in them."""
        best, config = stored_model(path), self.config
        network = world_model_of(best, self.device)
        sampler = WindowSampler(
            self.stores, "train", WindowRequest(config.history_steps, config.horizon_steps, config.max_agents)
        )
        drawn = sampler.draw(config.validation_windows, torch.Generator().manual_seed(self.seed + 6))
        parts = ((window.history, window.road, window.future) for window in (each.to(self.device) for each in drawn))
        try:
            scale = ReconstructionScale.measured(network, parts)
        except ValueError:  # too few vehicles to measure it on
            return
        save_model(path, network, MODEL_KIND, network.config, {**best.extra, ENERGY_SCALE: scale.as_json()})

    def _calibrate(self, path: Path, log: Log) -> None:
        """Give the best model its temperature."""
        best, config = stored_model(path), self.config
        network = world_model_of(best, self.device)
        windows = self.validation_windows.draw(config.validation_windows, torch.Generator().manual_seed(self.seed + 4))
        gaps = coverage_gaps(network, windows, config.scored_agents, self.device, self.seed + 5)
        wanted = min(gaps, key=lambda each: gaps[each])
        temperature = shrunk(wanted)
        save_model(path, network, MODEL_KIND, replace(self.model, temperature=temperature), best.extra)
        found = {"temperature": temperature, "wanted_temperature": wanted}
        found |= {"coverage_gap": gaps[wanted], "coverage_gap_at_1": gaps[1.0]}
        log(self.optimisation.done_steps, {f"{self.validated_on}/{name}": value for name, value in found.items()})

    def _step(self) -> dict[str, float]:
        config, step = self.config, self.optimisation.done_steps
        growth = min(2.0 * step / config.steps, 1.0)
        first = min(config.first_horizon_steps, config.horizon_steps)
        horizon = round(first + growth * (config.horizon_steps - first))
        kl_weight = config.objective.kl_weight * min(step / max(config.kl_warmup_share * config.steps, 1.0), 1.0)
        self.optimisation.start_step()
        measures: dict[str, float] = {}
        batch = self.optimisation.crew.share(config.batch)
        for _, window, eventful in self.training_windows.draw_marked(batch, self.optimisation.batches):
            share = window.history.valid.shape[0] / batch
            loss = self._loss(window, eventful, horizon, kl_weight)
            self.optimisation.descend(loss.total * share, where=f"on frames {window.frame.tolist()}")
            for name, value in (
                ("loss", loss.total),
                ("reconstruction", loss.reconstruction),
                ("kl", loss.kl),
                ("likeliest", loss.likeliest),
                ("energy_score", loss.energy_score),
                ("overlap_m2", loss.overlap_m2),
            ):
                measures[name] = measures.get(name, 0.0) + share * value.item()
        return measures | {"gradient_norm": self.optimisation.finish_step()}

    def _loss(self, window: Window, eventful: Tensor, horizon: int, kl_weight: float) -> Loss:
        config, batches = self.config, self.optimisation.batches
        history, future, road = window.history, window.future[:, :horizon], window.road
        history = with_short_histories(history, batches)
        if config.mirror and torch.rand((), generator=batches) < 0.5:
            history, future, road = mirrored(history), mirrored(future), mirrored_road(road)
        if config.scale:
            exponent = 2.0 * torch.rand(len(history.valid), generator=batches) - 1.0
            factor = (1.0 + config.scale) ** exponent
            history, future, road = scaled(history, factor), scaled(future, factor), scaled_road(road, factor)
        who = torch.zeros_like(history.valid[:, -1])
        # of the other windows, so many that `ego_known_share` of all are known
        share = (config.ego_known_share - config.eventful_share) / max(1.0 - config.eventful_share, 1e-9)
        who[:, 0] = eventful | (torch.rand(len(who), generator=batches) < share)
        counted = torch.arange(who.shape[1]) < config.scored_agents
        history, future, road = history.to(self.device), future.to(self.device), road.to(self.device)
        who, counted = who.to(self.device), counted.expand_as(who).to(self.device)
        return loss_of_rollout(
            self.network,
            history,
            future,
            road,
            who,
            counted,
            config.objective,
            kl_weight,
            self.optimisation.noise,
            score_samples=config.objective.scores_samples,
        )

    def _validate(self) -> tuple[dict[str, float], float]:
        """Score the same windows under the same noise each time."""
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
        if config.objective.scores_samples:  # judged by what is trained, futures drawn from the prior
            return sums, sums["energy_score"]
        # by the forecast without a latent and by the reconstruction with one, so that neither is given up
        return sums, sums["forecast_error"] + sums["reconstruction"]
