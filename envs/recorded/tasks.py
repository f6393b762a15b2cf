"""Which recorded vehicles can be driven, from where, how far and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from drivecast.envs.recorded.config import RecordedTrafficConfig
from drivecast.worldmodel.recordings.window import RecordedScene
from drivecast.worldmodel.scene.lane_neighbours import longest_lane, single_lane
from drivecast.worldmodel.scene.traffic import _TensorRecord


@dataclass(frozen=True)
class Tasks(_TensorRecord):
    """The vehicles that can be driven, `(task,)` each; frames count from the start of their recording."""

    scene: Tensor
    agent: Tensor
    start: Tensor  # frame at which the ego is handed over
    finish: Tensor  # frame at which the human reached the goal
    limit: Tensor  # frame at which the clock runs out
    start_m: Tensor  # progress along the axis at the start
    goal_m: Tensor  # progress that completes the task


def find_tasks(
    scenes: Sequence[RecordedScene],
    config: RecordedTrafficConfig,
    dt_s: float,
    history_steps: int,
    device: torch.device,
) -> tuple[Tasks, Tensor]:
    """The vehicles of all recordings that can be driven, and the speed asked for in each recording, m/s."""
    found: list[Tasks] = []
    desired = []
    for number, scene in enumerate(scenes):
        states = scene.states
        frames, _ = states.valid.shape
        first, last = scene.first_step, scene.last_step
        axis = single_lane(scene.road, longest_lane(scene.road))
        along = axis.project(states.position_m.flatten(0, 1)[None]).along_m.view(states.valid.shape)
        start = first + history_steps - 1
        finish = torch.minimum(last, torch.tensor(frames - 1 - round(config.slack_s / dt_s)))
        agent = torch.arange(len(first))
        inside = (start < frames) & (finish > 0)
        start_m = along[start.clamp(0, frames - 1), agent]
        goal_m = along[finish.clamp(0, frames - 1), agent]
        human = finish - start
        eligible = inside & (human * dt_s >= config.min_span_s - 1e-6)
        eligible &= goal_m - start_m >= config.min_span_m
        limit = torch.minimum(start + (human * config.patience).long(), torch.tensor(frames - 1))
        columns = (torch.full_like(agent, number), agent, start, finish, limit, start_m, goal_m)
        found.append(Tasks(*(column[eligible].to(device) for column in columns)))
        speeds = states.speed_mps[states.valid]
        asked = config.desired_speed_mps or float(np.quantile(speeds.cpu().numpy(), 0.95))
        desired.append(asked)
    return Tasks.cat(found), torch.tensor(desired, device=device)
