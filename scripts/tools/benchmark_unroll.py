"""Times the policy's imagined rollouts, forward and backward: `... tools.benchmark_unroll --data DIR`.

The figure is agent-steps per second: rollouts x vehicles x steps over the seconds of one whole optimiser step (drawing
the starts, forward, backward, update), the median over repeats; the profile's top lines say where they go.
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
from torch.profiler import ProfilerActivity, profile

from drivecast.planner.imagination.imagined_rollouts import ImaginedRollouts
from drivecast.planner.policy.network import PolicyConfig
from drivecast.planner.policy.training import PolicyTrainer, PolicyTrainingConfig
from drivecast.worldmodel.forecaster.model import WorldModel, WorldModelConfig
from drivecast.worldmodel.recordings.store import WindowStore


def trainer(store: WindowStore, batch: int, folder: str) -> PolicyTrainer:
    """A trainer with an untrained world model that answers: the work does not depend on the weights."""
    torch.manual_seed(0)
    model = WorldModel(WorldModelConfig())
    torch.nn.init.normal_(model.decoder_out.weight, std=0.05)
    config = replace(PolicyTrainingConfig(), batch=batch)
    return PolicyTrainer(ImaginedRollouts(model, [store], config), PolicyConfig(), config, Path(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="recording store")
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 128, 256], help="rollouts of a batch")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of PyTorch")
    parser.add_argument("--repeats", type=int, default=7, help="timed optimiser steps")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    store = WindowStore.open(options.data)
    with tempfile.TemporaryDirectory() as folder:
        for batch in options.batches:
            timed = trainer(store, batch, folder)
            timed._step()
            seconds = []
            for _ in range(options.repeats):
                start = time.perf_counter()
                timed._step()
                seconds.append(time.perf_counter() - start)
            work = batch * PolicyTrainingConfig().starts.max_agents * timed.config.horizon_steps
            rates = sorted(work / second for second in seconds)
            sys.stdout.write(
                f"batch {batch}, {options.threads} threads: {statistics.median(rates):,.0f} agent-steps/s "
                f"(least {rates[0]:,.0f}, most {rates[-1]:,.0f})\n"
            )
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            timed._step()
    sys.stdout.write(profiled.key_averages().table(sort_by="self_cpu_time_total", row_limit=12) + "\n")


if __name__ == "__main__":
    main()
