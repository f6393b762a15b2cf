"""Imagined traffic beside the recorded: `... tools.imagined_statistics --model PATH --data DIR`.

20 s of traffic from recorded scenes on, driven through by IDM, all but the ego counted. Of each measure it prints the
mean of both, the Wasserstein distance between them (of the distributions over vehicles and moments, in the measure's
unit), and the likelihood of what was recorded: the geometric mean of its probability in a histogram of what was
imagined (after Montali et al. 2023, "The Waymo Open Sim Agents Challenge", section 4). Beside both, the same of one
half of the recordings and the other: as near as traffic of one road comes by itself.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from scipy.stats import wasserstein_distance

from drivecast.envs.drivers import IDMConfig, IDMDriver
from drivecast.envs.evaluation.closed_loop import ClosedLoopConfig, run_episodes
from drivecast.envs.imagined.traffic import ImaginedTraffic, ImaginedTrafficConfig
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.evaluation.traffic_statistics import TrafficStatistics, traffic_statistics
from drivecast.worldmodel.forecaster.loading import load_world_model
from drivecast.worldmodel.recordings.scenes import open_scenes
from drivecast.worldmodel.recordings.window import RecordedScene

BINS, AT_LEAST = 20, 0.1  # of a histogram; counts of an empty bin
HALVES = slice(None, None, 2), slice(1, None, 2)


def recorded(scenes: Sequence[RecordedScene]) -> list[TrafficStatistics]:
    """Of each recording."""
    return [traffic_statistics(scene.states, scene.road, scene.dt_s) for scene in scenes]


def imagined(traffic: ImaginedTraffic, episodes: int) -> TrafficStatistics:
    """Of all but the ego, until the episode ends."""
    loop = ClosedLoopConfig(keep="all", batch=32)
    result = run_episodes(traffic, IDMDriver(IDMConfig(dt_s=traffic.dt_s)), range(episodes), loop)
    every = [traffic_statistics(episode.states, episode.road, traffic.dt_s, skip=[0]) for episode in result.episodes]
    return TrafficStatistics.cat(every)


def table(of_model: TrafficStatistics, parts: Sequence[TrafficStatistics]) -> list[str]:
    """One line per measure."""
    whole = TrafficStatistics.cat(parts)
    lines = [
        f"{'':22}{'imagined':>10}{'recorded':>10}{'distance':>10}{'of halves':>11}{'likelihood':>12}{'of halves':>11}"
    ]
    for name in (field.name for field in fields(TrafficStatistics)):
        one, other = getattr(of_model, name), getattr(whole, name)
        halves = likely = "-"
        if len(parts) > 1:
            first, second = (getattr(TrafficStatistics.cat(parts[half]), name) for half in HALVES)
            halves, likely = f"{wasserstein_distance(first, second):.3f}", f"{likelihood(first, second):.3f}"
        distance = wasserstein_distance(one, other)
        lines.append(
            f"{name:22}{one.mean():10.3f}{other.mean():10.3f}{distance:10.3f}{halves:>11}"
            f"{likelihood(one, other):12.3f}{likely:>11}"
        )
    return lines


def likelihood(model: np.ndarray, truth: np.ndarray) -> float:
    """Geometric mean of the probabilities of `truth (n,)` in a histogram of `model (m,)`.

    Its bins divide what lies between the first and the last hundredth of the truth; the outermost are open.
    """
    low, high = np.quantile(truth, [0.01, 0.99])
    edges = np.linspace(low, max(high, low + 1e-6), BINS + 1)[1:-1]
    counts = np.bincount(np.searchsorted(edges, model), minlength=BINS) + AT_LEAST
    return float(np.exp(np.log(counts / counts.sum())[np.searchsorted(edges, truth)].mean()))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m drivecast.scripts.tools.imagined_statistics",
        description="Imagined traffic beside the recorded.",
    )
    parser.add_argument("--model", type=Path, required=True, help="world model")
    parser.add_argument("--data", type=Path, required=True, help="recording store")
    parser.add_argument("--split", default="test", help="train, val, test or all")
    parser.add_argument("--episodes", type=int, default=32, help="episodes to imagine")
    parser.add_argument("--duration-s", type=float, default=20.0, help="length of each, s")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        scenes = open_scenes(options.data, options.split)
        # nobody but the ego is followed beyond the recorded section, so that both are of the same stretch of road
        config = ImaginedTrafficConfig(duration_s=options.duration_s, near_m=0.0)
        traffic = ImaginedTraffic(scenes, load_world_model(options.model), config)
        lines = table(imagined(traffic, options.episodes), recorded(list(scenes.values())))
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
