"""How good forecasts are: errors and proper scores at 1 to 8 s, calibration, lane changes, contacts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from drivecast.worldmodel.energy.scoring import (
    fair_crps,
    fair_energy_score,
    rank_of_truth,
    region_coverage,
)
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.evaluation.lane_changes import lane_changes
from drivecast.worldmodel.evaluation.tally import Tally
from drivecast.worldmodel.forecaster.sampler import Sampler
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.recordings.window import Window
from drivecast.worldmodel.scene.road import NO_LANE
from drivecast.worldmodel.scene.traffic import TrafficState, along_and_left
from drivecast.worldmodel.training.diagnostics import constant_velocity, impossible

HORIZONS_S = (1, 2, 3, 4, 5, 6, 7, 8)
HISTORY_S = 3.0  # the literature's: CS-LSTM (Deo & Trivedi 2018), section 5.1
MEAN_SPEED_OVER_S = 0.5  # of the constant-velocity baseline
REGIONS = (0.5, 0.8, 0.95)
IMPOSSIBLE_AT_S = 3  # of the two scalars


@dataclass(frozen=True)
class ForecastEvaluationConfig:
    """Evaluation of forecasts.

    Args:
        samples: Futures sampled for each scene.
        batch: Scenes of a batch.
        stride: Steps between the scenes that are scored; 1 scores each.
        max_agents: Vehicles of a scene at most.
        withheld_s: Newest part of the history that the model does not see, in s. Recorded positions and speeds are
            smoothed over a window that reaches into the future; this takes that knowledge away (and some that is fair).
            The horizon still counts from the present, and constant velocity keeps its whole history.
    """

    samples: int = 20
    batch: int = 8
    stride: int = 1
    max_agents: int = 128
    withheld_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("samples", "batch", "stride", "max_agents"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0.0 <= self.withheld_s < HISTORY_S:
            raise ValueError(f"withheld_s must lie in [0, {HISTORY_S}), not {self.withheld_s}")


def constant_velocity_of_history(history: TrafficState, steps: int, dt_s: float) -> TrafficState:
    """Every vehicle straight on with its mean velocity of the last half second: `(batch, time, agent)`."""
    back = min(round(MEAN_SPEED_OVER_S / dt_s), history.valid.shape[1] - 1)
    now = history[:, -1]
    velocity = (now.position_m - history.position_m[:, -1 - back]) / (max(back, 1) * dt_s)
    ahead = replace(now, speed_mps=velocity.norm(dim=-1), heading_rad=torch.atan2(velocity[..., 1], velocity[..., 0]))
    return constant_velocity(ahead, steps, dt_s)


@torch.no_grad()
def evaluate_forecasts(
    sampler: Sampler,
    store: WindowStore,
    split: str,
    config: ForecastEvaluationConfig,
    device: str = "cpu",
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Forecast every vehicle of every scene of `split` from 3 s of history; nobody's future is known.

    A window is one vehicle at one moment whose own track covers 3 s before and the horizon after. Returns the content
    of `forecast.json` (docs/evaluation.md#forecasts): lists are over `horizons_s`.
    """
    return tally_forecasts(sampler, store, split, config, device, seed, on_progress).result(split, config)


@torch.no_grad()
def tally_forecasts(
    sampler: Sampler,
    store: WindowStore,
    split: str,
    config: ForecastEvaluationConfig,
    device: str = "cpu",
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> ForecastTally:
    """The same, scene by scene: what paired comparisons of two forecasters need."""
    dt = store.dt_s
    history_steps, steps = round(HISTORY_S / dt) + 1, round(HORIZONS_S[-1] / dt)
    frames = store.frames(split, history_steps, round(HORIZONS_S[0] / dt))[:: config.stride]
    if not len(frames):
        raise InputError(f"split '{split}' holds no moment with {HISTORY_S} s before and {HORIZONS_S[0]} s after it")
    generator = torch.Generator(device).manual_seed(seed)
    tally = ForecastTally(config.samples)
    for start in range(0, len(frames), config.batch):
        chosen = frames[start : start + config.batch]
        window = store.window(chosen, history_steps, steps, config.max_agents).to(device)
        tally.add(window, sampler, round(config.withheld_s / dt), dt, generator)
        on_progress(min(start + config.batch, len(frames)), len(frames))
    if not bool(tally.windows.total()[0] > 0):
        raise InputError(f"split '{split}' holds no vehicle that is seen for {HISTORY_S + HORIZONS_S[0]} s")
    return tally


class ForecastTally:
    """Sums over windows at each horizon, kept apart for each scene.

    Args:
        samples: Futures sampled for each scene.
    """

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self.frames: list[int] = []
        self.windows = Tally()  # vehicles that count
        self.scenes = Tally()  # scenes with at least one of them
        self.sums: dict[str, Tally] = {}
        self.ranks = torch.zeros(2, len(HORIZONS_S), samples + 1, dtype=torch.long)  # along, to the left

    def add(self, window: Window, sampler: Sampler, withheld: int, dt_s: float, generator: torch.Generator) -> None:
        """Score one batch of scenes, of whose past the newest `withheld` steps are not shown."""
        history, future, road = window.history, window.future, window.road
        steps = future.valid.shape[1]
        at = torch.tensor([round(horizon / dt_s) - 1 for horizon in HORIZONS_S], device=future.valid.device)
        counted = future.valid[:, at] & history.valid.all(1)[:, None]  # (batch, horizon, agent)
        shown = history[:, : history.valid.shape[1] - withheld]
        mean = sampler.likeliest(shown, road, withheld + steps)[:, withheld:]
        sampled = sampler.sample(shown, road, self.samples, withheld + steps, generator)[:, :, withheld:]
        still = constant_velocity_of_history(history, steps, dt_s)

        self.frames += window.frame.tolist()
        self.windows.add(counted.sum(2))
        self.scenes.add(counted.any(2))
        truth = future.position_m
        self._add_errors(truth, mean, sampled, still, at, counted)
        self._add_scores(history[:, -1], truth[:, at], sampled.position_m[:, :, at].transpose(0, 1), counted)
        self._add_lane_changes(window, sampled, at, counted)
        self._add_contacts(window, sampled[:, :, at], future[:, at])

    def _sum(self, name: str, values: Tensor, counted: Tensor) -> None:
        """Add `values (batch, horizon, agent)` where `counted`."""
        self.sums.setdefault(name, Tally()).add(values.masked_fill(~counted, 0.0).sum(2))

    def _add_errors(
        self,
        truth: Tensor,
        mean: TrafficState,
        sampled: TrafficState,
        still: TrafficState,
        at: Tensor,
        counted: Tensor,
    ) -> None:
        seconds = at + 1
        error = (mean.position_m - truth).norm(dim=-1)  # (batch, time, agent)
        each = (sampled.position_m - truth[:, None]).norm(dim=-1)  # (batch, sample, time, agent)
        average = (sampled.position_m.mean(1) - truth).norm(dim=-1)
        to_here = each.cumsum(2)[:, :, at] / seconds[:, None]
        for name, values in (
            ("square", error[:, at] ** 2),
            ("constant_velocity_square", (still.position_m - truth).norm(dim=-1)[:, at] ** 2),
            ("sample_mean_square", average[:, at] ** 2),
            ("fde", error[:, at]),
            ("ade", error.cumsum(1)[:, at] / seconds[:, None]),
            ("min_fde", each[:, :, at].amin(1)),
            ("min_ade", to_here.amin(1)),
        ):
            self._sum(name, values, counted)
        for name, values in (("joint_min_fde", each[:, :, at]), ("joint_min_ade", to_here)):
            whole = values.masked_fill(~counted[:, None], 0.0).sum(3).amin(1)  # one future for the whole scene
            self.sums.setdefault(name, Tally()).add(whole)

    def _add_scores(self, now: TrafficState, truth: Tensor, sampled: Tensor, counted: Tensor) -> None:
        """Of `truth (batch, horizon, agent, 2)` and `sampled (sample, batch, horizon, agent, 2)`."""
        direction = now.direction[:, None]
        for side, name in enumerate(("crps", "crps_left")):
            one, many = along_and_left(truth, direction)[side], along_and_left(sampled, direction)[side]
            self._sum(name, fair_crps(many, one), counted)
            rank = rank_of_truth(many, one)
            for horizon in range(len(HORIZONS_S)):
                ranks = rank[:, horizon][counted[:, horizon]]
                self.ranks[side, horizon] += torch.bincount(ranks, minlength=self.samples + 1).cpu()
        one = truth.masked_fill(~counted[..., None], 0.0).flatten(2)
        many = sampled.masked_fill(~counted[..., None], 0.0).flatten(3)
        per_vehicle = counted.sum(2).clamp_min(1).sqrt()
        self.sums.setdefault("energy_score", Tally()).add(fair_energy_score(many, one) / per_vehicle)

    def _add_lane_changes(self, window: Window, sampled: TrafficState, at: Tensor, counted: Tensor) -> None:
        batch, samples = sampled.valid.shape[:2]
        now, road = window.present.position_m, window.road
        recorded = lane_changes(road, now, window.future.position_m[:, at], counted)
        repeated = torch.arange(batch, device=now.device).repeat_interleave(samples)
        drawn = lane_changes(
            road[repeated], now[repeated], sampled.position_m[:, :, at].flatten(0, 1), counted[repeated]
        ).lane.view(batch, samples, *counted.shape[1:])
        counted = counted & recorded.judged[:, None]
        changes = counted & (recorded.lane != NO_LANE)
        for name, values in (
            ("judged", counted),
            ("recorded_change", changes),
            ("met_change", changes & (drawn == recorded.lane[:, None]).any(1)),
            ("sampled_change", (drawn != NO_LANE).double().mean(1)),
        ):
            self._sum(name, values.double(), counted)

    def _add_contacts(self, window: Window, sampled: TrafficState, truth: TrafficState) -> None:
        """At each horizon; vehicles that have left the recorded section by then are judged in neither."""
        road, batch, samples = window.road, *sampled.valid.shape[:2]
        moments = len(HORIZONS_S)
        there = truth.valid & window.present.valid[:, None]
        sampled = replace(sampled, valid=sampled.valid & there[:, None])
        row = torch.arange(batch, device=there.device)
        for name, scenes, roads, shape in (
            ("recorded", replace(truth, valid=there).map(lambda t: t.flatten(0, 1)), row, (batch, 1, moments)),
            ("sampled", sampled.map(lambda t: t.flatten(0, 2)), row, (batch, samples, moments)),
        ):
            of = road[roads.repeat_interleave(shape[1] * moments)]
            touches, outside = impossible(scenes, of)
            for what, values in (("touch", touches), ("off_road", outside)):
                self._sum(f"{name}_{what}", values.view(*shape, -1).double().mean(1), there)
        self._sum("there", there.double(), there)

    def result(self, split: str, config: ForecastEvaluationConfig) -> dict[str, Any]:
        """The content of `forecast.json`."""
        windows = self.windows.total()

        def listed(name: str, over: Tensor = windows, root: bool = False, factor: float = 1.0) -> list[float | None]:
            mean = factor * self.sums[name].total() / over.clamp_min(1)
            values = (mean.sqrt() if root else mean).tolist()
            return [value if count else None for value, count in zip(values, over.tolist(), strict=True)]

        there, scenes = self.sums["there"].total(), self.scenes.total()
        recorded_changes = self.sums["recorded_change"].total()
        energy = [value for value in listed("energy_score", scenes) if value is not None]
        touch, off_road = listed("sampled_touch", there), listed("sampled_off_road", there)
        recorded_touch, recorded_off_road = listed("recorded_touch", there), listed("recorded_off_road", there)
        judged = self.sums["judged"].total()
        minutes = judged * torch.tensor(HORIZONS_S, dtype=torch.double) / 60
        number = HORIZONS_S.index(IMPOSSIBLE_AT_S)
        range_of = [float(value) for value in 1 - (self.ranks[0, :, 0] + self.ranks[0, :, -1]) / windows.clamp_min(1)]
        coverage = [value if count else None for value, count in zip(range_of, windows.tolist(), strict=True)]
        ideal = (self.samples - 1) / (self.samples + 1)
        return {
            "split": split,
            "horizons_s": list(HORIZONS_S),
            "windows": [int(count) for count in windows.tolist()],
            "scenes": [int(count) for count in scenes.tolist()],
            "samples": self.samples,
            "withheld_s": config.withheld_s,
            "rmse_m": listed("square", root=True),
            "constant_velocity_rmse_m": listed("constant_velocity_square", root=True),
            "sample_mean_rmse_m": listed("sample_mean_square", root=True),
            "ade_m": listed("ade"),
            "fde_m": listed("fde"),
            "min_ade_m": listed("min_ade"),
            "min_fde_m": listed("min_fde"),
            "joint_min_ade_m": listed("joint_min_ade"),
            "joint_min_fde_m": listed("joint_min_fde"),
            "crps_m": listed("crps"),
            "crps_left_m": listed("crps_left"),
            "energy_score_m": listed("energy_score", scenes),
            "energy_score": sum(energy) / len(energy),
            "coverage": coverage,
            "ideal_coverage": [ideal] * len(HORIZONS_S),
            "regions": self._regions(windows),
            "rank_histogram": {name: self.ranks[side].tolist() for side, name in enumerate(("along", "left"))},
            "touch_rate": touch,
            "recorded_touch_rate": recorded_touch,
            "off_road_rate": off_road,
            "recorded_lane_changes": [int(count) for count in recorded_changes.tolist()],
            "lane_change_recall": listed("met_change", recorded_changes),
            "lane_changes_per_minute": listed("sampled_change", minutes),
            "recorded_lane_changes_per_minute": listed("recorded_change", minutes),
            "sampled_collision_rate": touch[number],
            "sampled_off_road_rate": off_road[number],
            "recorded_collision_rate": recorded_touch[number],
            "recorded_off_road_rate": recorded_off_road[number],
        }

    def _regions(self, windows: Tensor) -> list[dict[str, Any]]:
        regions: list[dict[str, Any]] = []
        for share in REGIONS:
            covered, ideal = region_coverage(self.ranks.double(), share)
            both = [
                [value if count else None for value, count in zip(side, windows.tolist(), strict=True)]
                for side in covered.tolist()
            ]
            regions.append({"region": share, "ideal": ideal, "along": both[0], "left": both[1]})
        return regions
