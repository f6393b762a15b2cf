"""How surprising each recorded vehicle's next seconds were: their free energy under the world model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from drivecast.worldmodel.energy.model_energy import ModelEnergy
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.evaluation.energy_table import HISTORY_S
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.recordings.window import Window

FUTURE_S = 3.0
APART_S = 5.0  # moments of one vehicle that are nearer than that are one event


@dataclass(frozen=True)
class SurpriseScoring:
    """How surprise is measured.

    Args:
        stride_s: Time between the moments that are scored, s.
        max_agents: Vehicles of a scene at most.
        batch: Scenes of a batch.
        search_steps: Steps of the search for the best latents.
    """

    stride_s: float = 1.0
    max_agents: int = 128
    batch: int = 8
    search_steps: int = 12

    def __post_init__(self) -> None:
        if self.stride_s <= 0.0:
            raise ValueError(f"stride_s must be positive, not {self.stride_s}")
        for name in ("max_agents", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.search_steps < 0:
            raise ValueError(f"search_steps must not be negative, not {self.search_steps}")


@dataclass(frozen=True)
class Moment:
    """One vehicle at one moment: how surprising what it did next was."""

    recording: str
    vehicle_id: int
    time_s: float  # in the recording's own clock
    free_energy: float
    row: int  # of the store

    def as_json(self) -> dict[str, Any]:
        """Its entry in `surprise.json`."""
        return {name: value for name, value in asdict(self).items() if name != "row"}


def score_moments(
    energy: ModelEnergy,
    store: WindowStore,
    split: str,
    config: SurpriseScoring,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Moment]:
    """F_inf of the next 3 s of every vehicle that is seen all along, given 2 s of history; the highest first.

    Whole scenes are scored at once, each vehicle under its own latents and its neighbours under theirs.
    """
    history_steps, steps = round(HISTORY_S / store.dt_s) + 1, round(FUTURE_S / store.dt_s)
    frames = store.frames(split, history_steps, steps)[:: max(round(config.stride_s / store.dt_s), 1)]
    if not len(frames):
        raise InputError(
            f"split '{split}' of {store.directory} holds no moment with {HISTORY_S:g} s before it "
            f"and {FUTURE_S:g} s after it"
        )
    device = next(energy.model.parameters()).device
    moments: list[Moment] = []
    for chosen in frames.split(config.batch):
        window = store.window(chosen, history_steps, steps, config.max_agents)
        there = window.to(device)
        found = energy.best_latents(there.history, there.road, there.future, steps=config.search_steps).energy.cpu()
        whole = window.history.valid.all(1) & window.future.valid.all(1) & (window.row >= 0)
        time_s = store.time_s(window.frame)
        for scene, agent in whole.nonzero().tolist():
            row = int(window.row[scene, agent])
            moments.append(
                Moment(
                    recording=store.recordings[int(window.recording[scene])],
                    vehicle_id=int(store.vehicle_id(window.row[scene, agent])),
                    time_s=round(float(time_s[scene]), 3),
                    free_energy=float(found[scene, agent]),
                    row=row,
                )
            )
        on_progress(len(chosen), len(frames))
    if not moments:
        raise InputError(f"split '{split}' of {store.directory} holds no vehicle that is seen for 5 s")
    return sorted(moments, key=lambda moment: -moment.free_energy)


def distinct(moments: Sequence[Moment], most: int) -> list[Moment]:
    """The first `most` moments that are not of one vehicle within 5 s of one before."""
    chosen: list[Moment] = []
    for moment in moments:
        same = [each for each in chosen if (each.recording, each.vehicle_id) == (moment.recording, moment.vehicle_id)]
        if len(chosen) < most and all(abs(each.time_s - moment.time_s) >= APART_S for each in same):
            chosen.append(moment)
    return chosen


def moment_window(store: WindowStore, moment: Moment, max_agents: int) -> Window:
    """Its scene, the vehicle as agent 0, with 2 s before and 3 s after."""
    row = torch.tensor([moment.row])
    history_steps, steps = round(HISTORY_S / store.dt_s) + 1, round(FUTURE_S / store.dt_s)
    return store.window(store.frame_of(row), history_steps, steps, max_agents, row)
