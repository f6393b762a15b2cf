"""Tells recorded futures from corrupted ones by the model's free energy: `... tools.energy_table --model M --data D`.

The scales of errors are measured on the training split of the same store (the scored split where it has none).
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

from drivecast.scripts.driving.registry import resolve_model
from drivecast.worldmodel.energy.model_energy import ModelEnergy
from drivecast.worldmodel.evaluation.energy_table import EnergyTableConfig, energy_table, measured_scale
from drivecast.worldmodel.forecaster.loading import load_world_model
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.storage.files import atomic_file


def lines(result: dict[str, Any]) -> list[str]:
    """The table as text: AUROC of all vehicles and of moving ones, with their numbers."""
    shown = [f"{'AUROC: all / moving (vehicles)':32}" + "".join(f"{f'{each} s':>28}" for each in result["horizons_s"])]
    for name, row in result["corruptions"].items():
        parts = [row[key] for key in ("auroc", "moving_auroc", "vehicles", "moving_vehicles")]
        cells = [
            f"{_rate(every)} / {_rate(moving)} ({count}, {moved})"
            for every, moving, count, moved in zip(*parts, strict=True)
        ]
        shown.append(f"{name + (' *' if row['gross'] else ''):32}" + "".join(f"{cell:>28}" for cell in cells))
    return [*shown, "* gross; moving: at 5 m/s or more"]


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m drivecast.scripts.tools.energy_table", description=__doc__)
    parser.add_argument("--model", required=True, help="world model: file or folder")
    parser.add_argument("--data", type=Path, required=True, help="recording store")
    parser.add_argument("--split", default="val", help="recordings whose futures are scored: train, val, test or all")
    parser.add_argument("--output", type=Path, default=Path("energy-table.json"), help="JSON file to write")
    parser.add_argument("--vehicles", type=int, default=EnergyTableConfig.vehicles, help="of each kind, at most")
    parser.add_argument("--horizons", type=int, nargs="+", default=EnergyTableConfig.horizons_s, help="s")
    parser.add_argument("--free-others", action="store_true", help="others move under latents, not as recorded")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of vehicles")
    given = parser.parse_args(arguments)
    model, store = load_world_model(resolve_model(given.model)), WindowStore.open(given.data)
    scale = measured_scale(model, store, "train" if store.splits.get("train") else given.split)
    config = EnergyTableConfig(tuple(given.horizons), vehicles=given.vehicles, others_known=not given.free_others)
    began = time.monotonic()

    def on_progress(share: float) -> None:
        left = (time.monotonic() - began) * (1 / share - 1)
        sys.stderr.write(f"{share:.0%}, {left:.0f} s left\n")

    result = energy_table(ModelEnergy(model, scale), store, given.split, config, given.seed, on_progress)
    result |= {"model": str(given.model), "data": str(given.data), "along_scale_m": scale.along_m.tolist()}
    result["left_scale_m"] = scale.left_m.tolist()
    with atomic_file(given.output) as temporary:
        temporary.write_text(json.dumps(result, indent=1), encoding="utf-8")
    sys.stdout.write("\n".join(lines(result)) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
