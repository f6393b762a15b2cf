"""The protocol of an environment that runs many episodes in lockstep, as tensors or in processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState


@dataclass(frozen=True)
class LockstepStart:
    """Where the episodes of a batch begin.

    Attributes:
        history: `(batch, time, agent)`, the present last, `dt_s` apart. `time` is 1 where nothing is known of the past.
        road: The lanes, the same through the whole episode; leading dimension `batch`.
        goal: What the ego is asked for, `(batch,)`.
        task: One dictionary per episode of what names it (recording, vehicle, ...), for tables and kept episodes.
    """

    history: TrafficState
    road: Road
    goal: Goal
    task: tuple[dict[str, str | int | float], ...]


@dataclass(frozen=True)
class LockstepStep:
    """What one step of `dt_s` brought, `(batch,)` each but the state.

    The four events are those of *this* step; an episode is over at its first step with any of them. They may come
    together (a car that is off the road and hits something); the closed loop counts contact first, then leaving the
    road, then completion, then the clock. Once an episode is over its events stay False.

    Attributes:
        state: `(batch, agent)`, the ego at agent 0. Episodes that are over are frozen at their last state.
        controls: What the ego in fact did in this step, after any clipping; the recorded controls for a replayed ego.
        collided: Bool. The ego touched another vehicle.
        off_road: Bool. The ego left the road.
        completed: Bool. The ego did what the episode asks for.
        timed_out: Bool. The episode's time is up without any of the above.
        progress: How much of the task is done, 0 to 1; None where the environment has no such measure.
        human_progress: The same of the recorded human at this time, 1 from its goal on; None where nobody was recorded.
        hit: Long. Agent that the ego touched, -1 for none; None where the environment does not know (the closed
            loop then takes the nearest box).
        unpushed: `(batch, agent)`. Where the environment moves cars apart for a contact, the scene as it would have
            been without, in the episodes in which it moved the ego; else as `state`. None: no ego was moved.
    """

    state: TrafficState
    controls: Controls
    collided: Tensor
    off_road: Tensor
    completed: Tensor
    timed_out: Tensor
    progress: Tensor | None = None
    hit: Tensor | None = None
    unpushed: TrafficState | None = None
    human_progress: Tensor | None = None

    @property
    def scene(self) -> TrafficState:
        """What is judged and kept of this step: the state, a contact before anybody is moved apart."""
        return self.state if self.unpushed is None else self.unpushed

    @property
    def ended(self) -> Tensor:
        """Bool `(batch,)`: episodes that are over with this step."""
        return self.collided | self.off_road | self.completed | self.timed_out


class LockstepTraffic(Protocol):
    """Episodes side by side. One seed is one episode: the same seed gives the same start for every driver.

    Agents keep their slot during an episode; a slot whose vehicle is not there (not yet, or no longer) is not
    `valid`, and its numbers are finite. Episodes that ended are frozen, and the caller may go on stepping the batch.
    `reset` may be called with another number of seeds each time.
    """

    name: str
    dt_s: float

    def reset(self, seeds: Sequence[int]) -> LockstepStart:
        """Start one episode per seed."""
        ...

    def step(self, controls: Controls | None) -> LockstepStep:
        """Advance every episode by `dt_s`. `None`: the ego replays its recording (the human driver).

        Raises:
            InputError: `None` was given to traffic that has no recording of its ego.
        """
        ...


@runtime_checkable
class AttentiveTraffic(Protocol):
    """Traffic whose other drivers see what the ego is about to do, as by its indicator."""

    def announce(self, lane: Tensor | None) -> None:
        """The lane of the road `(batch,)` that the ego steers for in the next step; None: the one it is on."""
        ...
