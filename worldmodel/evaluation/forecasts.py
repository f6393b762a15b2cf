"""How good forecasts are: RMSE, ADE and FDE at 1 to 5 s, best of k samples, calibration, against constant velocity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.forecast import forecast, sampled_forecasts
from drivecast.worldmodel.forecaster.model import WorldModel
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.recordings.window import Window
from drivecast.worldmodel.scene.traffic import TrafficState
from drivecast.worldmodel.training.diagnostics import constant_velocity, impossible_rates

HORIZONS_S = (1, 2, 3, 4, 5)
HISTORY_S = 3.0  # the literature's: CS-LSTM (Deo & Trivedi 2018), section 5.1
MEAN_SPEED_OVER_S = 0.5  # of the constant-velocity baseline


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

    samples: int = 6
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


@dataclass
class _Sums:
    """Sums over windows at each horizon, `(horizon,)`."""

    windows: Tensor
    values: dict[str, Tensor]

    def add(self, name: str, errors: Tensor, counted: Tensor) -> None:
        """Add `errors (batch, horizon, agent)` where `counted`."""
        total = (errors * counted).sum((0, 2)).double()
        self.values[name] = self.values.get(name, torch.zeros_like(total)) + total

    def mean(self, name: str) -> Tensor:
        return self.values[name] / self.windows.clamp_min(1)


def constant_velocity_of_history(history: TrafficState, steps: int, dt_s: float) -> TrafficState:
    """Every vehicle straight on with its mean velocity of the last half second: `(batch, time, agent)`."""
    back = round(MEAN_SPEED_OVER_S / dt_s)
    now = history[:, -1]
    velocity = (now.position_m - history.position_m[:, -1 - back]) / (back * dt_s)
    ahead = replace(now, speed_mps=velocity.norm(dim=-1), heading_rad=torch.atan2(velocity[..., 1], velocity[..., 0]))
    return constant_velocity(ahead, steps, dt_s)


@torch.no_grad()
def evaluate_forecasts(
    model: WorldModel,
    store: WindowStore,
    split: str,
    config: ForecastEvaluationConfig,
    device: str = "cpu",
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, object]:
    """Forecast every vehicle of every scene of `split` from 3 s of history; nobody's future is known.

    A window is one vehicle at one moment whose own track covers 3 s before and the horizon after. Returns the content
    of `forecast.json`: lists are over `horizons_s`.
    """
    dt = store.dt_s
    history_steps, steps = round(HISTORY_S / dt) + 1, round(HORIZONS_S[-1] / dt)
    frames = store.frames(split, history_steps, round(HORIZONS_S[0] / dt))[:: config.stride]
    if not len(frames):
        raise InputError(f"split '{split}' holds no moment with {HISTORY_S} s before and {HORIZONS_S[0]} s after it")
    at = torch.tensor([round(horizon / dt) - 1 for horizon in HORIZONS_S])
    generator = torch.Generator(device).manual_seed(seed)
    model.eval()
    withheld = round(config.withheld_s / dt)
    sums = _Sums(torch.zeros(len(HORIZONS_S), dtype=torch.double), {})
    impossible = torch.zeros(5, dtype=torch.double)
    for start in range(0, len(frames), config.batch):
        chosen = frames[start : start + config.batch]
        window = store.window(chosen, history_steps, steps, config.max_agents).to(device)
        impossible += _score(model, window, at.to(device), config.samples, dt, withheld, generator, sums)
        on_progress(min(start + config.batch, len(frames)), len(frames))
    if not bool(sums.windows[0] > 0):
        raise InputError(f"split '{split}' holds no vehicle that is seen for {HISTORY_S + HORIZONS_S[0]} s")
    # no vehicle may be seen for 3 s
    rates = (impossible[:4] / impossible[4]).tolist() if impossible[4] > 0 else [None] * 4

    def listed(name: str, root: bool = False) -> list[float | None]:
        mean = sums.mean(name)
        values = (mean.sqrt() if root else mean).tolist()
        return [value if count else None for value, count in zip(values, sums.windows.tolist(), strict=True)]

    return {
        "split": split,
        "horizons_s": list(HORIZONS_S),
        "windows": [int(count) for count in sums.windows.tolist()],
        "samples": config.samples,
        "withheld_s": config.withheld_s,
        "rmse_m": listed("square", root=True),
        "constant_velocity_rmse_m": listed("constant_velocity_square", root=True),
        "sample_mean_rmse_m": listed("sample_mean_square", root=True),
        "ade_m": listed("ade"),
        "fde_m": listed("fde"),
        "min_ade_m": listed("min_ade"),
        "min_fde_m": listed("min_fde"),
        "inside_sampled_range": listed("inside"),
        "inside_sampled_range_wanted": (config.samples - 1) / (config.samples + 1),
        "sampled_collision_rate": rates[0],
        "sampled_off_road_rate": rates[1],
        "recorded_collision_rate": rates[2],
        "recorded_off_road_rate": rates[3],
    }


def _score(
    model: WorldModel,
    window: Window,
    at: Tensor,
    samples: int,
    dt_s: float,
    withheld: int,
    generator: torch.Generator,
    sums: _Sums,
) -> Tensor:
    history, future, road = window.history, window.future, window.road
    steps = future.valid.shape[1]
    whole_past = history.valid.all(1)
    counted = future.valid[:, at] & whole_past[:, None]  # (batch, horizon, agent)
    memory = model.observe(history[:, : history.valid.shape[1] - withheld], road)
    mean = forecast(model, memory, road, withheld + steps, generator=generator)[:, withheld:]
    sampled = sampled_forecasts(model, memory, road, withheld + steps, samples, generator=generator)[:, :, withheld:]
    baseline = constant_velocity_of_history(history, steps, dt_s)

    error = (mean.position_m - future.position_m).norm(dim=-1)  # (batch, time, agent)
    each = (sampled.position_m - future.position_m[:, None]).norm(dim=-1)  # (batch, sample, time, agent)
    average = (sampled.position_m.mean(1) - future.position_m).norm(dim=-1)
    still = (baseline.position_m - future.position_m).norm(dim=-1)
    seconds = torch.arange(1, steps + 1, device=error.device)[:, None]
    sums.windows += counted.sum((0, 2)).cpu().double()
    for name, values in (
        ("square", error[:, at] ** 2),
        ("constant_velocity_square", still[:, at] ** 2),
        ("sample_mean_square", average[:, at] ** 2),
        ("fde", error[:, at]),
        ("ade", (error.cumsum(1) / seconds)[:, at]),
        ("min_fde", each[:, :, at].amin(1)),
        ("min_ade", (each.cumsum(2) / seconds)[:, :, at].amin(1)),
        ("inside", _inside(sampled, future)[:, at].to(error)),
    ):
        sums.add(name, values.cpu(), counted.cpu())
    last = sampled.map(lambda tensor: tensor[:, :, at[2]].flatten(0, 1))
    repeated = torch.arange(len(history.valid), device=error.device).repeat_interleave(samples)
    weight = future.valid[:, at[2]].sum().item()
    truth = future[:, at[2]]
    # vehicles that have left the recorded section by then are judged in neither
    last = replace(last, valid=last.valid & truth.valid[repeated])
    rates = [*impossible_rates(last, road[repeated]), *impossible_rates(truth, road)]
    return torch.tensor([*(rate * weight for rate in rates), weight], dtype=torch.double)


def _inside(sampled: TrafficState, future: TrafficState) -> Tensor:
    """Whether the true distance ahead lies between the samples' least and greatest, `(batch, time, agent)`."""
    direction = future.direction
    truth = (future.position_m * direction).sum(-1)
    along = (sampled.position_m * direction[:, None]).sum(-1)
    return (truth >= along.amin(1)) & (truth <= along.amax(1))
