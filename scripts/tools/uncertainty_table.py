"""Compares measures of what a world model does not know: `... tools.uncertainty_table --model M ... --data D`.

Several models are an ensemble; all measures but the ensemble's look at the first.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from drivecast.scripts.driving.registry import resolve_model
from drivecast.worldmodel.energy.model_energy import ModelEnergy
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.evaluation.energy_table import measured_scale
from drivecast.worldmodel.evaluation.uncertainty_table import UncertaintyTableConfig, uncertainty_table
from drivecast.worldmodel.forecaster.loading import load_world_model
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.storage.files import atomic_file


def lines(table: dict[str, dict[str, float]]) -> list[str]:
    """The table as Markdown."""
    columns = list(next(iter(table.values())))
    rows = [
        f"| {name} | " + " | ".join(f"{row[column]:.3f}" for column in columns) + " |" for name, row in table.items()
    ]
    return ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|", *rows]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m drivecast.scripts.tools.uncertainty_table", description=__doc__)
    parser.add_argument("--model", required=True, nargs="+", help="world models: files, folders or pretrained:NAME")
    parser.add_argument("--data", type=Path, required=True, help="recording store")
    parser.add_argument("--split", default="val", help="recordings that count as known: train, val, test or all")
    parser.add_argument("--other", type=Path, help="recording store of another road")
    parser.add_argument("--scenes", type=int, default=UncertaintyTableConfig.scenes, help="of each problem, at most")
    parser.add_argument("--output", type=Path, default=Path("uncertainty-table.json"), help="JSON file to write")
    parser.add_argument("--seed", type=int, default=0, help="of scenes, masks and latents")
    given = parser.parse_args(arguments)
    began = time.monotonic()

    def on_progress(share: float) -> None:
        left = (time.monotonic() - began) * (1 / share - 1)
        sys.stderr.write(f"{share:.0%}, {left:.0f} s left\n")

    try:
        store = WindowStore.open(given.data)
        other = WindowStore.open(given.other) if given.other else None
        models = [load_world_model(resolve_model(name)) for name in given.model]
        scaled_on = "train" if store.splits.get("train") else given.split
        energies = [ModelEnergy(model, measured_scale(model, store, scaled_on)) for model in models]
        config = UncertaintyTableConfig(scenes=given.scenes)
        table = uncertainty_table(energies, store, given.split, other, config, given.seed, on_progress)
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    with atomic_file(given.output) as temporary:
        temporary.write_text(json.dumps({**vars(given), "table": table}, indent=1, default=str), encoding="utf-8")
    sys.stdout.write("\n".join(lines(table)) + "\n")
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
