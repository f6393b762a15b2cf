"""Where a policy's rollouts start and who answers it in them: what a policy is trained in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, Protocol, TypeVar

import torch

from drivecast.planner.costs.energy import EnergyWeights, Term
from drivecast.planner.costs.likelihood import Unlikely
from drivecast.planner.costs.trajectory import Trajectory
from drivecast.planner.imagination.calibration import measure_uncertainty
from drivecast.planner.imagination.rollout import Reaction, imagine
from drivecast.planner.imagination.starts import StartConfig, Starts, StartSampler
from drivecast.worldmodel.energy.model_energy import ModelEnergy
from drivecast.worldmodel.energy.reconstruction_scale import ReconstructionScale
from drivecast.worldmodel.energy.uncertainty import UncertaintyConfig
from drivecast.worldmodel.forecaster.model import WorldModel
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.scene.traffic import Controls, TrafficState
from drivecast.worldmodel.storage.checkpoint import weights_digest

S = TypeVar("S", bound=Starts)


class ImaginedRolloutSettings(Protocol):
    """What imagined rollouts take from the settings of their training; they explain the values."""

    @property
    def starts(self) -> StartConfig: ...
    @property
    def horizon_steps(self) -> int: ...
    @property
    def others_listen(self) -> bool: ...
    @property
    def sample_latent(self) -> bool: ...
    @property
    def use_uncertainty(self) -> bool: ...
    @property
    def uncertainty(self) -> UncertaintyConfig: ...


class Rollouts(Protocol, Generic[S]):
    """Starts of rollouts, and what follows from them when a policy drives; differentiable in the policy.

    Attributes:
        dt_s: Time step, s.
        validated_on: What validation starts are drawn from, in a word.
        identity: Plain JSON. All that the outcome depends on beside the policy, its training settings and the seed.
        origin: Plain JSON, stored with the weights: where what answers came from.
    """

    @property
    def dt_s(self) -> float: ...
    @property
    def validated_on(self) -> str: ...
    @property
    def identity(self) -> Mapping[str, Any]: ...
    @property
    def origin(self) -> Mapping[str, Any]: ...

    def draw(self, batch: int, generator: torch.Generator) -> Sequence[S]:
        """About `batch` starts to train from, one `Starts` per road or store that was drawn from."""
        ...

    def draw_validation(self, batch: int, generator: torch.Generator) -> Sequence[S]:
        """The same to validate from."""
        ...

    def unroll(self, policy: Any, starts: S, noise: torch.Generator) -> Trajectory:
        """The rollouts from `starts` of a policy that sees what they show: a `Reaction`, where that is scenes."""
        ...

    def more_terms(self, weights: EnergyWeights) -> Sequence[Term]:
        """What can be scored of these rollouts beside the driving costs."""
        ...


class ImaginedRollouts:
    """Rollouts imagined by a frozen world model, from recorded scenes (MPUR).

    Args:
        world_model: The world model; it is moved to `device` and frozen.
        stores: Recordings whose scenes rollouts start from.
        config: Start states, horizon, latents and uncertainty.
        seed: Of the scenes and latents on which the uncertainty's scale is measured.
        device: Where to imagine.
        world_model_file: Where the world model came from.
        energy_scale: The world model's usual errors, in which its energy counts; None: the standard ones.
    """

    def __init__(
        self,
        world_model: WorldModel,
        stores: Sequence[WindowStore],
        config: ImaginedRolloutSettings,
        seed: int = 0,
        device: str = "cpu",
        world_model_file: str = "",
        energy_scale: ReconstructionScale | None = None,
    ) -> None:
        self.world_model = world_model.to(device).eval().requires_grad_(False)
        self.config, self.dt_s = config, world_model.config.dt_s
        self.energy = ModelEnergy(self.world_model, energy_scale or ReconstructionScale.standard())
        self.identity = {"data": [store.fingerprint for store in stores], "world_model": weights_digest(world_model)}
        self.origin = {"world_model": world_model_file}
        self.starts = StartSampler(stores, "train", config.starts, self.dt_s)
        has_validation = any(len(store.rows("val", 1, 1)) for store in stores)
        self.validated_on = "val" if has_validation else "train"
        self.validation_starts = StartSampler(stores, self.validated_on, config.starts, self.dt_s)
        self.scale = None
        if config.use_uncertainty:
            self.scale = measure_uncertainty(
                self.world_model,
                stores,
                config.starts,
                config.horizon_steps,
                config.uncertainty,
                config.sample_latent,
                torch.Generator().manual_seed(seed + 4),
                torch.Generator(device).manual_seed(seed + 5),
            )

    def draw(self, batch: int, generator: torch.Generator) -> Sequence[Starts]:
        return self.starts.draw(batch, generator)

    def draw_validation(self, batch: int, generator: torch.Generator) -> Sequence[Starts]:
        return self.validation_starts.draw(batch, generator)

    def unroll(self, policy: Reaction, starts: Starts, noise: torch.Generator) -> Trajectory:
        config = self.config
        with torch.no_grad():
            memory = self.world_model.observe(starts.history, starts.road)

        def control(step: int, scene: TrafficState, before: TrafficState) -> Controls:
            return policy(scene, before, starts.road, starts.goal)

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
        return replace(trajectory, past=starts.history)

    def more_terms(self, weights: EnergyWeights) -> Sequence[Term]:
        return [Term("unlikely", Unlikely(self.energy), weights.unlikely)]
