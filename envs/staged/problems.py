"""Scenes whose right answer is known: what happens in them, and what a driver has to have done at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from drivecast.worldmodel.scene.contact import ego_separation_m
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState

LANE_WIDTH_M = 4.0
END_OF_RAMP_M = 220.0


@dataclass(frozen=True)
class Car:
    """One of the others: it keeps to its script, whatever the ego does.

    Attributes:
        x_m, lane, speed_mps: Where it begins.
        pedals: `(from_s, to_s, acceleration_mps2)` each; it never drives backwards.
        length_m: From bumper to bumper.
    """

    x_m: float
    lane: int
    speed_mps: float
    pedals: tuple[tuple[float, float, float], ...] = ()
    length_m: float = 5.0


@dataclass(frozen=True)
class Problem:
    """A scene and its right answer.

    Attributes:
        name: What is to be done.
        lanes: How many, the leftmost is 0.
        ego: Where it begins; its pedals are not used.
        others: Who else is there.
        desired_speed_mps: What the ego is asked for.
        duration_s: How long it has.
        solved: Of the states `(time, agent)` and the road: what is wrong with them, empty if nothing is.
        ramp: The last lane ends at `END_OF_RAMP_M`.
    """

    name: str
    lanes: int
    ego: Car
    others: tuple[Car, ...]
    desired_speed_mps: float
    duration_s: float
    solved: Callable[[TrafficState, Road], str]
    ramp: bool = False

    @property
    def road(self) -> Road:
        """`(1, lane, point)`."""
        road = Road.straight(self.lanes, 4000.0, LANE_WIDTH_M, 40.0, start_m=-1000.0)
        if not self.ramp:
            return road
        centre, open_end = road.centre_m.clone(), road.open_end.clone()
        centre[:, -1, 1, 0], open_end[:, -1] = END_OF_RAMP_M, False
        return replace(road, centre_m=centre, open_end=open_end)

    def verdict(self, states: TrafficState) -> str:
        """What is wrong with how it was driven, `(time, agent)`; empty: it is solved."""
        if float(ego_separation_m(states).min()) < 0.0:
            return "touched somebody"
        if bool((self.road.off_road_m(states.position_m[None, :, 0]) > 0.0).any()):
            return "left the road"
        return self.solved(states, self.road)


def _gap_m(states: TrafficState, other: int) -> Tensor:
    """From the ego's front bumper to the other's rear one, along +x, `(time,)`."""
    ahead = states.position_m[:, other, 0] - states.position_m[:, 0, 0]
    return ahead - (states.length_m[:, other] + states.length_m[:, 0]) / 2


def _stops_behind(states: TrafficState, road: Road) -> str:
    gap, speed = float(_gap_m(states, 1)[-1]), float(states.speed_mps[-1, 0])
    if speed > 0.3:
        return f"still drives {speed:.1f} m/s"
    return "" if 0.5 <= gap <= 8.0 else f"stands {gap:.1f} m before the wall"


def _follows(states: TrafficState, road: Road) -> str:
    gap, speed = float(_gap_m(states, 1)[-1]), float(states.speed_mps[-1, 0])
    if abs(speed - float(states.speed_mps[-1, 1])) > 0.7:
        return f"drives {speed:.1f} m/s"
    return "" if 4.0 <= gap <= 45.0 else f"keeps {gap:.1f} m"


def _overtakes(states: TrafficState, road: Road) -> str:
    ahead = -float(_gap_m(states, 1)[-1])
    return "" if ahead > 5.0 else "has not overtaken"


def _merges(states: TrafficState, road: Road) -> str:
    ego = states.position_m[-1, 0]
    if float(ego[0]) < END_OF_RAMP_M:
        return "stands on the ramp"
    return "" if abs(float(ego[1])) < 1.0 else "is not in the lane"


PROBLEMS = (
    Problem("stop before who stands", 1, Car(0, 0, 25), (Car(150, 0, 0),), 28.0, 20.0, _stops_behind),
    Problem("follow", 1, Car(0, 0, 28), (Car(60, 0, 20),), 28.0, 25.0, _follows),
    Problem("overtake where the lane is empty", 2, Car(0, 1, 24), (Car(45, 1, 18),), 28.0, 20.0, _overtakes),
    Problem(
        "let pass who comes from behind, then overtake",
        2,
        Car(0, 1, 24),
        (Car(40, 1, 18), Car(-28, 0, 31)),
        28.0,
        22.0,
        _overtakes,
    ),
    Problem(
        "merge before the ramp ends",
        2,
        Car(0, 1, 20),
        tuple(Car(x, 0, 20) for x in (-75, -25, 20, 65)),
        25.0,
        18.0,
        _merges,
        ramp=True,
    ),
    Problem(
        "break off before who speeds up, then overtake",
        2,
        Car(0, 1, 24),
        (Car(50, 1, 18), Car(-18, 0, 25, ((0.6, 2.2, 4.5),))),
        28.0,
        24.0,
        _overtakes,
    ),
)
