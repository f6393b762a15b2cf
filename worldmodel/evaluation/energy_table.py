"""Free energies of recorded and of corrupted futures of the same vehicles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from drivecast.worldmodel.energy.model_energy import ModelEnergy
from drivecast.worldmodel.energy.reconstruction_scale import ReconstructionScale
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.evaluation.auroc import auroc
from drivecast.worldmodel.evaluation.corruptions import CORRUPTIONS, Corruption
from drivecast.worldmodel.forecaster.model import WorldModel
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.recordings.window import Window
from drivecast.worldmodel.scene.traffic import TrafficState

HISTORY_S = 2.0
SCALE_WINDOWS, SCALE_HORIZON_S = 40, 5.0
MOVING_MPS = 5.0  # a standing vehicle's future is the same at 0.7 times its speed, and a second late


@dataclass(frozen=True)
class EnergyTableConfig:
    """How recorded and corrupted futures are compared.

    Args:
        horizons_s: Lengths of the futures, s.
        vehicles: Recorded futures, and of each kind of corrupted ones, at most.
        max_agents: Vehicles of a scene at most, the nearest to the one whose future it is.
        search_steps: Steps of the search for the best latents.
        batch: Scenes of a batch.
        others_known: The other vehicles move as recorded, so the energy is that of one vehicle's answer to them;
            otherwise all move under their own latents.
    """

    horizons_s: tuple[int, ...] = (1, 3, 5)
    vehicles: int = 300
    max_agents: int = 12
    search_steps: int = 30
    batch: int = 50
    others_known: bool = True

    def __post_init__(self) -> None:
        if not self.horizons_s or min(self.horizons_s) < 1:
            raise ValueError(f"horizons_s must be seconds of at least 1, not {self.horizons_s}")
        for name in ("vehicles", "max_agents", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")


def measured_scale(model: WorldModel, store: WindowStore, split: str, max_agents: int = 64) -> ReconstructionScale:
    """The model's usual errors on recorded windows of `split`, evenly spread.

    Raises `InputError` where it holds too few vehicles.
    """
    steps = round(SCALE_HORIZON_S / store.dt_s)
    frames = store.frames(split, round(HISTORY_S / store.dt_s) + 1, round(1.0 / store.dt_s))
    if not len(frames):
        raise InputError(
            f"split '{split}' of {store.directory} holds no moment with {HISTORY_S} s before it and 1 s after"
        )
    windows = [
        store.window(chosen, round(HISTORY_S / store.dt_s) + 1, steps, max_agents)
        for chosen in frames[:: max(len(frames) // SCALE_WINDOWS, 1)].split(8)
    ]
    device = next(model.parameters()).device
    try:
        return ReconstructionScale.measured(
            model, ((w.history, w.road, w.future) for w in (window.to(device) for window in windows))
        )
    except ValueError as error:
        raise InputError(f"split '{split}' of {store.directory}: {error}") from error


def energy_table(
    energy: ModelEnergy,
    store: WindowStore,
    split: str,
    config: EnergyTableConfig,
    seed: int = 0,
    on_progress: Callable[[float], None] = lambda share: None,
) -> dict[str, Any]:
    """AUROC of the free energy (F_inf) of corrupted futures against recorded ones of the same vehicles.

    Returns `horizons_s` and, for each corruption, lists over them: `auroc`, `paired` (the share of vehicles whose
    corrupted future costs more than their own recorded one), `vehicles` and the medians of both energies (`recorded`,
    `corrupted`); `moving_auroc` and `moving_vehicles` of those that drive at 5 m/s or more at the present.
    """
    names = ("auroc", "paired", "vehicles", "recorded", "corrupted", "moving_auroc", "moving_vehicles")
    rows: dict[str, dict[str, Any]] = {
        each.name: {"gross": each.is_gross, **{name: [] for name in names}} for each in CORRUPTIONS
    }
    done, total = 0.0, sum(config.horizons_s) * (len(CORRUPTIONS) + 1)
    for horizon_s in config.horizons_s:
        scorer = _Scorer(energy, store, horizon_s, config)
        order = scorer.candidates(split, seed)
        recorded: dict[int, float] = {}
        for corruption in CORRUPTIONS:
            chosen = scorer.applicable(order, corruption)
            new = torch.tensor([row for row in chosen.tolist() if row not in recorded], dtype=torch.long)
            recorded |= dict(zip(new.tolist(), scorer.scores(new, None).tolist(), strict=True))
            low = torch.tensor([recorded[row] for row in chosen.tolist()])
            high = scorer.scores(chosen, corruption)
            moving = scorer.window(chosen).present.speed_mps[:, 0] >= MOVING_MPS if len(chosen) else low > 0
            for name, value in _compared(low, high, moving).items():
                rows[corruption.name][name].append(value)
            done += horizon_s * (2 if corruption is CORRUPTIONS[0] else 1)
            on_progress(done / total)
    return {"split": split, "horizons_s": list(config.horizons_s), "corruptions": rows}


def _compared(low: Tensor, high: Tensor, moving: Tensor) -> dict[str, float | int | None]:
    """The table's entries for energies of recorded and of corrupted futures, `(vehicle,)` each."""

    def tell(one: Tensor, two: Tensor) -> float | None:
        return auroc(one, two) if len(one) else None

    some = len(low) > 0
    return {
        "auroc": tell(low, high),
        "paired": float((high > low).double().mean()) if some else None,
        "vehicles": len(low),
        "recorded": float(low.median()) if some else None,
        "corrupted": float(high.median()) if some else None,
        "moving_auroc": tell(low[moving], high[moving]),
        "moving_vehicles": int(moving.sum()),
    }


class _Scorer:
    """Free energies of vehicles' futures of one length."""

    def __init__(self, energy: ModelEnergy, store: WindowStore, horizon_s: int, config: EnergyTableConfig) -> None:
        self.energy, self.store, self.config, self.horizon_s = energy, store, config, horizon_s
        self.history_steps, self.steps = round(HISTORY_S / store.dt_s) + 1, round(horizon_s / store.dt_s)

    def candidates(self, split: str, seed: int) -> Tensor:
        """All rows with a whole past and future, in random order."""
        rows = self.store.rows(split, self.history_steps, self.steps)
        if not len(rows):
            raise InputError(
                f"split '{split}' of {self.store.directory} holds no vehicle that is seen for "
                f"{HISTORY_S + self.horizon_s:g} s; ask for shorter futures"
            )
        return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]

    def window(self, rows: Tensor) -> Window:
        frames = self.store.frame_of(rows)
        return self.store.window(frames, self.history_steps, self.steps, self.config.max_agents, rows)

    def applicable(self, order: Tensor, corruption: Corruption) -> Tensor:
        """The first rows to which a corruption can be applied, at most `vehicles`."""
        found: list[Tensor] = []
        for rows in order.split(256):
            _, applies = corruption.apply(self.window(rows), self.store.dt_s)
            found.append(rows[applies])
            if sum(map(len, found)) >= self.config.vehicles:
                break
        return torch.cat(found)[: self.config.vehicles]

    def scores(self, rows: Tensor, corruption: Corruption | None) -> Tensor:
        """Free energy of each row's future, as recorded or corrupted: `(row,)`."""
        device = next(self.energy.model.parameters()).device
        found = [torch.zeros(0)]
        for chosen in rows.split(self.config.batch):
            if not len(chosen):
                continue
            window = self.window(chosen)
            future = window.future if corruption is None else corruption.apply(window, self.store.dt_s)[0]
            window = replace(window, future=future).to(device)
            found.append(self._score(window, window.future).cpu())
        return torch.cat(found)

    def _score(self, window: Window, future: TrafficState) -> Tensor:
        who = None
        if self.config.others_known:
            who = torch.ones_like(window.present.valid)
            who[:, 0] = False
        steps = self.config.search_steps
        return self.energy.best_latents(window.history, window.road, future, who, steps).energy[:, 0]
