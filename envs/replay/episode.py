"""A driven episode: everything needed to look at it again."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from torch import Tensor

from drivecast.envs.replay.episode_file import damaged, read_parts, write_parts
from drivecast.envs.replay.episode_metadata import EpisodeMetadata, Outcome
from drivecast.worldmodel.scene.driver import Imagination, Weighed
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls, TrafficState

__all__ = ["Episode", "EpisodeMetadata", "Outcome"]


@dataclass(frozen=True)
class Episode:
    """One episode without a batch dimension. State `t` leads to state `t + 1` by the controls of step `t`.

    Attributes:
        states: `(steps + 1, agent)`; agent 0 is the ego.
        controls: The ego's, `(steps,)`.
        road: The road, batch dimension 1.
        metadata: Where it came from and how it ended.
        costs: Weighted cost terms as they came about, `(steps,)` each.
        imaginations: By step, what the driver expected there: `plan_m (1, future, 2)`, `futures_m (1, sample, future,
            agent, 2)` with the episode's agents, NaN for those that were not imagined, `cost` `(1, future)` per term;
            `weighed`, of batch 1; and `attended (1, agent)`. The first future point is one step after the state.
    """

    states: TrafficState
    controls: Controls
    road: Road
    metadata: EpisodeMetadata
    costs: dict[str, Tensor] = field(default_factory=dict)
    imaginations: dict[int, Imagination] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.states.position_m.ndim != 3:
            raise ValueError(f"states must be (time, agent); got {tuple(self.states.position_m.shape)} of positions")
        times, agents = self.states.speed_mps.shape
        steps = times - 1
        for name, values in {"controls": self.controls.acceleration_mps2, **self.costs}.items():
            if values.shape != (steps,):
                raise ValueError(
                    f"{name} must be ({steps},), one per step of {times} states; got {tuple(values.shape)}"
                )
        other = self.metadata.collided_with
        if other is not None and not 0 <= other < agents:
            raise ValueError(f"collided_with must be one of {agents} agents; got {other}")
        if self.road.centre_m.shape[0] != 1:
            raise ValueError(f"road must have batch dimension 1; got {self.road.centre_m.shape[0]}")
        for step, imagined in self.imaginations.items():
            if not 0 <= step < times:
                raise ValueError(f"imagination at step {step}, but the episode has states 0 to {steps}")
            if imagined.plan_m.ndim != 3 or imagined.plan_m.shape[0] != 1:
                raise ValueError(f"plan_m at step {step} must be (1, step, 2); got {tuple(imagined.plan_m.shape)}")
            shape = tuple(imagined.futures_m.shape)
            if len(shape) != 5 or shape[0] != 1 or shape[3] != agents:
                raise ValueError(f"futures_m at step {step} must be (1, sample, step, {agents}, 2); got {shape}")
            told = imagined.attended
            if told is not None and (tuple(told.shape) != (1, agents) or told.dtype != torch.bool):
                raise ValueError(
                    f"attended at step {step} must be bool (1, {agents}); got {told.dtype} {tuple(told.shape)}"
                )
            if imagined.weighed is not None:
                _check_weighed(imagined.weighed, step)

    @property
    def steps(self) -> int:
        """Number of steps driven."""
        return self.states.speed_mps.shape[0] - 1

    @property
    def duration_s(self) -> float:
        """Time driven, s."""
        return self.steps * self.metadata.dt_s

    def write(self, path: Path | str) -> None:
        """Write one Parquet file, a row per state; numbers as float32, imagined futures to the centimetre."""
        write_parts(Path(path), **{f.name: getattr(self, f.name) for f in fields(self)})

    @staticmethod
    def read(path: Path | str) -> Episode:
        """Read what `write` wrote.

        Raises:
            InputError: The file is missing, cut short, or not an episode; in one line.
        """
        parts = read_parts(Path(path))
        try:
            return Episode(**parts)
        except ValueError as error:
            raise damaged(Path(path), error) from error


def _check_weighed(weighed: Weighed, step: int) -> None:
    plans = weighed.energy.shape[1] if weighed.energy.ndim == 2 else 0
    shapes = {"path_m": weighed.path_m.shape[:2], "lanes": weighed.lanes.shape[:2], "brakes": weighed.brakes.shape}
    shapes |= {f"cost of {name}": values.shape for name, values in weighed.cost.items()}
    for name, shape in {"energy": weighed.energy.shape, **shapes}.items():
        if not plans or tuple(shape) != (1, plans):
            raise ValueError(
                f"weighed plans at step {step}: {name} must be of (1, {plans or 'plan'}); got {tuple(shape)}"
            )
    if weighed.path_m.ndim != 4 or weighed.path_m.shape[-1] != 2 or weighed.every < 1 or weighed.ago < 0:
        raise ValueError(
            f"weighed plans at step {step}: path_m must be (1, plan, point, 2), from `every` 1 and `ago` 0 on"
        )
