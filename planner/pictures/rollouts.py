"""Rollouts in pictures: the ego by its bicycle, the traffic by the frozen raster predictor, all differentiable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from drivecast.planner.costs.energy import EnergyConfig, EnergyWeights, Term
from drivecast.planner.imagination.imagined_rollouts import ImaginedRolloutSettings
from drivecast.planner.imagination.starts import Starts, StartSampler, interacting
from drivecast.planner.pictures import costs
from drivecast.planner.pictures.policy import Own, PicturePolicy
from drivecast.planner.pictures.sight import LAGS, about_ego
from drivecast.planner.pictures.trajectory import PictureTrajectory
from drivecast.worldmodel.energy.uncertainty import UncertaintyScale
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.raster.clips import Clip, Seen, future_seconds, seen_in
from drivecast.worldmodel.raster.network import RasterModel
from drivecast.worldmodel.raster.view import Picture, View, draw_vehicles
from drivecast.worldmodel.recordings.sampling import WindowRequest, WindowSampler
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.scene.kinematics import drive, recorded_controls
from drivecast.worldmodel.scene.road import NO_LANE
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState
from drivecast.worldmodel.storage.checkpoint import weights_digest

CALIBRATION_WINDOWS = 128
Control = Callable[[int, Tensor, Own], Controls]  # (step, pictures about the ego, its instruments)


class PictureRollouts:
    """Rollouts that a frozen raster predictor imagines from recorded scenes (MPUR on pictures).

    Costs of the others and of the road are read from the predicted pictures, the rest from the ego's own motion.

    Args:
        model: The raster predictor; it is moved to `device` and frozen.
        stores: Recordings whose scenes rollouts start from.
        config: Start states, horizon, latents and uncertainty.
        energy: Shapes of the costs.
        seed: Of the clips and latents on which the uncertainty's scale is measured.
        device: Where to imagine.
        model_file: Where the predictor came from.
    """

    def __init__(
        self,
        model: RasterModel,
        stores: Sequence[WindowStore],
        config: ImaginedRolloutSettings,
        energy: EnergyConfig,
        seed: int = 0,
        device: str = "cpu",
        model_file: str = "",
    ) -> None:
        if config.starts.other_lane_share > 0.0:
            raise InputError(
                "training.starts.other_lane_share: a policy that sees pictures can be told no lane; give 0, as the "
                "preset train-policy-raster does"
            )
        self.model = model.to(device).eval().requires_grad_(False)
        self.config, self.energy, self.dt_s = config, energy, model.config.dt_s
        self.identity = {"data": [store.fingerprint for store in stores], "raster_model": weights_digest(model)}
        self.origin = {"raster_model": model_file}
        starts = replace(config.starts, history_steps=model.config.context)
        self.starts = StartSampler(stores, "train", starts, self.dt_s)
        has_validation = any(len(store.rows("val", 1, 1)) for store in stores)
        self.validated_on = "val" if has_validation else "train"
        self.validation_starts = StartSampler(stores, self.validated_on, starts, self.dt_s)
        self.scale = self._measured(stores, seed) if config.use_uncertainty else None

    def draw(self, batch: int, generator: torch.Generator) -> Sequence[Starts]:
        return self.starts.draw(batch, generator)

    def draw_validation(self, batch: int, generator: torch.Generator) -> Sequence[Starts]:
        return self.validation_starts.draw(batch, generator)

    def more_terms(self, weights: EnergyWeights) -> Sequence[Term]:
        picture = self.model.config.picture
        shape = partial(costs.proximity, config=self.energy.proximity, picture=picture)
        return [
            Term("proximity", shape, weights.proximity),
            Term("lane", partial(costs.lane, picture=picture), weights.lane),
            Term("off_road", partial(costs.off_road, picture=picture), weights.off_road),
        ]

    def unroll(self, policy: PicturePolicy, starts: Starts, noise: torch.Generator) -> PictureTrajectory:
        def control(step: int, pictures: Tensor, own: Own) -> Controls:
            return policy(pictures, own)

        trajectory, raw = self.imagine(control, starts, self.config.horizon_steps, noise)
        if raw is None or self.scale is None:
            return trajectory
        cost = self.scale.cost(raw, self.config.uncertainty.hinge)
        cost = cost.repeat_interleave(self.config.uncertainty.every_steps, 1)[:, : self.config.horizon_steps]
        return replace(trajectory, uncertainty=cost)

    def imagine(
        self, control: Control, starts: Starts, steps: int, noise: torch.Generator
    ) -> tuple[PictureTrajectory, Tensor | None]:
        """What follows under `control`, and the raw disagreement `(batch, measure)` where uncertainty is used."""
        config, model, picture = self.config, self.model, self.model.config.picture
        history, road, goal = starts.history, starts.road, starts.goal
        batch, uncertainty = history.valid.shape[0], config.uncertainty
        view = View.of(history[:, -1], road)
        seen = seen_in(history, road, view, model.config.context, self.dt_s, picture)
        seconds = future_seconds(steps, self.dt_s, view.speed_mps)
        latents = model.draw_latents(batch, steps, noise, view.speed_mps) if config.sample_latent else None
        many = model.dropout_masks(uncertainty.masks, noise, view.speed_mps) if config.use_uncertainty else None
        ego, first = history[:, -1, :1], (history.speed_mps[:, -1, 0] - history.speed_mps[:, -2, 0]) / self.dt_s
        acceleration, elapsed = first, torch.zeros_like(seconds[:1])
        egos, pictures_of_ego, others, roads, chosen, raw = [], [], [], [], [], []
        for step in range(steps):
            along, left = view.local(ego.position_m[:, None], elapsed)
            own = own_of(ego[:, 0], acceleration, view, goal)
            pictures = looked_at(seen, own, view, along[:, 0, 0], left[:, 0, 0], picture, self.dt_s)
            controls = control(step, pictures, own)
            ego = drive(ego[:, 0], controls, self.dt_s).map(lambda values: values[:, None])
            acceleration, elapsed = controls.acceleration_mps2, seconds[step : step + 1]
            drawn = draw_vehicles(ego[:, None], view, elapsed, picture)[:, 0]
            latent = None if latents is None else latents[:, step // model.config.hold_steps]
            if many is not None and uncertainty.is_due(step, steps):
                raw.append(disagreement(model, seen, drawn, latent, many))
            seen = model.step(seen, drawn if config.others_listen else drawn.detach(), latent)
            egos.append(ego)
            pictures_of_ego.append(drawn)
            others.append(seen.others[:, -1])
            roads.append(seen.road)
            chosen.append(controls)
        clip = Clip(*(torch.stack(pictures, 1) for pictures in (others, pictures_of_ego, roads)))
        trajectory = PictureTrajectory(
            TrafficState.stack(egos, 1),
            Controls.stack(chosen, 1),
            first,
            road,
            goal,
            self.dt_s,
            clip=clip,
            view=view,
            seconds=seconds,
        )
        return trajectory, torch.stack(raw, 1) if raw else None

    @torch.no_grad()
    def _measured(self, stores: Sequence[WindowStore], seed: int) -> UncertaintyScale:
        """The disagreement where egos drive as they were recorded."""
        config, device = self.config, next(self.model.parameters()).device
        noise = torch.Generator(device).manual_seed(seed + 5)
        request = WindowRequest(self.model.config.context, config.horizon_steps, config.starts.max_agents)
        windows, generator = WindowSampler(stores, "train", request), torch.Generator().manual_seed(seed + 4)
        found = []
        for window in windows.draw(CALIBRATION_WINDOWS * config.starts.candidates, generator):
            # of scenes like those that rollouts start from: the more cars, the more there is to disagree about
            wanted = max(len(window.row) // config.starts.candidates, 1)
            chosen = interacting(window.present, window.road, wanted, config.starts, generator)
            parts = (window.history, window.future, window.road)
            history, future, road = (part[chosen].to(device) for part in parts)
            heading = torch.cat([history.heading_rad[:, -1:, 0], future.heading_rad[:, :, 0]], 1)
            speed = torch.cat([history.speed_mps[:, -1:, 0], future.speed_mps[:, :, 0]], 1)
            driven = Controls(*recorded_controls(heading, speed, history.length_m[:, -1, 0], self.dt_s))
            nobody = torch.zeros_like(speed[:, 0])
            starts = Starts(history, road, Goal(nobody, torch.full_like(nobody, NO_LANE, dtype=torch.long)))

            def recorded(step: int, pictures: Tensor, own: Own, driven: Controls = driven) -> Controls:
                return driven[:, step]

            _, raw = self.imagine(recorded, starts, config.horizon_steps, noise)
            assert raw is not None
            found.append(raw)
        return UncertaintyScale.measured(torch.cat(found))


def looked_at(
    seen: Seen, own: Own, view: View, along_m: Tensor, left_m: Tensor, picture: Picture, dt_s: float
) -> Tensor:
    """What the policy of an ego that is at `along_m, left_m (batch,)` in `view` sees; see `about_ego`."""
    lagged = seen.others[:, [-1 - lag for lag in LAGS]]
    speed = own.speed_mps * own.heading_error_rad.cos() - view.speed_mps
    return about_ego(lagged, seen.road, along_m, left_m, speed, picture, dt_s)


def own_of(ego: TrafficState, acceleration_mps2: Tensor, view: View, goal: Goal) -> Own:
    """What the instruments of `ego (batch,)` read."""
    error = (ego.heading_rad - view.heading_rad).sin()
    return Own(ego.speed_mps, acceleration_mps2, error, ego.length_m, goal.desired_speed_mps)


def disagreement(model: RasterModel, seen: Seen, ego: Tensor, latent: Tensor | None, masks: Tensor) -> Tensor:
    """Variance of the next picture of the others over dropout masks `(mask, channel)`, summed over it: `(batch,)`."""
    batch, count = ego.shape[0], masks.shape[0]
    index = torch.arange(batch, device=ego.device).repeat_interleave(count)
    latents = None if latent is None else latent[index]
    after = model.step(seen[index], ego[index], latents, masks.repeat(batch, 1))
    return after.others[:, -1].view(batch, count, *ego.shape[1:]).var(1).sum((-1, -2))
