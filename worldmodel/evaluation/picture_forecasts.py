"""How good predicted pictures are: error, sharpness and overlap, of one blurry future and of several sharp ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from drivecast.worldmodel.raster.clips import Clip, Seen, future_seconds, window_clips
from drivecast.worldmodel.raster.diagnostics import edges
from drivecast.worldmodel.raster.network import RasterModel
from drivecast.worldmodel.raster.view import View, draw_vehicles
from drivecast.worldmodel.recordings.sampling import WindowRequest, WindowSampler
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.recordings.window import Window
from drivecast.worldmodel.scene.traffic import TrafficState

TAKEN = 0.5  # a pixel that is covered so far counts as taken
BATCH = 16
RECORDED, HELD, STRAIGHT, SEVERAL = "recorded", "last picture held", "constant velocity, drawn", "several z"
MEAN, ONE, AVERAGE, BEST, KNOWN = "z = 0", "one z", "mean over z", "best z", "z of the posterior"
METHODS = (HELD, STRAIGHT, MEAN, ONE, AVERAGE, BEST, KNOWN)


@dataclass(frozen=True)
class PictureTable:
    """Scores of clips at moments of their future.

    Attributes:
        seconds: The moments, s.
        error: method: squared error of the others' picture, summed over its pixels, `(clip, moment)`.
        sharpness: method: squared differences of neighbouring pixels, `(clip, moment)`, not yet shares.
        recorded_sharpness: The same of what was recorded, `(clip, moment)`.
        overlap: method: pixels taken in both over pixels taken in either, `(clip, moment)`; NaN where nothing is.
        variety: Squared distance of two futures with a z each, summed over pixels, `(clip, moment)`.
        samples: Futures of a clip.
    """

    seconds: tuple[float, ...]
    error: dict[str, Tensor]
    sharpness: dict[str, Tensor]
    recorded_sharpness: Tensor
    overlap: dict[str, Tensor]
    variety: Tensor
    samples: int


def score_pictures(
    model: RasterModel,
    store: WindowStore,
    split: str,
    clips: int = 256,
    steps: int = 20,
    every: int = 5,
    samples: int = 10,
    max_agents: int = 24,
    seed: int = 0,
    on_progress: Callable[[float], None] = lambda share: None,
) -> PictureTable:
    """Score forecasts of clips drawn from `split`, the ego driving as it was recorded.

    `best z` is the best of `samples` futures of the prior, chosen at each moment by the truth, as in PPUU; `mean over
    z` is their mean picture. `constant velocity` is told where all vehicles are and how fast; no picture says that.
    """
    config = model.config
    future = max(steps, config.hold_steps)
    sampler = WindowSampler([store], split, WindowRequest(config.context, future, max_agents))
    generator, noise = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed + 1)
    parts = []
    for done in range(0, clips, BATCH):
        (window,) = sampler.draw(min(BATCH, clips - done), generator)
        parts.append(_scored(model, window, steps, every, samples, noise))
        on_progress(min(done + BATCH, clips) / clips)
    moments = torch.arange(every - 1, steps, every)

    def joined(name: str) -> dict[str, Tensor]:
        return {method: torch.cat([part[name][method] for part in parts]) for method in parts[0][name]}

    sharp = joined("sharpness")
    variety = joined("variety")["z"]
    return PictureTable(
        tuple(float(moment + 1) * config.dt_s for moment in moments),
        joined("error"),
        {method: values for method, values in sharp.items() if method != RECORDED},
        sharp[RECORDED],
        joined("overlap"),
        variety,
        samples,
    )


@torch.no_grad()
def futures(
    model: RasterModel, window: Window, steps: int, samples: int, noise: torch.Generator
) -> tuple[Seen, Clip, dict[str, Tensor]]:
    """What is seen, the recorded future, and predictions of the others by method, `(batch, step, row, column)`.

    Under `SEVERAL` are those of single latents, `(batch, sample, step, row, column)`.
    """
    config = model.config
    seen, recorded = window_clips(window, config.context, config.dt_s, config.picture)
    view = View.of(window.present, window.road)
    seconds = future_seconds(steps, config.dt_s, view.speed_mps)
    batch, target = len(seen.road), recorded.frames(0, steps)
    held = seen.others[:, -1:].expand_as(target.others)
    straight = draw_vehicles(_straight_on(window.present[:, 1:], seconds), view, seconds, config.picture)
    found = {HELD: held, STRAIGHT: straight, MEAN: model.unroll(seen, target.ego).others}
    if config.latent_dims:
        many = torch.arange(batch).repeat_interleave(samples)
        latents = model.draw_latents(len(many), steps, noise, seen.road)
        drawn = model.unroll(seen[many], target.ego[many], latents).others
        found[SEVERAL] = drawn.view(batch, samples, *drawn.shape[1:])
        posterior = model.posterior(seen, recorded.frames(0, config.hold_steps)).mean[:, None]
        if steps <= config.hold_steps:
            found[KNOWN] = model.unroll(seen, target.ego, posterior).others
    return seen, target, found


def _straight_on(scene: TrafficState, seconds: Tensor) -> TrafficState:
    """`scene (batch, agent)` going straight on at its speed, `(batch, time, agent)`."""
    later = scene.map(lambda values: values[:, None].expand(-1, len(seconds), *values.shape[1:]))
    return replace(later, position_m=later.position_m + later.velocity_mps * seconds[:, None, None])


def _scored(
    model: RasterModel, window: Window, steps: int, every: int, samples: int, noise: torch.Generator
) -> dict[str, dict[str, Tensor]]:
    _, target, found = futures(model, window, steps, samples, noise)
    moments = slice(every - 1, steps, every)
    truth = target.others[:, moments]
    found = {name: values[..., moments, :, :] for name, values in found.items()}
    error, sharp, overlap = {}, {RECORDED: edges(truth)}, {}
    variety = torch.zeros_like(sharp[RECORDED])
    drawn = found.pop(SEVERAL, None)
    if drawn is not None:
        errors = _squared(drawn, truth[:, None])  # (batch, sample, moment)
        best = errors.argmin(1, keepdim=True)
        overlaps = _overlap(drawn, truth[:, None])
        found |= {ONE: drawn[:, 0], AVERAGE: drawn.mean(1)}
        error[BEST] = errors.gather(1, best)[:, 0]
        sharp[BEST] = edges(drawn).gather(1, best)[:, 0]
        overlap[BEST] = overlaps.gather(1, best)[:, 0]
        variety = _squared(drawn[:, 0], drawn[:, 1])
    for name, picture in found.items():
        error[name], sharp[name], overlap[name] = _squared(picture, truth), edges(picture), _overlap(picture, truth)
    return {"error": error, "sharpness": sharp, "overlap": overlap, "variety": {"z": variety}}


def _squared(one: Tensor, two: Tensor) -> Tensor:
    return (one - two).square().sum((-1, -2))


def _overlap(predicted: Tensor, truth: Tensor) -> Tensor:
    taken, really = predicted > TAKEN, truth > TAKEN
    either = (taken | really).sum((-1, -2))
    share = (taken & really).sum((-1, -2)) / either.clamp_min(1)
    return torch.where(either > 0, share, torch.nan)
