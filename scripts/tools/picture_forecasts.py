"""The lecture's figure from our data: `... tools.picture_forecasts --model M --data D --output DIR`.

Leaves DIR/pictures.json and the table of it, DIR/futures.png and DIR/futures.gif: what was recorded, what a raster
predictor foresees at z = 0, and what five latents foresee.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from drivecast.scripts.driving.registry import resolve_model
from drivecast.worldmodel.evaluation.picture_figure import Strip, draw_strip, strip_of, telling_windows
from drivecast.worldmodel.evaluation.picture_forecasts import METHODS, PictureTable, score_pictures
from drivecast.worldmodel.raster.loading import load_raster_model
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.storage.files import atomic_file

LAST_STANDS_S = 1.0
GIF_COLOURS = 64


def summary(table: PictureTable) -> dict[str, Any]:
    """Means over clips with half the width of their 95 % interval, by method and moment."""

    def told(values: Tensor) -> list[list[float]]:
        return [[float(each.nanmean()), 1.96 * float(_spread(each))] for each in values.unbind(1)]

    recorded = table.recorded_sharpness.sum(0)
    return {
        "seconds": list(table.seconds),
        "clips": len(table.recorded_sharpness),
        "samples": table.samples,
        "error": {method: told(values) for method, values in table.error.items()},
        "overlap": {method: told(values) for method, values in table.overlap.items()},
        "sharpness": {method: (values.sum(0) / recorded).tolist() for method, values in table.sharpness.items()},
        "variety": told(table.variety),
    }


def _spread(values: Tensor) -> Tensor:
    """Standard error of the mean of those that are not NaN."""
    known = values[~values.isnan()]
    return known.std() / max(len(known), 1) ** 0.5


def lines(result: dict[str, Any]) -> list[str]:
    """The table as text, at the last moment."""
    width = max(map(len, METHODS)) + 2
    shown = [
        f"after {result['seconds'][-1]:g} s, {result['clips']} clips, {result['samples']} latents each",
        f"{'':{width}}{'squared error':>18}{'sharpness':>12}{'overlap':>16}",
    ]
    for method in METHODS:
        if method in result["error"]:
            (error, half), (overlap, wide) = result["error"][method][-1], result["overlap"][method][-1]
            sharp = result["sharpness"][method][-1]
            shown.append(f"{method:{width}}{f'{error:.2f} ± {half:.2f}':>18}{sharp:>12.2f}{overlap:>9.3f} ± {wide:.3f}")
    shown.append(f"two futures of different z differ by {result['variety'][-1][0]:.2f}")
    return shown


def write_film(strips: Sequence[Strip], path: Path, dt_s: float) -> None:
    """All scenes, one under the other, as a GIF that runs in real time."""
    frames = []
    for step in range(strips[0].ego.shape[0]):
        rows = [draw_strip(strip, [step], dt_s, (3, 3)) for strip in strips]
        sheet = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), "white")
        for place, row in enumerate(rows):
            sheet.paste(row, (0, place * row.height))
        frames.append(sheet.quantize(GIF_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE))
    standing = [frames[-1]] * round(LAST_STANDS_S / dt_s)
    with atomic_file(path) as temporary:
        more = [*frames[1:], *standing]
        frames[0].save(temporary, "GIF", save_all=True, append_images=more, duration=round(1000 * dt_s), loop=0)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m drivecast.scripts.tools.picture_forecasts", description=__doc__)
    parser.add_argument("--model", required=True, help="raster predictor: file or folder")
    parser.add_argument("--data", type=Path, required=True, help="recording store")
    parser.add_argument("--split", default="val", help="recordings that are foreseen: train, val or test")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--clips", type=int, default=256, help="that are scored")
    parser.add_argument("--steps", type=int, default=20, help="that are foreseen, of 0.1 s")
    parser.add_argument("--samples", type=int, default=10, help="latents of a clip")
    parser.add_argument("--scenes", type=int, default=2, help="of the film")
    parser.add_argument("--seed", type=int, default=0, help="of clips and latents")
    given = parser.parse_args(arguments)
    model, store = load_raster_model(resolve_model(given.model)), WindowStore.open(given.data)
    given.output.mkdir(parents=True, exist_ok=True)
    dt_s, began = model.config.dt_s, time.monotonic()

    def on_progress(share: float) -> None:
        left = (time.monotonic() - began) * (1 / share - 1)
        sys.stderr.write(f"{share:.0%}, {left:.0f} s left\n")

    every = max(given.steps // 4, 1)
    table = score_pictures(
        model,
        store,
        given.split,
        given.clips,
        given.steps,
        every,
        given.samples,
        seed=given.seed,
        on_progress=on_progress,
    )
    result = summary(table) | {"model": str(given.model), "data": str(given.data), "split": given.split}
    with atomic_file(given.output / "pictures.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1), encoding="utf-8")
    windows = telling_windows(model, store, given.split, given.steps, given.scenes, seed=given.seed)
    strips = [strip_of(model, window, given.steps, seed=given.seed) for window in windows]
    with atomic_file(given.output / "futures.png") as temporary:
        draw_strip(strips[0], [given.steps // 2, given.steps], dt_s).save(temporary, "PNG")
    write_film(strips, given.output / "futures.gif", dt_s)
    sys.stdout.write("\n".join(lines(result)) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
