"""`drivecast measure-simulator`: the batched simulator against highway-env itself, timed in turns."""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drivecast.scripts.tracking.run import Run
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.storage.files import atomic_file


@dataclass(frozen=True)
class MeasureSimulatorConfig:
    """Time the batched simulator and highway-env in turns on the same work: random actions, episodes that restart.

    Leaves OUTPUT/speed.json: decisions of an ego per second of processor time on one core, with highway-env's own
    settings, resets and observations included on both sides; the medians over turns. Its list `scaling` has the batched
    simulator's speed by the number of vehicles and episodes.

    Args:
        output: Folder of speed.json.
        environment: highway-v0, highway-fast-v0, merge-v0, merge-v1, ...
        episodes: Episodes side by side.
        turns: How often each simulator has its turn.
        turn_s: Least length of a turn, s.
        float32: Numbers of the batched simulator are float32 instead of float64.
        scaling_vehicles: Vehicles beside the ego for the table of speeds (highway-v0).
        scaling_episodes: Episodes side by side for that table.
    """

    output: Path
    environment: str = "highway-v0"
    episodes: int = 512
    turns: int = 3
    turn_s: float = 6.0
    float32: bool = False
    scaling_vehicles: list[int] = field(default_factory=lambda: [10, 50, 200])  # may be empty
    scaling_episodes: list[int] = field(default_factory=lambda: [1, 64, 1024, 4096])

    def __post_init__(self) -> None:
        for name in ("episodes", "turns", "turn_s"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name}: expected more than 0, got {getattr(self, name)}")


def run(config: MeasureSimulatorConfig, run: Run) -> None:
    """Time both simulators in each environment, then the batched one by size."""
    import torch

    from drivecast.envs.batched.simulator import SPAWNS

    if config.environment not in SPAWNS:
        raise InputError(f"environment: expected one of {', '.join(SPAWNS)}; got '{config.environment}'")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        speed = _compared(config.environment, config, run)
        scaling = _scaling(config, run)
    finally:
        torch.set_num_threads(threads)
    config.output.mkdir(parents=True, exist_ok=True)
    path = config.output / "speed.json"
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps({**speed, "scaling": scaling}, indent=2) + "\n", encoding="utf-8")
    run.table(
        "decisions per second of one core",
        ["environment", "vehicles", "episodes", "highway-env", "batched", "ratio"],
        [
            [
                speed["environment"],
                str(speed["vehicles"]),
                str(speed["episodes"]),
                f"{speed['highway_env_steps_per_s']:.1f}",
                f"{speed['batched_steps_per_s']:,.0f}",
                f"{speed['ratio']:.0f}",
            ]
        ],
    )
    run.table(
        "highway-v0, batched: microseconds per vehicle and frame",
        ["vehicles", *(f"{episodes} episodes" for episodes in config.scaling_episodes)],
        [
            [
                str(vehicles),
                *(f"{row['microseconds_per_vehicle_frame']:.2f}" for row in scaling if row["vehicles"] == vehicles),
            ]
            for vehicles in dict.fromkeys(row["vehicles"] for row in scaling)
        ],
    )
    run.log_metrics({f"simulator/{name}": value for name, value in speed.items() if isinstance(value, float)})
    run.log_artifact(path)
    run.say(f"speed: {path}")


def _compared(environment: str, config: MeasureSimulatorConfig, run: Run) -> dict[str, Any]:
    """The two in turns: the machine's other work then slows both alike."""
    batched, reference = _Batched(environment, config.episodes, config.float32), _Reference(environment)
    rates: dict[str, list[float]] = {"batched": [], "highway_env": []}
    with run.progress(2 * config.turns, environment) as progress:
        for _ in range(config.turns):
            for name, simulator in (("batched", batched), ("highway_env", reference)):
                rates[name].append(_rate(simulator, config.turn_s))
                progress.advance(1, steps_per_s=rates[name][-1])
    ours, theirs = (statistics.median(rates[name]) for name in ("batched", "highway_env"))
    return {
        "environment": environment,
        "vehicles": batched.vehicles,
        "episodes": config.episodes,
        "cores": 1,
        "dtype": "float32" if config.float32 else "float64",
        "highway_env_steps_per_s": theirs,
        "batched_steps_per_s": ours,
        "ratio": ours / theirs,
        "turns": rates,
    }


def _scaling(config: MeasureSimulatorConfig, run: Run) -> list[dict[str, Any]]:
    rows = []
    sizes = [(vehicles, episodes) for vehicles in config.scaling_vehicles for episodes in config.scaling_episodes]
    with run.progress(len(sizes), "by size") as progress:
        for vehicles, episodes in sizes:
            simulator = _Batched("highway-v0", episodes, config.float32, {"vehicles_count": vehicles})
            rate = _rate(simulator, config.turn_s / 3)
            rows.append(
                {
                    "vehicles": vehicles,
                    "episodes": episodes,
                    "steps_per_s": rate,
                    "microseconds_per_vehicle_frame": 1e6 / (rate * simulator.frames * simulator.vehicles),
                }
            )
            progress.advance(1)
    return rows


def _rate(simulator: Any, least_s: float) -> float:
    """Decisions per second of processor time."""
    simulator.step()  # what is made once is not timed
    steps, began = 0, time.process_time()
    while time.process_time() - began < least_s:
        steps += simulator.step()
    return steps / (time.process_time() - began)


class _Batched:
    def __init__(self, environment: str, episodes: int, float32: bool, config: dict[str, Any] | None = None) -> None:
        import torch

        from drivecast.envs.batched.vector_env import BatchedHighwayVectorEnv

        dtype = torch.float32 if float32 else torch.float64
        self.env = BatchedHighwayVectorEnv(episodes, environment, config=config, dtype=dtype)
        self.env.reset(seed=0)
        self.env.action_space.seed(0)
        self.vehicles = self.env.simulator.scene.x_m.shape[1]
        self.frames = self.env.simulator.frames
        self.episodes = episodes

    def step(self) -> int:
        self.env.step(self.env.action_space.sample())
        return self.episodes


class _Reference:
    def __init__(self, environment: str) -> None:
        import gymnasium
        import highway_env  # noqa: F401 - its import registers the environments

        self.env = gymnasium.make(environment).unwrapped
        self.env.reset(seed=0)
        self.env.action_space.seed(0)

    def step(self) -> int:
        *_, terminated, truncated, _ = self.env.step(self.env.action_space.sample())
        if terminated or truncated:
            self.env.reset()
        return 1
