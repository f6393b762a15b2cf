"""Fitting the readout of costs: proposals driven among recorded traffic that goes on as it did, and what they cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from drivecast.planner.costs.energy import PLANNING_ENERGY, Energy, EnergyConfig
from drivecast.planner.costs.readout import SOCIAL_TERMS, CostReadout, CostReadoutConfig
from drivecast.planner.costs.trajectory import Trajectory
from drivecast.planner.manoeuvres.manoeuvre import LawConfig
from drivecast.planner.planning.proposals import ProposalConfig, driven_ego, proposed
from drivecast.planner.planning.search import SearchConfig
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.joint_embedding.frames import frames_of, moves_of
from drivecast.worldmodel.joint_embedding.network import JointEmbedding
from drivecast.worldmodel.recordings.sampling import WindowSampler
from drivecast.worldmodel.recordings.window import Window
from drivecast.worldmodel.scene.contact import ego_separation_m
from drivecast.worldmodel.scene.kinematics import MAX_BRAKING_MPS2, knot_weights
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState

FASTER_MPS = 8.0  # wished by the egos of the windows, at most
MOST_IMPOSED = 4.0
ROUGH_MPS2 = 1.5  # added to half of the plans, at a knot
KNOTS = 5


@dataclass(frozen=True)
class ReadoutFittingConfig:
    """Fitting.

    Args:
        windows: Recorded moments.
        plans: Of each moment, drawn from its proposals.
        batch: Windows at once.
        hidden: Width of the layers.
        steps: Optimiser steps.
        rows: Plans of each step.
        learning_rate: Peak of Adam's.
    """

    windows: int = 20_000
    plans: int = 4
    batch: int = 100
    hidden: int = 128
    steps: int = 6000
    rows: int = 128
    learning_rate: float = 2e-3

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value > 0:
                raise InputError(f"joint_embedding.readout.{name}: expected more than 0, got {value}")


def social_costs(states: TrafficState, energy: Energy, search: SearchConfig, trajectory: Trajectory) -> Tensor:
    """What each moment costs because of the others, unweighted, `(row, time, 3)`: see `SOCIAL_TERMS`."""
    terms = energy.terms(trajectory)
    weights = energy.config.weights
    longer = states.length_m.clone()
    longer[..., 0] += 2 * search.bumper_m
    touches = ego_separation_m(replace(states, length_m=longer)).amin(-1) < search.margin_m
    proximity = terms["proximity"] / weights.proximity
    imposed = (terms["imposed"] / weights.imposed).clamp_max(MOST_IMPOSED)
    return torch.stack([proximity, imposed, touches.to(proximity)], -1)


@torch.no_grad()
def judged_plans(
    model: JointEmbedding,
    window: Window,
    plans: int,
    energy: Energy,
    generator: torch.Generator,
    proposals: ProposalConfig | None = None,
) -> tuple[Tensor, Tensor]:
    """Predicted embeddings of `plans` ways of each ego, `(row, frame, dims)`, and what these cost, `(row, frame, 3)`.

    Half of the plans are made rough by random accelerations. `generator` lives on the CPU, like the window.
    """
    config, scene = model.config, window.present
    steps = window.future.valid.shape[1] // config.stride * config.stride
    proposals = replace(proposals or ProposalConfig(), horizon_s=steps * config.dt_s)
    wish = scene.speed_mps[:, 0] + FASTER_MPS * torch.rand(len(scene.valid), generator=generator)
    bound = window.road.project(scene.position_m[:, :1]).lane[:, 0]
    goal = Goal(wish, torch.full_like(bound, -1))
    found = proposed(scene, window.history[:, -2], window.road, goal, bound, proposals, LawConfig(), config.dt_s)
    shuffled = torch.randperm(len(found.episode), generator=generator)
    order = shuffled[found.episode[shuffled].argsort(stable=True)]
    begins = torch.searchsorted(found.episode[order], found.episode[order])
    drawn = found[order[torch.arange(len(order)) - begins < plans]]
    rows = drawn.episode
    controls = _roughened(drawn.controls, generator)
    ego = driven_ego(scene[rows, 0], controls, config.dt_s)
    others = window.future[:, :steps][rows]
    states = TrafficState.cat([ego.map(lambda values: values[:, :, None]), others[:, :, 1:]], 2)
    before = (scene.speed_mps - window.history.speed_mps[:, -2])[rows, 0] / config.dt_s
    trajectory = Trajectory(states, controls, before, window.road[rows], goal[rows], config.dt_s)
    cost = social_costs(states, energy, SearchConfig(), trajectory)
    cost = cost.unflatten(1, (-1, config.stride)).mean(2)
    device = next(model.parameters()).device
    known = model.observe(frames_of(window.history, window.road, config.dt_s, config.stride).to(device))
    whole = TrafficState.cat([scene[rows, None, 0], ego], 1)
    moves = moves_of(whole[:, :: config.stride], window.road[rows], config.frame_s)
    return model.unroll(known[rows.to(device)], moves.to(device)), cost.to(device)


def _roughened(controls: Controls, generator: torch.Generator) -> Controls:
    rows, steps = controls.acceleration_mps2.shape
    rough = torch.randn(rows, KNOTS, generator=generator) @ knot_weights(steps, KNOTS).T * ROUGH_MPS2
    rough = rough * (torch.rand(rows, 1, generator=generator) < 0.5)
    acceleration = (controls.acceleration_mps2 + rough).clamp(-MAX_BRAKING_MPS2, 2.5)
    return Controls(acceleration, controls.steering_rad)


def fit_readout(
    model: JointEmbedding,
    sampler: WindowSampler,
    config: ReadoutFittingConfig,
    energy: EnergyConfig = PLANNING_ENERGY,
    seed: int = 0,
    on_progress: Callable[[float], None] = lambda share: None,
) -> tuple[CostReadout, dict[str, float]]:
    """A readout for a frozen `model`, and what it leaves unexplained of each term on a tenth that it did not see.

    Args:
        model: The joint embedding.
        sampler: Of windows whose future is as long as plans are.
        config: Fitting.
        energy: Whose terms are read.
        seed: Of windows, plans and weights.
        on_progress: Told the share that is done.
    """
    generator = torch.Generator().manual_seed(seed)
    terms = Energy(replace(energy, weights=replace(energy.weights, uncertainty=0.0)))
    parts, done = [], 0
    while done < config.windows:
        for window in sampler.draw(config.batch, generator):
            parts.append(judged_plans(model, window, config.plans, terms, generator))
        done += config.batch
        on_progress(0.7 * done / max(config.windows, 1))
    embeddings, costs = (torch.cat([part[i] for part in parts]) for i in (0, 1))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        readout = CostReadout(CostReadoutConfig(embeddings.shape[-1], config.hidden)).to(embeddings.device)
    kept = max(len(embeddings) // 10, 1)
    optimizer = torch.optim.AdamW(readout.parameters(), lr=config.learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total_steps=config.steps)
    for step in range(config.steps):
        rows = torch.randint(kept, max(len(embeddings), kept + 1), (config.rows,), generator=generator)
        rows = rows.clamp_max(len(embeddings) - 1).to(embeddings.device)
        loss = _loss(readout, embeddings[rows], costs[rows]).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            on_progress(0.7 + 0.3 * step / config.steps)
    return readout.eval().requires_grad_(False), _unexplained(readout, embeddings[:kept], costs[:kept])


def _loss(readout: CostReadout, embeddings: Tensor, costs: Tensor) -> Tensor:
    """Squared errors of the costs and cross-entropy of contacts, `(3,)`."""
    raw = readout.raw(embeddings)
    errors = (raw[..., :2] - costs[..., :2]).square().mean((0, 1))
    contact = torch.nn.functional.binary_cross_entropy_with_logits(raw[..., 2], costs[..., 2])
    return torch.cat([errors, contact[None]])


@torch.no_grad()
def _unexplained(readout: CostReadout, embeddings: Tensor, costs: Tensor) -> dict[str, float]:
    read = torch.stack(list(readout(embeddings).values()), -1)
    error = (read - costs).square().mean((0, 1)) / costs.flatten(0, 1).var(0).clamp_min(1e-9)
    return dict(zip(SOCIAL_TERMS, error.tolist(), strict=True))
