"""IDM parameters estimated from recorded following, with the spread over drivers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from drivecast.envs.behaviour.fitted_drivers import TEXTBOOK, TRAITS, DriverTraits, FittedDrivers, idm_acceleration
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.recordings.following import Following

LOW = DriverTraits(0.2, 0.3, 0.3, 0.2, 5.0)  # parameters are held within these bounds
HIGH = DriverTraits(5.0, 8.0, 8.0, 4.0, 45.0)
MOST_MPS2 = 8.0


@dataclass(frozen=True)
class FitConfig:
    """How parameters are estimated.

    Args:
        every_s: The gap is compared this often, s: moments nearer to each other tell the same.
        error_m: Spread of the gap's error that counts as usual, m at a gap of 0.
        error_per_m: ... and more per metre of gap (Kesting and Treiber's mixed measure of error).
        robust_at: Errors beyond this many spreads count linearly only (Huber).
        prior: Standard deviation of the typical driver's logarithms around the textbook's values.
        prior_speed: ... of the desired speed: nobody drives it in dense traffic, where a low one passes for a long
            time gap.
        spread: Spread over drivers (of logarithms) to begin with; what the data say nothing about stays there.
        spread_speed: ... of the desired speed, which is not estimated, for the same reason.
        rounds: Times that drivers and spread are estimated in turn.
        steps: Levenberg-Marquardt steps in each round.
    """

    every_s: float = 1.0
    error_m: float = 0.7
    error_per_m: float = 0.07
    robust_at: float = 2.0
    prior: float = 0.7
    prior_speed: float = 0.002
    prior_jam: float = 0.03
    spread: float = 0.25
    spread_speed: float = 0.1
    rounds: int = 10
    steps: int = 4


def fit_drivers(following: Following, dt_s: float, config: FitConfig | None = None) -> FittedDrivers:
    """A population of IDM drivers from recorded following.

    Each driver starts where and as fast as recorded, follows its recorded leader by IDM to the end of the stretch, and
    its gap is compared with the recorded one (closed loop, as Kesting and Treiber 2008, "Calibrating car-following
    models by using trajectory data", section 3). First the typical driver: one set of parameters for all. Then each
    driver: its few seconds determine five parameters badly, so the typical driver is its prior (log-normal); and the
    spread, from the drivers and their uncertainty, in turn (expectation maximisation with Laplace's approximation).

    Raises:
        InputError: Nobody follows anybody for long enough.
    """
    config = config or FitConfig()
    count = following.drivers
    if not count:
        raise InputError("following: expected somebody within 60 m behind another for 3 s, found nobody")
    following = following.map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)
    textbook = torch.tensor(TEXTBOOK.values(), dtype=torch.float64).log()
    speed = TRAITS.index("desired_speed_mps")
    prior = torch.full_like(textbook, config.prior)
    prior[speed], prior[TRAITS.index("jam_gap_m")] = config.prior_speed, config.prior_jam
    everybody = Following(**{**following.__dict__, "driver": torch.zeros_like(following.driver)})
    typical, _ = _fitted(everybody, dt_s, config, textbook[None], textbook, prior, config.rounds * config.steps)
    spread = torch.full_like(textbook, config.spread)
    spread[speed] = config.spread_speed
    logs = typical.expand(count, -1)
    for _ in range(config.rounds):
        logs, curvature = _fitted(following, dt_s, config, logs, typical[0], spread, config.steps)
        uncertain = torch.linalg.inv(curvature).diagonal(dim1=-2, dim2=-1)
        spread = ((logs - typical) ** 2 + uncertain).mean(0).sqrt()
        spread[speed] = config.spread_speed
    return FittedDrivers(DriverTraits(*typical[0].exp().tolist()), DriverTraits(*spread.tolist()), count)


def gaps_behind(following: Following, traits: DriverTraits, dt_s: float, constant_speed: bool = False) -> Tensor:
    """Gap of each stretch's follower if it drives by IDM from the first moment on, `(stretch, time)`, m.

    Args:
        traits: One value or one per stretch, of each parameter.
        constant_speed: It keeps its first speed instead.
    """
    speed, gap = following.speed_mps[:, 0], following.gap_m[:, 0]
    gaps = [gap]
    for time in range(following.gap_m.shape[1] - 1):
        leader = following.leader_mps[:, time]
        after = speed
        if not constant_speed:
            wanted = idm_acceleration(traits, speed, speed - leader, gap, following.lengths_m)
            after = (speed + wanted.clamp(-MOST_MPS2, MOST_MPS2) * dt_s).clamp_min(0.0)
        gap = gap + ((leader + following.leader_mps[:, time + 1]) - (speed + after)) / 2 * dt_s
        speed = after
        gaps.append(gap)
    return torch.stack(gaps, 1)


def gap_error_m(
    following: Following, traits: DriverTraits, dt_s: float, after_s: float = 5.0, constant_speed: bool = False
) -> float:
    """Root mean square error of the gap `after_s` after a start, over all starts a second apart."""
    steps, every = round(after_s / dt_s), round(1.0 / dt_s)
    errors = []
    for start in range(0, following.gap_m.shape[1] - steps, every):
        long = following.steps > start + steps
        if not long.any():
            break
        window = following[long]
        window = replace(
            window,
            gap_m=window.gap_m[:, start : start + steps + 1],
            speed_mps=window.speed_mps[:, start : start + steps + 1],
            leader_mps=window.leader_mps[:, start : start + steps + 1],
            steps=torch.full_like(window.steps, steps + 1),
        )
        errors.append(gaps_behind(window, traits, dt_s, constant_speed)[:, -1] - window.gap_m[:, -1])
    if not errors:
        raise InputError(f"following: expected a stretch of {after_s} s, found none")
    return float(torch.cat(errors).square().mean().sqrt())


def _residuals(following: Following, dt_s: float, config: FitConfig, logs: Tensor) -> tuple[Tensor, Tensor]:
    """Errors of the gap in spreads, `(candidate, stretch, moment)`, for `logs (candidate, driver, parameter)`."""
    candidates, _, parameters = logs.shape
    every = max(1, round(config.every_s / dt_s))
    many = following.map(lambda tensor: tensor.repeat(candidates, *[1] * (tensor.dim() - 1)))
    low, high = (torch.tensor(bound.values(), dtype=logs.dtype).log() for bound in (LOW, HIGH))
    values = logs.clamp(low, high).exp()[:, following.driver].reshape(-1, parameters)
    gaps = gaps_behind(many, DriverTraits.of(values), dt_s).view(candidates, *following.gap_m.shape)[..., every::every]
    recorded = following.gap_m[:, every::every]
    scale = config.error_m + config.error_per_m * recorded
    return (gaps - recorded) / scale, following.recorded[:, every::every]


def _fitted(
    following: Following,
    dt_s: float,
    config: FitConfig,
    logs: Tensor,
    median: Tensor,
    spread: Tensor,
    steps: int,
) -> tuple[Tensor, Tensor]:
    """Parameters of all drivers after some steps from `logs (driver, parameter)`, and the curvature there."""
    damping = torch.full((len(logs),), 1e-2, dtype=logs.dtype)
    curvature = torch.zeros(0)
    for _ in range(steps):
        logs, curvature, damping = _improve(following, dt_s, config, logs, median, spread, damping)
    return logs, curvature


def _improve(
    following: Following,
    dt_s: float,
    config: FitConfig,
    logs: Tensor,
    median: Tensor,
    spread: Tensor,
    damping: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """One Levenberg-Marquardt step of all drivers: logs, curvature `(driver, parameter, parameter)`, damping."""
    count, parameters = logs.shape
    nudge = 1e-3 * torch.eye(parameters, dtype=logs.dtype)
    candidates = torch.cat([logs[None], logs + nudge[:, None]])
    residual, there = _residuals(following, dt_s, config, candidates)
    here = residual[0]
    slope = (residual[1:] - here) / 1e-3  # (parameter, stretch, moment)
    weight = (config.robust_at / here.abs().clamp_min(1e-9)).clamp_max(1.0) * there

    def by_driver(values: Tensor) -> Tensor:
        return torch.zeros(count, *values.shape[1:], dtype=values.dtype).index_add(0, following.driver, values)

    curvature = by_driver(torch.einsum("psm,qsm,sm->spq", slope, slope, weight)) + torch.diag(1 / spread**2)
    gradient = by_driver(torch.einsum("psm,sm,sm->sp", slope, here, weight)) + (logs - median) / spread**2
    held = curvature + damping[:, None, None] * torch.diag_embed(curvature.diagonal(dim1=-2, dim2=-1))
    proposed = logs - torch.linalg.solve(held, gradient).clamp(-0.5, 0.5)

    def cost(errors: Tensor, at: Tensor) -> Tensor:
        size, bend = errors.abs(), config.robust_at
        huber = torch.where(size <= bend, size.square() / 2, bend * (size - bend / 2))
        return by_driver((huber * there).sum(-1)) + ((at - median) / spread).square().sum(-1) / 2

    then = _residuals(following, dt_s, config, proposed[None])[0][0]
    better = cost(then, proposed) < cost(here, logs)
    return torch.where(better[:, None], proposed, logs), curvature, torch.where(better, damping / 3, damping * 5)
