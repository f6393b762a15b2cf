"""highway-env's rewards (`HighwayEnv._reward`, `MergeEnv._reward`), `(episode,)`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from drivecast.envs.batched.lanes import Lanes
from drivecast.envs.batched.scene import Scene


def highway_reward(scene: Scene, lanes: Lanes, config: dict[str, Any], lane: Tensor, on_road: Tensor) -> Tensor:
    """Speed, lanes to the right, no collision; zero off the road."""
    forward = scene.speed_mps[:, 0] * scene.heading_rad[:, 0].cos()
    low, high = config["reward_speed_range"]
    fast = ((forward - low) / (high - low)).clamp(0, 1)
    rightmost = max(lanes.count - 1, 1)
    reward = (
        config["collision_reward"] * scene.crashed[:, 0].to(forward)
        + config["right_lane_reward"] * lanes.number[lane].to(forward) / rightmost
        + config["high_speed_reward"] * fast
    )
    if config["normalize_reward"]:
        worst, best = config["collision_reward"], config["high_speed_reward"] + config["right_lane_reward"]
        reward = (reward - worst) / (best - worst)
    return reward * on_road


def merge_reward(scene: Scene, lanes: Lanes, config: dict[str, Any], changes_lane: Tensor) -> Tensor:
    """Speed and lanes to the right, no collision, and no slow car on the ramp."""
    low, high = config["reward_speed_range"]
    fast = (scene.speed_mps[:, 0] - low) / (high - low)
    ramp = lanes.names.index(("b", "c", 2)) if ("b", "c", 2) in lanes.names else -1
    wanted = torch.where(scene.aims, scene.target_speed_mps, 1.0)
    slow = (((wanted - scene.speed_mps) / wanted) * (scene.aims & (scene.lane == ramp))).sum(1)
    reward = (
        config["collision_reward"] * scene.crashed[:, 0].to(fast)
        + config["right_lane_reward"] * lanes.number[scene.lane[:, 0]].to(fast)
        + config["high_speed_reward"] * fast
        + config["lane_change_reward"] * changes_lane.to(fast)
        + config["merging_speed_reward"] * slow
    )
    worst = config["collision_reward"] + config["merging_speed_reward"]
    best = config["high_speed_reward"] + config["right_lane_reward"]
    return (reward - worst) / (best - worst)
