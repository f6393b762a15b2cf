"""Whether the batched simulator and highway-env give the same future: the same seeds, the same random actions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from drivecast.envs.batched.simulator import BatchedHighway
from drivecast.envs.highway.simulator import mended_class
from drivecast.worldmodel.rules.elementary import numpy_functions

MOST_STEERING = 0.1  # of the range: an ego that wanders, rather than one that spins


@dataclass
class Parity:
    """What was compared.

    Attributes:
        steps: Decisions of the ego, over all seeds.
        states: Agents' states, over all simulation frames that were looked at.
        largest: Largest difference of positions (m), speeds (m/s) and headings (rad).
        largest_reward: Largest difference of rewards.
        crashed: Cars that were crashed at the end.
        lane_changes: Changes of a car's lane.
        forks: Seeds whose states, lanes, targets, crashes or ends differ, with the first step and what differs there.
    """

    steps: int = 0
    states: int = 0
    largest: float = 0.0
    largest_reward: float = 0.0
    crashed: int = 0
    lane_changes: int = 0
    forks: list[str] = field(default_factory=list)

    def add(self, other: Parity) -> None:
        """Take in what was found on other seeds."""
        self.steps, self.states = self.steps + other.steps, self.states + other.states
        self.largest = max(self.largest, other.largest)
        self.largest_reward = max(self.largest_reward, other.largest_reward)
        self.crashed, self.lane_changes = self.crashed + other.crashed, self.lane_changes + other.lane_changes
        self.forks += other.forks


def compare(
    environment: str, config: dict[str, Any], seeds: Sequence[int], steps: int, tolerance: float = 1e-6
) -> Parity:
    """Run both simulators on `seeds` for `steps` decisions each, beyond the end of the episodes if they end sooner."""
    batched = BatchedHighway(environment, config)
    actions = [_actions(batched.discrete, seed, steps) for seed in seeds]
    batched.reset(seeds)
    ours = [_ours(batched, None)]
    with torch.inference_mode(), numpy_functions():
        for number in range(steps):
            taken = torch.as_tensor(np.stack([plan[number] for plan in actions]))
            ours.append(_ours(batched, batched.step(taken)))
    reference = mended_class(environment)(config=config)
    found = Parity()
    for row, seed in enumerate(seeds):
        found.add(_compare_seed(reference, seed, actions[row], [_row(one, row) for one in ours], tolerance))
    return found


def _actions(discrete: bool, seed: int, steps: int) -> np.ndarray:
    draw = np.random.default_rng([seed, 1])
    if discrete:
        return draw.integers(5, size=steps)
    return draw.uniform(-1.0, 1.0, (steps, 2)) * (1.0, MOST_STEERING)


def _compare_seed(
    reference: Any, seed: int, actions: np.ndarray, ours: list[dict[str, np.ndarray]], tolerance: float
) -> Parity:
    reference.reset(seed=int(seed))
    names = list(reference.road.network.lanes_dict())
    found, before = Parity(), None
    for number, mine in enumerate(ours):
        if number:
            action = actions[number - 1]
            _, reward, terminated, truncated, _ = reference.step(action if actions.ndim > 1 else int(action))
            found.largest_reward = max(found.largest_reward, abs(float(reward) - float(mine["reward"])))
            ended = [bool(terminated), bool(truncated)]
        theirs = _theirs(reference, names)
        cars = len(theirs["lane"])
        error = np.abs(mine["state"][: len(theirs["state"])] - theirs["state"]).max()
        differ = [name for name in ("lane", "target", "crashed") if (mine[name][:cars] != theirs[name]).any()]
        if number and mine["end"].tolist() != ended:
            differ.append("end")
        if error > tolerance:
            differ.append(f"state by {error:.1e}")
        if differ:
            found.forks.append(f"seed {seed}, step {number}: {', '.join(differ)}")
            return found
        found.largest = max(found.largest, float(error))
        found.steps += number > 0
        found.states += theirs["state"].shape[0]
        found.lane_changes += 0 if before is None else int((before != theirs["lane"]).sum())
        before = theirs["lane"]
    found.crashed = int(theirs["crashed"].sum())
    return found


def _theirs(reference: Any, names: list[Any]) -> dict[str, np.ndarray]:
    cars = reference.road.vehicles
    users: Iterable[Any] = [*cars, *reference.road.objects]
    return {
        "state": np.array([(*user.position, user.speed, user.heading) for user in users]),
        "lane": np.array([names.index(car.lane_index) for car in cars]),
        "target": np.array([names.index(getattr(car, "target_lane_index", car.lane_index)) for car in cars]),
        "crashed": np.array([bool(car.crashed) for car in cars]),
    }


def _ours(batched: BatchedHighway, step: Any) -> dict[str, torch.Tensor]:
    scene = batched.scene
    found = {
        "state": torch.stack([scene.x_m, scene.y_m, scene.speed_mps, scene.heading_rad], -1),
        "lane": scene.lane,
        # who has no target lane, an ego with continuous controls, is listed with its lane
        "target": torch.where(scene.aims, scene.target_lane, scene.lane),
        "crashed": scene.crashed,
        "present": scene.vehicle,
    }
    if step is not None:
        found |= {"reward": step.reward, "end": torch.stack([step.terminated, step.truncated], -1)}
    return found


def _row(one: dict[str, torch.Tensor], row: int) -> dict[str, np.ndarray]:
    """One episode; empty places, which highway-env does not have, are dropped."""
    values = {name: tensor[row].numpy() for name, tensor in one.items()}
    there = values.pop("present") | (values["state"][:, 0] > -1e5)
    return {name: value[there] if value.shape[:1] == there.shape else value for name, value in values.items()}
