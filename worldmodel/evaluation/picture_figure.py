"""The lecture's figure: what was recorded, what is foreseen at z = 0, and what five latents foresee."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from drivecast.worldmodel.evaluation.picture_forecasts import MEAN, SEVERAL, futures
from drivecast.worldmodel.raster.clips import Clip
from drivecast.worldmodel.raster.network import RasterModel
from drivecast.worldmodel.recordings.sampling import WindowRequest, WindowSampler
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.recordings.window import Window

OTHERS, EGO, ASPHALT, LINE, VERGE = (46, 168, 92), (44, 112, 214), (34, 36, 40), (214, 214, 206), (96, 78, 66)
PAPER, INK = (255, 255, 255), (40, 40, 40)
MARGIN_PX, HEAD_PX, LINE_PX = 10, 46, 18


@dataclass(frozen=True)
class Strip:
    """One scene side by side: the present, what was recorded, z = 0, and futures of latents.

    Attributes:
        titles: Of the panels after the present.
        others: Of the panels, `(panel, step, row, column)`, the first step the present.
        ego: `(step, row, column)`.
        road: `(step, row, column)`.
    """

    titles: tuple[str, ...]
    others: Tensor
    ego: Tensor
    road: Tensor


def telling_windows(
    model: RasterModel, store: WindowStore, split: str, steps: int, count: int, max_agents: int = 24, seed: int = 0
) -> list[Window]:
    """Of 200 moments, the `count` in whose last picture most has changed, no two of them of the same 3 s."""
    future = max(steps, model.config.hold_steps)
    sampler = WindowSampler([store], split, WindowRequest(model.config.context, future, max_agents))
    (drawn,) = sampler.draw(200, torch.Generator().manual_seed(seed))
    off = drawn.future[:, steps - 1].position_m - drawn.present.position_m
    off = off - drawn.present.velocity_mps * steps * model.config.dt_s
    near = (drawn.present.position_m - drawn.present.position_m[:, :1]).norm(dim=-1) < 40.0
    seen = drawn.present.valid & drawn.future[:, steps - 1].valid & near
    surprise = (off.norm(dim=-1) * seen)[:, 1:].sum(1)
    chosen: list[int] = []
    for index in surprise.argsort(descending=True).tolist():
        if all(abs(int(drawn.frame[index]) - int(drawn.frame[other])) > 30 for other in chosen):
            chosen.append(index)
        if len(chosen) == count:
            break
    return [_one(drawn, index) for index in chosen]


def strip_of(model: RasterModel, window: Window, steps: int, samples: int = 5, seed: int = 0) -> Strip:
    """What is drawn of one window, the ego driving as it was recorded."""
    noise = torch.Generator(next(model.parameters()).device).manual_seed(seed)
    seen, recorded, found = futures(model, window, steps, samples, noise)
    panels = [recorded.others[0], found[MEAN][0], *found.get(SEVERAL, found[MEAN][:, :0])[0]]
    now = seen.others[0, -1:]
    titles = ("recorded", "z = 0", *(f"z {number + 1}" for number in range(len(panels) - 2)))
    return Strip(
        titles,
        torch.stack([torch.cat([now, panel]) for panel in panels]),
        torch.cat([seen.ego, recorded.ego[0]]),
        torch.cat([seen.road, recorded.road[0]]),
    )


def paint(others: Tensor, ego: Tensor, road: Tensor, scale: tuple[int, int]) -> Image.Image:
    """One picture `(row, column)`, ahead up, each pixel `scale` (high, wide) pixels large."""
    clip = Clip(others, ego, road).map(lambda values: values.clamp(0.0, 1.0).flip(0))
    line = (clip.road / 0.3).clamp_max(1.0)[..., None].numpy()
    beside = ((clip.road - 0.5) / 0.5).clamp_min(0.0)[..., None].numpy()
    picture = np.asarray(ASPHALT) * (1 - line) + np.asarray(LINE) * line * 0.6 + np.asarray(ASPHALT) * line * 0.4
    picture = picture * (1 - beside) + np.asarray(VERGE) * beside
    for colour, cover in ((OTHERS, clip.others), (EGO, clip.ego)):
        share = cover[..., None].numpy()
        picture = picture * (1 - share) + np.asarray(colour) * share
    enlarged = picture.round().astype(np.uint8).repeat(scale[0], 0).repeat(scale[1], 1)
    return Image.fromarray(enlarged)


def draw_strip(strip: Strip, steps: Sequence[int], dt_s: float, scale: tuple[int, int] = (4, 4)) -> Image.Image:
    """All panels at each of `steps` (0: the present), one row of panels for each."""
    _, _, rows, columns = strip.others.shape
    wide, high = columns * scale[1], rows * scale[0]
    count = len(strip.titles)
    size = (MARGIN_PX + count * (wide + MARGIN_PX), len(steps) * (high + HEAD_PX) + MARGIN_PX)
    sheet = Image.new("RGB", size, PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for line, step in enumerate(steps):
        top = line * (high + HEAD_PX) + HEAD_PX
        pen.text((MARGIN_PX, top - HEAD_PX + LINE_PX // 3), f"after {step * dt_s:.1f} s", INK, font)
        for place, title in enumerate(strip.titles):
            left = MARGIN_PX + place * (wide + MARGIN_PX)
            pen.text((left, top - HEAD_PX + LINE_PX // 3 + LINE_PX), title, INK, font)
            sheet.paste(paint(strip.others[place, step], strip.ego[step], strip.road[step], scale), (left, top))
    return sheet


def _one(window: Window, index: int) -> Window:
    chosen = slice(index, index + 1)
    return Window(
        window.history[chosen],
        window.future[chosen],
        window.road[chosen],
        window.row[chosen],
        window.frame[chosen],
        window.recording[chosen],
    )
