"""Times the training of world models: `... tools.benchmark_training --data DIR`.

The figure is agent-steps per second of processor time: rollouts (under the posterior, without latent, and under the
prior) x vehicles x steps over the seconds of one whole optimiser step (drawing, forward, backward, update), the median
over repeats. Processor time, because cores are shared; the wall time stands beside it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from drivecast.worldmodel.forecaster.model import WorldModelConfig
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.training.objective import ObjectiveConfig
from drivecast.worldmodel.training.trainer import WorldModelTrainer, WorldModelTrainingConfig

CALIBRATED = ObjectiveConfig(likeliest_weight=0.5, energy_score_weight=1.0, overlap_weight=2.0)
COARSE = WorldModelConfig(latent_process="autoregressive", decide_steps=2)
VARIANTS = {  # label: architecture, objective
    "a decision a step, posterior alone": (WorldModelConfig(), ObjectiveConfig()),
    "a decision in two steps, posterior alone": (COARSE, ObjectiveConfig()),
    "a decision in two steps, with futures of the prior": (COARSE, CALIBRATED),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="recording store")
    parser.add_argument("--hidden", type=int, default=64, help="width of the network")
    parser.add_argument("--horizon", type=int, default=50, help="steps of a rollout")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch")
    parser.add_argument("--repeats", type=int, default=7, help="timed optimiser steps")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    store = WindowStore.open(options.data)
    first = 0.0
    for label, (model, objective) in VARIANTS.items():
        config = WorldModelTrainingConfig(
            horizon_steps=options.horizon, first_horizon_steps=options.horizon, objective=objective
        )
        with tempfile.TemporaryDirectory() as folder:
            timed = WorldModelTrainer(replace(model, hidden=options.hidden), config, [store], Path(folder))
            timed._step()
            processor, wall = [], []
            for _ in range(options.repeats):
                begun = time.process_time(), time.perf_counter()
                timed._step()
                processor.append(time.process_time() - begun[0])
                wall.append(time.perf_counter() - begun[1])
        rollouts = config.batch * (2 + objective.samples if objective.scores_samples else 1)
        rate = rollouts * config.max_agents * options.horizon / statistics.median(processor)
        first = first or rate
        sys.stdout.write(
            f"{label}: {rate:,.0f} agent-steps/s of processor time ({rate / first:.1f}x), "
            f"{statistics.median(wall):.2f} s an optimiser step\n"
        )


if __name__ == "__main__":
    main()
