"""A driven episode: everything needed to look at it again."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor

from worldmodel.driver import Imagination
from worldmodel.road import Road
from worldmodel.traffic import Controls, TrafficState

Outcome = Literal["completed", "collision", "off_road", "timed_out"]


@dataclass(frozen=True)
class EpisodeMetadata:
    """Where an episode came from and how it ended.

    Attributes:
        driver: Name of the driver, as on the command line.
        environment: Name of the environment, as on the command line.
        seed: Seed of the episode.
        dt_s: Time between two states, s.
        outcome: `completed`, `collision`, `off_road` or `timed_out`.
        config_hash: Hash of the evaluation's configuration.
        recording: Recorded traffic only: name of the recording.
        vehicle_id: Recorded traffic only: the vehicle whose place the ego took.
        collided_with: Index of the agent the ego touched, if any.
        at_fault: Whether a collision was the ego's fault, where that was judged.
        desired_speed_mps: The speed the ego was asked for, m/s, if any.
        extras: Anything else worth keeping that JSON can hold.
    """

    driver: str
    environment: str
    seed: int
    dt_s: float
    outcome: Outcome
    config_hash: str = ""
    recording: str | None = None
    vehicle_id: int | None = None
    collided_with: int | None = None
    at_fault: bool | None = None
    desired_speed_mps: float | None = None
    extras: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.outcome not in get_args(Outcome):
            raise ValueError(f"outcome must be one of {', '.join(get_args(Outcome))}; got {self.outcome!r}")
        if not self.dt_s > 0:
            raise ValueError(f"dt_s must be positive; got {self.dt_s!r}")


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
            agent, 2)` with the episode's agents, `cost` `(1, future)` per term. The first future point is one step
            after the state.
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
        from envs.episode_file import write_episode

        write_episode(self, Path(path))

    @staticmethod
    def read(path: Path | str) -> Episode:
        """Read what `write` wrote.

        Raises:
            InputError: The file is missing, cut short, or not an episode; in one line.
        """
        from envs.episode_file import read_episode

        return read_episode(Path(path))
