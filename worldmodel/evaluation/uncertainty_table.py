"""Which measure of a model's unsureness tells what it does not know?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from drivecast.worldmodel.energy.model_energy import ModelEnergy
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.evaluation.auroc import auroc, rank_correlation
from drivecast.worldmodel.evaluation.unsureness import Measure, UnsurenessConfig, measures
from drivecast.worldmodel.forecaster.forecast import forecast
from drivecast.worldmodel.forecaster.model import WorldModel
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.recordings.window import Window
from drivecast.worldmodel.scene.kinematics import drive
from drivecast.worldmodel.scene.lane_neighbours import lane_neighbours
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls, TrafficState

HISTORY_S, INDUCED_S = 3.0, 3.0
NEAR_M = 40.0  # from the ego: who is asked how unsure the model is of an ego's doing
JUMP_M, DRIFT_M, TURN_RAD, FASTER = 2.0, 0.8, 0.09, 1.3
SPOILT_S = 0.5  # how long ago the past was spoilt

Scores = dict[str, Tensor]  # of each measure


@dataclass(frozen=True)
class UncertaintyTableConfig:
    """How measures of unsureness are compared.

    Args:
        scenes: Scenes of each problem, at most.
        max_agents: Vehicles of a scene at most.
        batch: Scenes of a batch.
        measured: How unsureness is measured.
    """

    scenes: int = 150
    max_agents: int = 16
    batch: int = 25
    measured: UnsurenessConfig = field(default_factory=UnsurenessConfig)


@dataclass(frozen=True)
class Anomaly:
    """One way to spoil the past of agent 0, as a broken sensor or a strange driver would; its present lane stays."""

    name: str
    spoil: Callable[[TrafficState, Road, int], TrafficState]


def _own(history: TrafficState, **changed: Tensor) -> TrafficState:
    """The history with these values `(batch, time, ...)` for agent 0."""
    parts = {
        name: torch.cat([value[:, :, None], getattr(history, name)[:, :, 1:]], 2) for name, value in changed.items()
    }
    return replace(history, **parts)


def _jumped(history: TrafficState, road: Road, last: int) -> TrafficState:
    """Until then 2 m further behind: it jumps forward."""
    own = history[:, :, 0]
    early = torch.arange(own.valid.shape[1], device=own.valid.device) < own.valid.shape[1] - last
    return _own(history, position_m=own.position_m - JUMP_M * early[:, None] * own.direction)


def _drifted(history: TrafficState, road: Road, last: int) -> TrafficState:
    """Within that time from 0.8 m to its right to where it is, heading straight on: 1.6 m/s sideways."""
    own, steps = history[:, :, 0], history.valid.shape[1]
    left = torch.stack([-own.direction[..., 1], own.direction[..., 0]], -1)
    to_go = (torch.arange(steps - 1, -1, -1, device=left.device) / last).clamp_max(1.0)
    return _own(history, position_m=own.position_m - DRIFT_M * to_go[:, None] * left)


def _turned(history: TrafficState, road: Road, last: int) -> TrafficState:
    """Its heading reads 5 degrees too far to the left."""
    own = history[:, :, 0]
    late = torch.arange(own.valid.shape[1], device=own.valid.device) >= own.valid.shape[1] - last
    return _own(history, heading_rad=own.heading_rad + TURN_RAD * late)


def _too_fast(history: TrafficState, road: Road, last: int) -> TrafficState:
    """Its speed reads 1.3 times what it is."""
    own = history[:, :, 0]
    late = torch.arange(own.valid.shape[1], device=own.valid.device) >= own.valid.shape[1] - last
    return _own(history, speed_mps=own.speed_mps * torch.where(late, FASTER, 1.0))


def _without_leader(history: TrafficState, road: Road, last: int) -> TrafficState:
    """Whoever is ahead of it has not been seen since."""
    now = history[:, -1]
    lane = road.project(now.position_m[:, :1]).lane[:, 0]
    leader = lane_neighbours(now, road, lane, reach=0.5).leader
    agents, steps = history.valid.shape[2], history.valid.shape[1]
    late = torch.arange(steps, device=now.valid.device) >= steps - last
    gone = (torch.arange(agents, device=now.valid.device) == leader[:, None])[:, None] & late[:, None]
    return replace(history, valid=history.valid & ~gone)


ANOMALIES = (
    Anomaly("jumps 2 m", _jumped),
    Anomaly("drifts at 1.6 m/s", _drifted),
    Anomaly("heading off by 5°", _turned),
    Anomaly("speed off by 1.3", _too_fast),
    Anomaly("leader unseen", _without_leader),
)
# what an ego does that no recorded driver did: acceleration in m/s², steering in rad
PUSHES = ((-6.0, 0.0), (3.0, 0.0), (0.0, 0.02), (0.0, -0.02))


@torch.no_grad()
def uncertainty_table(
    energies: Sequence[ModelEnergy],
    store: WindowStore,
    split: str,
    other: WindowStore | None,
    config: UncertaintyTableConfig,
    seed: int = 0,
    on_progress: Callable[[float], None] = lambda share: None,
) -> dict[str, dict[str, float]]:
    """For each measure, how it fares with each problem.

    `another road`: AUROC of vehicles of `other` against those of `split`. `pushed`: of scenes that the first model
    imagined for 3 s about an ego that brakes hard, speeds up or swerves, against those about the ego as recorded; the
    mean over vehicles near it. One column for each anomaly: vehicles whose past was spoilt, against the same unspoilt.
    `error`: Spearman's correlation with the error of the first model's likeliest future, mean over 3 s.
    """
    model, generator = energies[0].model, torch.Generator().manual_seed(seed)
    asked = measures(energies, config.measured, seed)
    windows = _windows(store, split, model, config, generator)
    parts = 3 + len(ANOMALIES)
    table: dict[str, dict[str, float]] = {name: {} for name in asked}

    def told(column: str, low: Mapping[str, Tensor], high: Mapping[str, Tensor], done: int) -> None:
        for name in asked:
            table[name][column] = auroc(low[name], high[name])
        on_progress(done / parts)

    def scored(where: Sequence[Window], pasts: Sequence[TrafficState], who: Callable[[Window], Tensor]) -> Scores:
        return _scored(asked, where, pasts, who)

    histories = [window.history for window in windows]
    usual = scored(windows, histories, _everybody)
    if other is not None:
        elsewhere = _windows(other, "all", model, config, generator)
        told("another road", usual, scored(elsewhere, [window.history for window in elsewhere], _everybody), 1)
    as_recorded, pushed = ([_imagined(model, window, push) for window in windows] for push in (False, True))
    told("pushed", scored(windows, as_recorded, _near_ego), scored(windows, pushed, _near_ego), 2)
    last, own = round(SPOILT_S / model.config.dt_s), scored(windows, histories, _ego)
    for number, anomaly in enumerate(ANOMALIES):
        spoilt = [anomaly.spoil(window.history, window.road, last) for window in windows]
        told(anomaly.name, own, scored(windows, spoilt, _ego), 3 + number)
    errors = torch.cat([_error_m(model, window)[_everybody(window)] for window in windows])
    for name in asked:
        table[name]["error"] = rank_correlation(usual[name], errors)
    on_progress(1.0)
    return table


def _windows(
    store: WindowStore, split: str, model: WorldModel, config: UncertaintyTableConfig, generator: torch.Generator
) -> list[Window]:
    """Scenes about vehicles that are seen 3 s before and after, in random order."""
    past, ahead = round(HISTORY_S / store.dt_s), round(max(INDUCED_S, config.measured.ahead_s) / store.dt_s)
    rows = store.rows(split, past, ahead)
    if not len(rows):
        raise InputError(f"split '{split}' of {store.directory} holds no vehicle that is seen for 6 s")
    rows = rows[torch.randperm(len(rows), generator=generator)][: config.scenes]
    device = next(model.parameters()).device
    return [
        store.window(store.frame_of(part), past, ahead, config.max_agents, part).to(device)
        for part in rows.split(config.batch)
    ]


def _scored(
    asked: Mapping[str, Measure],
    windows: Sequence[Window],
    pasts: Sequence[TrafficState],
    who: Callable[[Window], Tensor],
) -> Scores:
    """Each measure after these pasts of the vehicles `who (batch, agent)`, `(vehicle,)`; of weights, their mean."""
    found: dict[str, list[Tensor]] = {name: [] for name in asked}
    for window, history in zip(windows, pasts, strict=True):
        chosen = who(window)
        for name, measure in asked.items():
            values = measure(history, window.road)
            if chosen.dtype == torch.bool:
                found[name].append(values[chosen])
            else:
                some = chosen.sum(1) > 0
                found[name].append(((values * chosen).sum(1) / chosen.sum(1).clamp_min(1.0))[some])
    return {name: torch.cat(parts).cpu() for name, parts in found.items()}


def _everybody(window: Window) -> Tensor:
    """Who is there all the time."""
    return window.history.valid.all(1) & window.future.valid.all(1)


def _ego(window: Window) -> Tensor:
    return _everybody(window) & (torch.arange(window.row.shape[1], device=window.row.device) == 0)


def _near_ego(window: Window) -> Tensor:
    """A weight: those around the ego at the present."""
    now = window.present
    near = (now.position_m - now.position_m[:, :1]).norm(dim=-1) < NEAR_M
    return (near & _everybody(window) & ~_ego(window)).to(now.speed_mps)


def _imagined(model: WorldModel, window: Window, push: bool) -> TrafficState:
    """The last 3 s of a scene that goes on for 3 s with its ego pushed, each scene another way, or as recorded."""
    steps, past = round(INDUCED_S / model.config.dt_s), window.history.valid.shape[1]
    known = window.future[:, :steps]
    if push:
        kind = torch.arange(len(window.row), device=window.row.device) % len(PUSHES)
        acceleration, steering = torch.tensor(PUSHES).to(known.speed_mps)[kind].unbind(1)
        ego, driven = window.present[:, 0], []
        for _ in range(steps):
            ego = drive(ego, Controls(acceleration, steering), model.config.dt_s)
            driven.append(ego)
        way = TrafficState.stack(driven, 1)
        known = _own(known, position_m=way.position_m, heading_rad=way.heading_rad, speed_mps=way.speed_mps)
    who = torch.zeros_like(window.present.valid)
    who[:, 0] = True
    ahead = forecast(model, model.observe(window.history, window.road), window.road, steps, known, who)
    return TrafficState.cat([window.history, ahead], 1)[:, -past:]


def _error_m(model: WorldModel, window: Window) -> Tensor:
    """Of the likeliest future, mean over time: `(batch, agent)`."""
    guess = forecast(model, model.observe(window.history, window.road), window.road, window.future.valid.shape[1])
    return (guess.position_m - window.future.position_m).norm(dim=-1).mean(1)
