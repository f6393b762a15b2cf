"""Compares forecasters on the same windows: `... tools.compare_forecasters --data DIR --model NAME=PATH ...`.

Beside the world models stand constant velocity and fitted IDM, each with normal noise fitted to its errors on the
train split; a model named `noise:NAME=PATH` is used for its single guess, with noise fitted the same way, and one named
`alone:NAME=PATH` is shown each vehicle by itself. Prints CRPS,
energy score and calibration, and the differences to the first model, paired over scenes: 95 % intervals by a bootstrap
of blocks of 2 s of a recording, since scenes that follow each other are alike. Writes OUTPUT, a JSON of all results.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from drivecast.envs.behaviour.fitted_drivers import FittedDrivers
from drivecast.envs.behaviour.idm_forecast import idm_forecast
from drivecast.worldmodel.evaluation.baselines import Alone, FittedNoise, constant_velocity_guess
from drivecast.worldmodel.evaluation.forecasts import ForecastEvaluationConfig, ForecastTally, tally_forecasts
from drivecast.worldmodel.forecaster.loading import load_world_model
from drivecast.worldmodel.forecaster.sampler import ModelSampler, Sampler
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.storage.files import atomic_file

BLOCK_S = 2.0
SHOWN_S = (1, 2, 3, 5, 8)
RESAMPLED = 2_000


def paired_difference(
    one: ForecastTally, other: ForecastTally, name: str, horizon: int, blocks: np.ndarray
) -> tuple[float, float, float]:
    """Mean difference `one - other` of a score per vehicle (or scene), and its 95 % interval, over blocks of scenes."""
    values = [tally.sums[name].by_scene()[:, horizon].numpy() for tally in (one, other)]
    weight = (one.scenes if name == "energy_score" else one.windows).by_scene()[:, horizon].double().numpy()
    names, index = np.unique(blocks, return_inverse=True)
    difference = np.bincount(index, values[0] - values[1], len(names))
    weights = np.bincount(index, weight, len(names))
    drawn = np.random.default_rng(0).integers(0, len(names), (RESAMPLED, len(names)))
    total = weights[drawn].sum(1)
    means = difference[drawn].sum(1)[total > 0] / total[total > 0]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(difference.sum() / weights.sum()), float(low), float(high)


def samplers(models: list[str], store: WindowStore) -> dict[str, Sampler]:
    """By name, those named on the command line first."""
    made: dict[str, Sampler] = {}
    for text in models:
        name, _, path = text.partition("=")
        model = ModelSampler(load_world_model(path))
        kind, _, plain = name.rpartition(":")
        if kind == "noise":
            made[plain] = FittedNoise.fitted(model.likeliest, store)
        else:
            made[plain] = Alone(model) if kind == "alone" else model
    made["constant velocity + noise"] = FittedNoise.fitted(constant_velocity_guess(store.dt_s), store)
    made["IDM + noise"] = FittedNoise.fitted(partial(idm_forecast, FittedDrivers.named("fitted-us101")), store)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="recording store")
    parser.add_argument("--split", default="test", help="which recordings are forecast")
    parser.add_argument("--model", action="append", default=[], help="[noise:|alone:]NAME=PATH, as often as needed")
    parser.add_argument("--stride", type=int, default=3, help="steps between scenes")
    parser.add_argument("--samples", type=int, default=20, help="futures of a scene")
    parser.add_argument("--output", type=Path, required=True, help="JSON file of the results")
    options = parser.parse_args()
    store = WindowStore.open(options.data)
    config = ForecastEvaluationConfig(samples=options.samples, stride=options.stride)
    results: dict[str, Any] = {}
    first: ForecastTally | None = None
    for name, sampler in samplers(options.model, store).items():
        tally = tally_forecasts(sampler, store, options.split, config)
        first = first or tally
        blocks = np.array(tally.frames) // round(BLOCK_S / store.dt_s)
        result = tally.result(options.split, config)
        numbers = {horizon: result["horizons_s"].index(horizon) for horizon in SHOWN_S}
        result["difference"] = {
            score: {
                str(horizon): paired_difference(tally, first, score, number, blocks)
                for horizon, number in numbers.items()
                if result["windows"][number]
            }
            for score in ("crps", "energy_score")
        }
        results[name] = result
        sys.stdout.write(f"{name}\n")
        for horizon, number in numbers.items():
            if not result["windows"][number]:
                continue
            differences = (
                f"{score} {result[field][number]:.3f} m ({difference:+.3f} [{low:+.3f}, {high:+.3f}])"
                for score, field in (("crps", "crps_m"), ("energy_score", "energy_score_m"))
                for difference, low, high in [result["difference"][score][str(horizon)]]
            )
            inside = ", ".join(f"{region['along'][number]:.0%}/{region['ideal']:.0%}" for region in result["regions"])
            sys.stdout.write(f"  {horizon} s: {'; '.join(differences)}; within {inside}\n")
    with atomic_file(options.output) as temporary:
        temporary.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
