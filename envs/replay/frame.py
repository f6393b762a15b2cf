"""One picture of a film: title, traffic, instruments and the cost terms, with Pillow."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from drivecast.envs.replay import caption
from drivecast.envs.replay.drawing import TrafficDrawing
from drivecast.envs.replay.episode import Episode
from drivecast.envs.replay.lens import TravellingLens
from drivecast.envs.replay.palette import OUTCOME_COLOURS, THEMES, term_colour

OVERSAMPLING = 2  # drawn larger and reduced, for smooth edges
VISIBLE_M = 140.0


class FrameArtist:
    """Draws pictures of one episode, `width` by `height` pixels."""

    def __init__(self, episode: Episode, width: int, height: int, theme: str = "light") -> None:
        self.episode, self.size = episode, (width, height)
        self.colours = THEMES[theme]
        self.unit = width * OVERSAMPLING / 1280  # one pixel of a picture 1280 wide
        self.width, self.height = width * OVERSAMPLING, height * OVERSAMPLING
        self.top, self.bottom = round(48 * self.unit), round(self.height - 320 * self.unit)
        self.traffic = TrafficDrawing(episode, self.colours)
        self.readings = self.traffic.readings
        strip = max(1, self.bottom - self.top)
        self.lens = TravellingLens(episode, self.top, self.width, strip, VISIBLE_M)
        right, low = self.width - 250 * self.unit, self.height - 32 * self.unit
        self.chart = (70 * self.unit, self.bottom + 116 * self.unit, right, low)  # left, top, right, bottom
        self.terms = {name: values.detach().cpu().numpy().clip(0) for name, values in episode.costs.items()}
        if not self.terms:
            self.terms = {"ego's speed": self.traffic.speed_mps[1:, 0]}
        self.still = self._still()

    def draw(self, t: float) -> Image.Image:
        """The picture at fractional step `t`."""
        image = Image.new("RGB", (self.width, self.height), self.colours["verge"])
        draw = ImageDraw.Draw(image, "RGBA")
        self.traffic.draw(draw, self.lens.at(t), t)
        image.paste(self.still.crop((0, 0, self.width, self.top)), (0, 0))
        image.paste(self.still.crop((0, self.bottom, self.width, self.height)), (0, self.bottom))
        self._instruments(draw, t)
        self._cursor(draw, t)
        if t >= self.episode.steps:
            self._banner(draw)
        return image.reduce(OVERSAMPLING)

    def _text(
        self, draw: ImageDraw.ImageDraw, x: float, y: float, text: str, size: float, colour: str, anchor: str
    ) -> None:
        bold = size > 18
        draw.text((x, y), text, self.colours[colour], font_of(round(size * self.unit), bold), anchor)

    def _still(self) -> Image.Image:
        """What does not change: title, axes, cost terms."""
        image = Image.new("RGB", (self.width, self.height), self.colours["page"])
        draw = ImageDraw.Draw(image, "RGBA")
        unit = self.unit
        self._text(draw, 20 * unit, self.top / 2, caption.title(self.episode), 19, "text", "lm")
        left, top, right, bottom = self.chart
        draw.rectangle((0, self.bottom + 94 * unit, self.width, self.height), self.colours["panel"])
        high = max(float(sum(self.terms.values(), np.zeros(self.episode.steps)).max(initial=0.0)), 1e-3) * 1.05
        for share in (0.0, 0.5, 1.0):
            y = bottom - share * (bottom - top)
            draw.line((left, y, right, y), self.colours["line"], max(1, round(unit)))
            self._text(draw, left - 8 * unit, y, f"{share * high:.2g}", 13, "muted", "rm")
        for share in np.linspace(0, 1, 6):
            x = left + share * (right - left)
            self._text(draw, x, bottom + 14 * unit, f"{share * self.episode.duration_s:.1f} s", 13, "muted", "mm")
        base = np.zeros(self.episode.steps)
        for place, (name, values) in enumerate(self.terms.items()):
            above = base + values
            own = term_colour(list(self.terms), place) if self.episode.costs else "ego"
            colour = self.colours[own]
            self._area(image, base / high, above / high, colour)
            row = top + (8 + 22 * place) * unit
            mark = right + 24 * unit
            draw.rectangle((mark, row - 6 * unit, mark + 12 * unit, row + 6 * unit), colour)
            self._text(draw, mark + 22 * unit, row, name.replace("_", " "), 15, "text", "lm")
            base = above
        return image

    def _area(self, image: Image.Image, low: np.ndarray, high: np.ndarray, colour: str) -> None:
        """Fill the chart between two lines of heights from 0 to 1; drawn larger still, as its slopes are shallow."""
        if len(low) < 2:
            return
        left, top, right, bottom = (round(side) for side in self.chart)
        size, finer = (right - left, bottom - top), 4
        across = np.arange(1, len(low) + 1) / len(low) * size[0] * finer
        x = np.concatenate([across, across[::-1]])
        y = (1 - np.concatenate([high, low[::-1]])) * size[1] * finer
        mask = Image.new("L", (size[0] * finer, size[1] * finer))
        ImageDraw.Draw(mask).polygon(list(zip(x.tolist(), y.tolist(), strict=True)), 255)
        image.paste(colour, (left, top), mask.reduce(finer))

    def _instruments(self, draw: ImageDraw.ImageDraw, t: float) -> None:
        step, unit = int(t), self.unit
        controls = self.episode.controls.acceleration_mps2
        acceleration = float(controls[min(step, len(controls) - 1)]) if len(controls) else float("nan")
        shown = (
            ("Time", step * self.episode.metadata.dt_s, "s"),
            ("Speed", float(self.traffic.speed_mps[step, 0]), "m/s"),
            ("Acceleration", acceleration, "m/s²"),
            ("Gap ahead", float(self.readings.gap_m[step]), "m"),
            ("Headway", float(self.readings.headway_s[step]), "s"),
            ("Time to collision", float(self.readings.time_to_collision_s[step]), "s"),
        )
        for place, (label, value, label_unit) in enumerate(shown):
            x, y = (20 + place * 210) * unit, self.bottom + 26 * unit
            self._text(draw, x, y, label, 14, "muted", "lm")
            written = f"{round(value, 1) + 0.0:.1f} {label_unit}".replace("-", "\u2212")  # + 0.0: no minus zero
            text = written if np.isfinite(value) else "\u2013"
            self._text(draw, x, y + 34 * unit, text, 26, "text", "lm")

    def _cursor(self, draw: ImageDraw.ImageDraw, t: float) -> None:
        left, top, right, bottom = self.chart
        x = left + t / max(1, self.episode.steps) * (right - left)
        draw.line((x, top - 6 * self.unit, x, bottom), self.colours["text"], max(1, round(2 * self.unit)))

    def _banner(self, draw: ImageDraw.ImageDraw) -> None:
        text, unit = caption.verdict(self.episode), self.unit
        font = font_of(round(22 * unit), True)
        half = draw.textlength(text, font) / 2 + 22 * unit
        middle, y = self.width / 2, self.top + 30 * unit
        area = (middle - half, y - 21 * unit, middle + half, y + 21 * unit)
        outcome = self.colours[OUTCOME_COLOURS[self.episode.metadata.outcome]]
        draw.rounded_rectangle(area, 8 * unit, self.colours["panel"], outcome, max(1, round(3 * unit)))
        draw.text((middle, y), text, self.colours["text"], font, "mm")


@lru_cache(maxsize=32)
def font_of(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, max(size, 6))
