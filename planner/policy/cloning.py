"""Behaviour cloning: the policy's network trained to answer recorded scenes as their drivers did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from drivecast.planner.costs.energy import EnergyConfig
from drivecast.planner.policy.lane_choice import LaneChoiceConfig
from drivecast.planner.policy.network import Policy, PolicyConfig, limited_lateral
from drivecast.planner.policy.training import POLICY_KIND
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.loading import POLICY_FILE
from drivecast.worldmodel.recordings.sampling import WindowRequest, WindowSampler, mirrored, mirrored_road
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.scene.kinematics import recorded_controls
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState
from drivecast.worldmodel.training.optimisation import BestModel, Log, Optimisation

CAREFUL = ("idm", "idm-any-speed")  # behaviours of `drivecast record` that are not bad on purpose
REQUEST = WindowRequest(history_steps=2, future_steps=1, max_agents=16)


@dataclass(frozen=True)
class CloningConfig:
    """Training by regression on recorded controls.

    Args:
        steps: Optimiser steps.
        batch: Recorded decisions of a batch.
        learning_rate: Peak of the Adam learning rate; warmed up, then lowered along a cosine.
        gradient_clip: Largest norm of the gradient.
        validate_every: Steps between validations; the best in validation is kept.
        validation_decisions: Decisions of one validation, always the same.
        checkpoint_every: Steps between checkpoints.
        behaviours: Egos of simulated recordings to imitate, by the behaviour that the store names.
    """

    steps: int = 4000
    batch: int = 256
    learning_rate: float = 2e-3
    gradient_clip: float = 1.0
    validate_every: int = 200
    validation_decisions: int = 4096
    checkpoint_every: int = 200
    behaviours: tuple[str, ...] = CAREFUL

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "validate_every", "validation_decisions", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.learning_rate <= 0.0 or self.gradient_clip <= 0.0:
            raise ValueError("learning_rate and gradient_clip must be positive")


@dataclass(frozen=True)
class Decisions:
    """Recorded decisions: the scene, the one before, what was asked, and the accelerations that came of it.

    `forward_mps2`, `lateral_mps2 (batch,)`: of the recorded controls, held within what the policy can do.
    """

    scene: TrafficState  # (batch, agent)
    before: TrafficState
    road: Road
    goal: Goal
    forward_mps2: Tensor
    lateral_mps2: Tensor

    def to(self, device: str) -> Decisions:
        return Decisions(*(part.to(device) for part in self.__dict__.values()))


class DecisionSampler:
    """Draws recorded decisions of any vehicle, its controls derived from its motion by the bicycle's inverse.

    The goal is hindsight: nobody recorded what a driver wanted, so the speed asked for is the highest that the vehicle
    reaches in its track, and no lane is asked for, as in the closed loop. Half the batches are mirrored. In
    simulated recordings the egos whose behaviour is not among `behaviours` are left out; the cars around them, highway-
    env's own IDM and MOBIL, are not.

    Args:
        stores: Recordings.
        split: `train`, `val` or `test`.
        policy: Its limits hold the controls.
        behaviours: Egos to imitate, where the store names them.

    Raises:
        InputError: Nothing is left to draw from.
    """

    def __init__(
        self, stores: Sequence[WindowStore], split: str, policy: PolicyConfig, behaviours: Sequence[str]
    ) -> None:
        self.policy = policy
        rows = [_imitated(store, split, behaviours) for store in stores]
        self.windows = WindowSampler(stores, split, REQUEST, rows)

    @property
    def count(self) -> int:
        """Of decisions that can be drawn."""
        return sum(len(rows) for rows in self.windows.rows)

    def draw(self, batch: int, generator: torch.Generator) -> list[Decisions]:
        """`batch` decisions, as one part for each store that was drawn from."""
        parts = []
        for store, window in self.windows.draw_by_store(batch, generator):
            desired = store.top_speed_mps[window.row[:, 0]]
            history, future, road = window.history, window.future, window.road
            if torch.rand((), generator=generator) < 0.5:
                history, future, road = mirrored(history), mirrored(future), mirrored_road(road)
            heading = torch.stack([history.heading_rad[:, -1, 0], future.heading_rad[:, 0, 0]], 1)
            speed = torch.stack([history.speed_mps[:, -1, 0], future.speed_mps[:, 0, 0]], 1)
            length = history.length_m[:, -1, 0]
            forward, steering = (c[:, 0] for c in recorded_controls(heading, speed, length, self.policy.dt_s))
            most = self.policy.max_lateral_mps2
            parts.append(
                Decisions(
                    scene=history[:, -1],
                    before=history[:, 0],
                    road=road,
                    goal=Goal(desired, torch.full_like(window.frame, NO_LANE)),
                    forward_mps2=forward.clamp(-self.policy.max_braking_mps2, self.policy.max_acceleration_mps2),
                    lateral_mps2=limited_lateral(steering, speed[:, 0], length).clamp(-most, most),
                )
            )
        return parts


@dataclass(frozen=True)
class ControlSpread:
    """Standard deviations of recorded accelerations: the units in which errors are weighed, m/s²."""

    forward_mps2: float
    lateral_mps2: float


@dataclass
class CloningTrainer:
    """One training by imitation, resumable at every checkpoint to the last bit.

    loss = mean of |a - a'| / spread of a + |l - l'| / spread of l, a the acceleration along the road, l the lateral
    acceleration v² sin(slip) / (length / 2) that the steering brings; the spreads are standard deviations of the
    recorded ones, so neither counts more because its numbers are larger.
    Not squares: recorded steering is next to nothing most of the time and large for the second of a lane change.
    Squares fit that second and leave a small error everywhere else, which adds up: such a clone drifts off its lane.

    Args:
        policy: Architecture and limits.
        config: Training settings.
        stores: Recordings.
        output: Folder of `policy.safetensors` (the best so far in validation) and `policy-training-state.pt`.
        seed: Seed of weights and batches.
        device: Device to train on.
    """

    policy: PolicyConfig
    config: CloningConfig
    stores: Sequence[WindowStore]
    output: Path
    seed: int = 0
    device: str = "cpu"
    spread: ControlSpread = field(init=False)

    def __post_init__(self) -> None:
        config, output = self.config, Path(self.output)
        for store in self.stores:
            if abs(store.dt_s - self.policy.dt_s) > 1e-6:
                raise InputError(
                    f"{store.directory}: is at {store.dt_s} s per step, the policy at {self.policy.dt_s} s"
                )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.network = Policy(self.policy).to(self.device)
        self.decisions = DecisionSampler(self.stores, "train", self.policy, config.behaviours)
        has_validation = any(len(_imitated(store, "val", config.behaviours)) for store in self.stores)
        self.validated_on = "val" if has_validation else "train"
        self.validation = DecisionSampler(self.stores, self.validated_on, self.policy, config.behaviours)
        self.spread = self._measure_spread()
        training = asdict(config)
        extra = {
            "energy": asdict(EnergyConfig()),  # nothing was trained with it: it scores drives
            "lane_choice": asdict(LaneChoiceConfig(enabled=False)),
            "cloning": {**training, "spread": asdict(self.spread)},
            "data": [store.fingerprint for store in self.stores],
        }
        identity = {
            "cloning": training,
            "policy": asdict(self.policy),
            "seed": self.seed,
            "data": [store.fingerprint for store in self.stores],
        }
        self.optimisation = Optimisation(
            self.network,
            torch.optim.Adam(self.network.parameters(), lr=config.learning_rate),
            config,
            BestModel(output / POLICY_FILE, POLICY_KIND, self.policy, extra),
            output / "policy-training-state.pt",
            identity,
            self.seed,
        )

    def resume(self) -> int:
        """Take up `policy-training-state.pt` if there is one; returns the steps already done."""
        return self.optimisation.resume()

    def train(self, log: Log, on_step: Log = lambda *_: None) -> Path:
        """Train to `config.steps`; returns the path of the best policy. Resumes where `resume()` left it."""
        return self.optimisation.train(self._step, self._validate, self.validated_on, log, on_step)

    def _measure_spread(self) -> ControlSpread:
        drawn = self.decisions.draw(self.config.validation_decisions, torch.Generator().manual_seed(self.seed + 4))
        forward, lateral = (torch.cat([getattr(p, name) for p in drawn]) for name in ("forward_mps2", "lateral_mps2"))
        return ControlSpread(*(max(float(values.std(correction=0)), 1e-3) for values in (forward, lateral)))

    def _errors(self, decisions: Decisions) -> tuple[Tensor, Tensor]:
        """What the policy does less what was done, `(batch,)` each, m/s²."""
        scene = decisions.scene
        controls: Controls = self.network(scene, decisions.before, decisions.road, decisions.goal)
        lateral = limited_lateral(controls.steering_rad, scene.speed_mps[:, 0], scene.length_m[:, 0])
        return controls.acceleration_mps2 - decisions.forward_mps2, lateral - decisions.lateral_mps2

    def _step(self) -> dict[str, float]:
        self.optimisation.start_step()
        measures = {"loss": 0.0}
        for part in self.decisions.draw(self.config.batch, self.optimisation.batches):
            forward, lateral = self._errors(part.to(self.device))
            loss = self._loss(forward, lateral).sum() / self.config.batch
            self.optimisation.descend(loss)
            measures["loss"] += float(loss.detach())
        return measures | {"gradient_norm": self.optimisation.finish_step()}

    @torch.no_grad()
    def _validate(self) -> tuple[dict[str, float], float]:
        """On the same decisions each time."""
        drawn = self.validation.draw(self.config.validation_decisions, torch.Generator().manual_seed(self.seed + 2))
        pairs = [self._errors(part.to(self.device)) for part in drawn]
        forward, lateral = (torch.cat([pair[i] for pair in pairs]) for i in (0, 1))
        loss = float(self._loss(forward, lateral).mean())
        measures = {
            "loss": loss,
            "acceleration_error_mps2": float(forward.abs().mean()),
            "lateral_error_mps2": float(lateral.abs().mean()),
            "acceleration_unexplained": float((forward / self.spread.forward_mps2).square().mean()),
            "steering_unexplained": float((lateral / self.spread.lateral_mps2).square().mean()),
        }
        return measures, loss

    def _loss(self, forward: Tensor, lateral: Tensor) -> Tensor:
        return forward.abs() / self.spread.forward_mps2 + lateral.abs() / self.spread.lateral_mps2


def _imitated(store: WindowStore, split: str, behaviours: Sequence[str]) -> Tensor:
    """Rows of the vehicles to imitate that have a step before them and one after."""
    rows = store.rows(split, REQUEST.history_steps, REQUEST.future_steps)
    drives = store.drives()
    about = store.meta.get("about", {})
    if drives is None or not any("behaviour" in about.get(name, {}) for name in store.recordings):
        return rows
    egos = drives.groupby("recording")["vehicle_id"].first()
    left_out = torch.full((len(store.recordings),), -1, dtype=torch.long)  # vehicle of each recording
    for number, name in enumerate(store.recordings):
        if name in egos.index and about.get(name, {}).get("behaviour") not in behaviours:
            left_out[number] = int(egos[name])
    return rows[store.vehicle_id(rows) != left_out[store.recording_of(rows)]]
