"""Who notices that a scene goes on as none does: AUROC of energies of spoilt scenes against recorded ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from drivecast.worldmodel.energy.model_energy import ModelEnergy
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.evaluation.auroc import auroc
from drivecast.worldmodel.evaluation.scene_corruptions import SCENE_CORRUPTIONS
from drivecast.worldmodel.joint_embedding.energy import PredictionEnergy
from drivecast.worldmodel.joint_embedding.frames import window_frames
from drivecast.worldmodel.recordings.sampling import WindowRequest, WindowSampler
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.recordings.window import Window

SceneEnergy = Callable[[Window], Tensor]  # of a window's future beside its ego, `(batch,)`: high where it surprises
RESAMPLINGS = 500


@dataclass(frozen=True)
class SurpriseConfig:
    """How spoilt scenes are told from recorded ones.

    Args:
        windows: Recorded scenes.
        horizon_s: Of their futures, s; spoilt is the second half.
        history_s: Of their pasts, s.
        max_agents: Vehicles of a scene at most.
        batch: Scenes at once.
    """

    windows: int = 400
    horizon_s: float = 3.0
    history_s: float = 2.0
    max_agents: int = 12
    batch: int = 50

    def __post_init__(self) -> None:
        if self.windows < 1 or self.batch < 2 or not self.horizon_s > 0.0 or not self.history_s > 0.0:
            raise InputError("surprise: expected windows of at least 1, a batch of 2, horizon_s and history_s above 0")


@dataclass(frozen=True)
class Noticed:
    """AUROC of a kind of spoilt scenes, its 95 % interval over resampled scenes, and how many there are of each."""

    auroc: float
    low: float
    high: float
    scenes: int


def of_prediction(energy: PredictionEnergy) -> SceneEnergy:
    """The joint embedding's: its worst frame, for surprises come at a moment."""

    def score(window: Window) -> Tensor:
        config = energy.model.config
        frames, past = window_frames(window, config.dt_s, config.stride)
        return energy.by_frame(frames, past).amax(1)

    return score


def of_scene_model(energy: ModelEnergy, search_steps: int) -> SceneEnergy:
    """The generative model's: free energy of the others beside the known ego, of the most surprising one."""

    def score(window: Window) -> Tensor:
        who = torch.zeros_like(window.present.valid)
        who[:, 0] = True
        found = energy.best_latents(window.history, window.road, window.future, who, search_steps)
        return found.energy.amax(1)

    return score


def of_jerks() -> SceneEnergy:
    """The largest change of anybody's displacement from one step to the next, m: no model at all."""

    def score(window: Window) -> Tensor:
        position, valid = window.future.position_m, window.future.valid
        changed = position.diff(n=2, dim=1).norm(dim=-1)
        return (changed * valid[:, 2:]).amax((1, 2))

    return score


@torch.no_grad()
def scene_surprise(
    energies: Mapping[str, SceneEnergy], store: WindowStore, split: str, config: SurpriseConfig, seed: int = 0
) -> dict[str, dict[str, Noticed]]:
    """Of each energy and corruption, how well spoilt scenes of `split` are told from the same ones as recorded."""
    windows = _drawn(store, split, config, seed)
    table: dict[str, dict[str, Noticed]] = {}
    for name, energy in energies.items():
        recorded = torch.cat([energy(window) for window in windows])
        table[name] = {}
        for corruption in SCENE_CORRUPTIONS:
            spoilt, applies = [], []
            for window in windows:
                future, can = corruption.spoilt(window, store.dt_s)
                spoilt.append(energy(replace(window, future=future)))
                applies.append(can)
            can = torch.cat(applies)
            table[name][corruption.name] = _noticed(recorded[can], torch.cat(spoilt)[can], seed)
    return table


def _drawn(store: WindowStore, split: str, config: SurpriseConfig, seed: int) -> Sequence[Window]:
    request = WindowRequest(
        round(config.history_s / store.dt_s), round(config.horizon_s / store.dt_s), config.max_agents
    )
    sampler, generator = WindowSampler([store], split, request), torch.Generator().manual_seed(seed)
    counts = [min(config.batch, config.windows - begin) for begin in range(0, config.windows, config.batch)]
    return [window for count in counts for window in sampler.draw(count, generator)]


def _noticed(recorded: Tensor, spoilt: Tensor, seed: int) -> Noticed:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(RESAMPLINGS if len(recorded) else 0):
        rows = torch.randint(len(recorded), (len(recorded),), generator=generator)
        found.append(auroc(recorded[rows], spoilt[rows]))
    bounds = torch.tensor(found or [float("nan")]).nanquantile(torch.tensor([0.025, 0.975]))
    return Noticed(auroc(recorded, spoilt), float(bounds[0]), float(bounds[1]), len(recorded))
