"""An episode as an MP4 or a GIF."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import imageio_ffmpeg  # type: ignore[import-untyped]
import numpy as np
from PIL import Image

from drivecast.envs.replay.authorship import MARK
from drivecast.envs.replay.episode import Episode
from drivecast.envs.replay.frame import FrameArtist
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.storage.files import atomic_file

_BLOCK = 16  # video encoders want sides that are multiples of this
_LAST_FRAME_S = 1.5  # the end stands still for a while
GIF_COLOURS = 96


@dataclass(frozen=True)
class FilmConfig:
    """How a film looks.

    Args:
        width_px: Width in pixels, a multiple of 16; the height is 9/16 of it. 0: 1280 for .mp4, 720 for .gif.
        frames_per_second: Pictures per second. 0: 20 for .mp4, 10 for .gif.
        speed: How many seconds of driving a second of film shows.
        theme: `light` or `dark`.
    """

    width_px: int = 0
    frames_per_second: float = 0.0
    speed: float = 1.0
    theme: Literal["light", "dark"] = "light"

    def __post_init__(self) -> None:
        if self.width_px and (self.width_px % _BLOCK or not 320 <= self.width_px <= 3840):
            raise InputError(f"film.width_px: expected a multiple of 16 from 320 to 3840, or 0; got {self.width_px}")
        if not 0 <= self.frames_per_second <= 60:
            raise InputError(f"film.frames_per_second: expected at most 60, or 0; got {self.frames_per_second}")
        if not 0.05 <= self.speed <= 20:
            raise InputError(f"film.speed: expected 0.05 to 20; got {self.speed}")

    def sized(self, suffix: str) -> tuple[int, int, float]:
        """Width and height in pixels and pictures per second, for `.mp4` or `.gif`."""
        width = self.width_px or (720 if suffix == ".gif" else 1280)
        rate = self.frames_per_second or (10.0 if suffix == ".gif" else 20.0)
        return width, max(_BLOCK, round(width * 9 / 16 / _BLOCK) * _BLOCK), rate

    def times(self, episode: Episode, suffix: str) -> np.ndarray:
        """The fractional step that each picture shows; the last one stands for a while."""
        rate = self.sized(suffix)[2]
        moving = np.arange(0, episode.duration_s, self.speed / rate) / episode.metadata.dt_s
        return np.concatenate([moving, np.full(round(_LAST_FRAME_S * rate), float(episode.steps))])


def write_film(episode: Episode, path: Path, config: FilmConfig, on_frame: Callable[[], None] = lambda: None) -> None:
    """Write the replay of `episode` as `.mp4` or `.gif`; calls `on_frame` after each picture."""
    width, height, rate = config.sized(path.suffix)
    artist = FrameArtist(episode, width, height, config.theme)
    with atomic_file(path) as temporary:
        pictures = _pictures(artist, config.times(episode, path.suffix), on_frame)
        if path.suffix == ".gif":
            _write_gif(pictures, temporary, rate)
        else:
            _write_mp4(pictures, temporary, rate)


def _pictures(artist: FrameArtist, times: np.ndarray, on_frame: Callable[[], None]) -> Iterator[Image.Image]:
    last: tuple[float, Image.Image] | None = None
    for t in times:
        if last is None or last[0] != t:
            last = (float(t), artist.draw(float(t)))
        yield last[1]
        on_frame()


def _write_mp4(pictures: Iterator[Image.Image], path: Path, rate: float) -> None:
    # yuv420p and the index at the start: what browsers and slides play
    options = ["-crf", "22", "-preset", "veryfast", "-movflags", "+faststart", "-f", "mp4", "-threads", "1"]
    options += ["-metadata", f"comment={MARK}"]
    first = next(pictures)
    film = imageio_ffmpeg.write_frames(
        str(path), first.size, fps=rate, codec="libx264", quality=None, macro_block_size=_BLOCK, output_params=options
    )
    film.send(None)  # starts the encoder
    try:
        film.send(first.tobytes())
        for picture in pictures:
            film.send(picture.tobytes())
    finally:
        film.close()


def _write_gif(pictures: Iterator[Image.Image], path: Path, rate: float) -> None:
    first = next(pictures)
    palette = first.quantize(GIF_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)

    def reduced(picture: Image.Image) -> Image.Image:
        return picture.quantize(palette=palette, dither=Image.Dither.NONE)

    rest = (reduced(picture) for picture in pictures)
    palette.save(
        path,
        "GIF",
        save_all=True,
        append_images=rest,
        duration=round(1000 / rate),
        loop=0,
        optimize=False,
        comment=MARK,
    )
