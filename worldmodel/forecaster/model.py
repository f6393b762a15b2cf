"""The world model: a recurrent, conditional latent-variable forecaster of every vehicle but the ego."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from drivecast.worldmodel.forecaster.keeping_clear import bounds, unbounded, within
from drivecast.worldmodel.forecaster.latent import DiagonalNormal
from drivecast.worldmodel.scene.kinematics import unicycle_step
from drivecast.worldmodel.scene.neighbours import Neighbours, find_neighbours
from drivecast.worldmodel.scene.road import Road, RoadPosition
from drivecast.worldmodel.scene.sight import SIGHT_FEATURES, sight
from drivecast.worldmodel.scene.traffic import TrafficState

MODEL_KIND = "world-model"
MAX_ACCELERATION_MPS2 = 8.0
MAX_CURVATURE_PER_M = 0.2
LANDMARKS = 5  # moments of the next stretch that the posterior sees
LANDMARK_FEATURES = 4
LEAST_PERSISTENT, MOST_PERSISTENT = -2.0, 4.0  # of the untrained model: logits of shares of 0.12 to 0.98


@dataclass(frozen=True)
class WorldModelConfig:
    """Architecture of the world model.

    Args:
        hidden: Width of the recurrent state and of the layers.
        latent_dims: Dimensions of the latent of each vehicle; 0 is the deterministic model.
        latent_hold_steps: Steps for which a drawn latent is held before the next is drawn; 1 is a latent per step.
        latent_process: `autoregressive`: each dimension of the next latent remembers a learned share of the last one,
            so that some last for a whole future; `independent`: the next is drawn anew, and what it does averages out.
        prior: Prior of the latent: `standard` normal, or `learned` from the vehicle's past (of independent latents).
        feature_dropout: Probability of dropping a feature of the decoder; its masks also measure uncertainty.
        decide_steps: Steps between two looks around: acceleration and curvature are held in between.
        keeps_clear: Whatever its latent, nobody goes beyond what lets it stop behind its leader and keep off who is
            beside it (`keeping_clear.py`): followers answer an ego that brakes harder than any in a recording.
        temperature: Of the prior when futures are drawn: its deviations from the mean, times this. Training draws at 1
            and may find a better one on validation at its end (`training.calibrate`).
        dt_s: Time step in seconds.
    """

    hidden: int = 64
    latent_dims: int = 8
    latent_hold_steps: int = 10
    latent_process: Literal["autoregressive", "independent"] = "independent"
    prior: Literal["standard", "learned"] = "standard"
    feature_dropout: float = 0.1
    decide_steps: int = 1
    keeps_clear: bool = False
    temperature: float = 1.0
    dt_s: float = 0.1

    def __post_init__(self) -> None:
        if self.hidden < 1 or self.latent_dims < 0 or self.latent_hold_steps < 1:
            raise ValueError("hidden and latent_hold_steps must be at least 1, latent_dims at least 0")
        if self.decide_steps < 1 or self.latent_hold_steps % self.decide_steps:
            raise ValueError("latent_hold_steps must be a multiple of decide_steps, and that at least 1")
        if self.prior == "learned" and self.latent_process != "independent":
            raise ValueError("prior 'learned' is for latent_process 'independent'")
        if not 0.0 <= self.feature_dropout < 1.0:
            raise ValueError(f"feature_dropout must lie in [0, 1), not {self.feature_dropout}")
        if self.temperature <= 0.0:
            raise ValueError(f"temperature must be positive, not {self.temperature}")
        if self.dt_s <= 0.0:
            raise ValueError(f"dt_s must be positive, not {self.dt_s}")


@dataclass(frozen=True)
class Memory:
    """All that the model carries from step to step, up to the present."""

    scene: TrafficState  # (batch, agent), the present
    seen: TrafficState  # (batch, agent), the scene at the last look around
    embedded: Tensor  # (batch, agent, hidden), what each vehicle saw then
    hidden: Tensor  # (batch, agent, hidden), what it remembers
    bounds: Tensor  # (batch, agent, 3), of acceleration and curvature then, see `keeping_clear.bounds`
    acceleration_mps2: Tensor  # (batch, agent), as decided then
    curvature_per_m: Tensor  # (batch, agent), as decided then
    since: int = 0  # steps since then

    def detach(self) -> Memory:
        return self._map(lambda part: part.detach())

    def __getitem__(self, index) -> Memory:
        """Index the batch dimension."""
        return self._map(lambda part: part[index])

    def _map(self, function: Callable[[Any], Any]) -> Memory:
        return replace(self, **{f.name: function(getattr(self, f.name)) for f in fields(self) if f.name != "since"})


class WorldModel(nn.Module):
    """p(next scene | past, known vehicles' motion, z), one z per vehicle.

    Each vehicle sees itself, its lane and seven directional neighbours in its own lane's frame; a GRU shared by all
    vehicles carries the past. From its recurrent state and latent a decoder gives acceleration and curvature, which
    a unicycle integrates: a forecast can't leave physics. Vehicles whose motion is known (the ego) are never
    predicted: the caller hands their next state in.

    The method is PPUU's (Henaff, Canziani, LeCun 2019, sections 3.1-3.2) on vehicle states instead of pixels.
    """

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        self.config = config
        width, latent = config.hidden, config.latent_dims
        self.embed = nn.Linear(SIGHT_FEATURES, width)
        self.cell = nn.GRUCell(width, width)
        self.decoder_in = nn.Linear(2 * width + latent, width)
        self.decoder_out = nn.Linear(width, 2)
        nn.init.zeros_(self.decoder_out.weight)  # an untrained model forecasts constant speed, straight on
        nn.init.zeros_(self.decoder_out.bias)
        if latent:
            seen = width + LANDMARK_FEATURES * LANDMARKS
            if config.latent_process == "autoregressive":
                seen += latent
                self.persistence = nn.Parameter(torch.linspace(LEAST_PERSISTENT, MOST_PERSISTENT, latent))
            self.posterior_net = nn.Sequential(nn.Linear(seen, width), nn.ReLU(), nn.Linear(width, 2 * latent))
            if config.prior == "learned":
                self.prior_net = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2 * latent))

    # ---- the past ---------------------------------------------------------------------------------------------

    def observe(self, history: TrafficState, road: Road) -> Memory:
        """Take in `history (batch, time, agent)`, any length of at least one step, the present last."""
        every = self.config.decide_steps
        history = history[:, (history.valid.shape[1] - 1) % every :: every]
        batch, steps, agents = history.valid.shape
        # what a vehicle sees does not depend on what it remembers: all moments are looked at in one go
        scenes = history.map(lambda tensor: tensor.flatten(0, 1))
        earlier = torch.arange(steps, device=history.valid.device).sub(1).clamp_min(0)
        before = history[:, earlier].map(lambda tensor: tensor.flatten(0, 1))
        repeated = road[torch.arange(batch, device=history.valid.device).repeat_interleave(steps)]
        on_lane = repeated.project(scenes.position_m)
        neighbours = find_neighbours(scenes, on_lane)
        embedded = torch.relu(self.embed(self._features(scenes, before, on_lane, repeated, neighbours)))
        embedded = embedded.view(batch, steps, agents, -1)
        bound = self._bounds(scenes, on_lane, neighbours).view(batch, steps, agents, 3)[:, -1]
        hidden = torch.zeros_like(embedded[:, 0])
        for time in range(steps):
            hidden = self._remember(embedded[:, time], hidden, history.valid[:, time])
        nothing = torch.zeros_like(history.speed_mps[:, -1])
        return Memory(history[:, -1], history[:, -1], embedded[:, -1], hidden, bound, nothing, nothing)

    def _look(self, scene: TrafficState, memory: Memory, road: Road) -> Memory:
        """See `scene` and remember it."""
        on_lane = road.project(scene.position_m)
        neighbours = find_neighbours(scene, on_lane)
        embedded = torch.relu(self.embed(self._features(scene, memory.seen, on_lane, road, neighbours)))
        hidden = self._remember(embedded, memory.hidden, scene.valid)
        bound = self._bounds(scene, on_lane, neighbours)
        return replace(memory, scene=scene, seen=scene, embedded=embedded, hidden=hidden, bounds=bound, since=0)

    def _bounds(self, scene: TrafficState, on_lane: RoadPosition, neighbours: Neighbours) -> Tensor:
        if not self.config.keeps_clear:
            return unbounded(scene)
        return bounds(scene, on_lane, neighbours, self.config.decide_steps * self.config.dt_s)

    def _remember(self, embedded: Tensor, hidden: Tensor, valid: Tensor) -> Tensor:
        """The recurrent state after this moment; vehicles that are not there keep theirs."""
        updated = self.cell(embedded.flatten(0, 1), hidden.flatten(0, 1)).view_as(hidden)
        return torch.where(valid[..., None], updated, hidden)

    def _features(
        self, scene: TrafficState, before: TrafficState, on_lane: RoadPosition, road: Road, neighbours: Neighbours
    ) -> Tensor:
        return sight(scene, before, on_lane, road, neighbours, self.config.decide_steps * self.config.dt_s)

    # ---- the latent -------------------------------------------------------------------------------------------

    def prior(self, memory: Memory, last: Tensor | None = None) -> DiagonalNormal:
        """Prior of each vehicle's next latent, `(batch, agent, latent)`, after the `last` one; None: it is the first.

        Autoregressive: p(z' | z) = N(rho z, 1 - rho²) with a learned rho of each dimension; so each z is N(0, 1).
        """
        if self.config.latent_dims and self.config.prior == "learned":
            return DiagonalNormal.of_parameters(self.prior_net(memory.hidden))
        zeros = self.no_latent(memory)
        if last is None or self.config.latent_process == "independent" or not self.config.latent_dims:
            return DiagonalNormal(zeros, zeros)
        share = self.persistence.sigmoid()
        return DiagonalNormal(share * last, torch.log1p(-share.square().clamp_max(0.9999)).expand_as(last))

    def posterior(self, memory: Memory, target: TrafficState, last: Tensor | None = None) -> DiagonalNormal:
        """Posterior given the `target (batch, time, agent)` of the next `latent_hold_steps` steps (or fewer).

        The network sees where the vehicle will be at a few landmarks of that stretch, relative to where it would be
        at constant velocity from the model's own present state, in that state's frame; and the `last` latent, if
        latents are autoregressive: then it says by how many of the prior's standard deviations the next one differs
        from what the prior expects.
        """
        scene, steps = memory.scene, target.valid.shape[1]
        columns: list[Tensor] = []
        for landmark in range(LANDMARKS):
            step = max(round((landmark + 1) * steps / LANDMARKS), 1)
            then = target[:, step - 1]
            ahead = then.position_m - scene.position_m - scene.velocity_mps * (step * self.config.dt_s)
            direction, seen = scene.direction, then.valid
            forward = ahead[..., 0] * direction[..., 0] + ahead[..., 1] * direction[..., 1]
            left = direction[..., 0] * ahead[..., 1] - direction[..., 1] * ahead[..., 0]
            faster = then.speed_mps - scene.speed_mps
            columns += [(forward * seen).clamp(-10, 10), (left * seen * 2).clamp(-5, 5), faster * seen, seen.to(left)]
        features = [memory.hidden, torch.stack(columns, -1)]
        if self.config.latent_process == "autoregressive":
            features.append(self.no_latent(memory) if last is None else last)
        found = DiagonalNormal.of_parameters(self.posterior_net(torch.cat(features, -1)))
        if last is None or self.config.latent_process == "independent":
            return found
        return found.after(self.prior(memory, last))

    def no_latent(self, memory: Memory) -> Tensor:
        """The latent's zero, `(batch, agent, latent)`: the deterministic forecast."""
        return memory.hidden.new_zeros(*memory.hidden.shape[:-1], self.config.latent_dims)

    # ---- the future -------------------------------------------------------------------------------------------

    def dropout_masks(self, *shape: int, generator: torch.Generator | None = None) -> Tensor:
        """Scaled feature-dropout masks of the decoder, `(*shape, 3 hidden)`, to be held for a whole rollout."""
        keep = 1.0 - self.config.feature_dropout
        weight = self.decoder_out.weight
        size = (*shape, 3 * self.config.hidden)
        drawn = torch.rand(size, generator=generator, device=weight.device, dtype=weight.dtype)
        return (drawn < keep) / keep

    def motion(self, memory: Memory, latent: Tensor, masks: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Acceleration (m/s²) and curvature (1/m) of each vehicle: `(batch, agent)`.

        Dropout `masks (..., 3 hidden)` broadcast against `(batch, agent, ...)`; extra leading dimensions stay in the
        answer, `(mask, batch, agent)`.
        """
        features = torch.cat([memory.embedded, memory.hidden], -1)
        if masks is not None:
            inner, outer = masks.split([2 * self.config.hidden, self.config.hidden], -1)
            features = features * inner
            latent = latent.expand(*features.shape[:-1], self.config.latent_dims)
        decoded = torch.relu(self.decoder_in(torch.cat([features, latent], -1)))
        if masks is not None:
            decoded = decoded * outer
        acceleration, curvature = self.decoder_out(decoded).unbind(-1)
        acceleration = MAX_ACCELERATION_MPS2 * torch.tanh(acceleration / MAX_ACCELERATION_MPS2)
        return acceleration, MAX_CURVATURE_PER_M * torch.tanh(curvature / (100 * MAX_CURVATURE_PER_M))

    def step(
        self,
        memory: Memory,
        latent: Tensor,
        road: Road,
        known: TrafficState | None = None,
        who: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> Memory:
        """One step ahead under `latent (batch, agent, latent)`.

        `known (batch, agent)` is the next state of the vehicles where `who (batch, agent)` is True: the ego's, from
        its own kinematics. They are taken as they are. In training, `masks
        (batch, agent, 3 hidden)` drop features. Every `decide_steps` steps everyone decides and looks around.
        """
        scene = memory.scene
        if memory.since == 0:
            acceleration, curvature = self.motion(memory, latent, masks)
            acceleration, curvature = within(acceleration, curvature, memory.bounds)
            memory = replace(memory, acceleration_mps2=acceleration, curvature_per_m=curvature)
        position, heading, speed = unicycle_step(
            scene.position_m,
            scene.heading_rad,
            scene.speed_mps,
            memory.acceleration_mps2,
            memory.curvature_per_m * scene.speed_mps,
            self.config.dt_s,
        )
        valid = scene.valid
        if known is not None and who is not None:
            position = torch.where(who[..., None], known.position_m, position)
            heading = torch.where(who, known.heading_rad, heading)
            speed = torch.where(who, known.speed_mps, speed)
            valid = who & known.valid | ~who & valid  # not `where`: ONNX knows none of truths
        ahead = TrafficState(position, heading, speed, scene.length_m, scene.width_m, valid)
        if memory.since + 1 < self.config.decide_steps:
            return replace(memory, scene=ahead, since=memory.since + 1)
        return self._look(ahead, memory, road)

    def uncertainty(self, memory: Memory, latent: Tensor, masks: Tensor) -> Tensor:
        """Variance of the motion over dropout masks, same latent and controls, `(batch, agent)`.

        Sum of the variances of acceleration (in m/s²) and of lateral acceleration, curvature times speed² (m/s²).
        `masks (mask, 3 hidden)` are shared by all vehicles and held for a rollout.
        Henaff, Canziani, LeCun 2019, section 3.3.
        """
        acceleration, curvature = self.motion(memory, latent, masks[:, None, None])
        return acceleration.var(0) + (curvature * memory.scene.speed_mps.square()).var(0)
