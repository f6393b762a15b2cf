"""The plans that a driver weighed, in words."""

from __future__ import annotations

from drivecast.worldmodel.scene.driver import Weighed
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import TrafficState


def in_words(weighed: Weighed, states: TrafficState, road: Road, step: int, dt_s: float) -> list[str]:
    """What each plan of an episode's `weighed` does: `left now, right at 3.0 s`.

    Args:
        weighed: The plans that were in hand at `step`.
        states: The episode's, `(time, agent)`.
        road: Of batch 1.
        step: Of the state in which the driver was asked.
        dt_s: Time step, s.
    """
    decided = states[max(0, step - weighed.ago)]
    lane = int(road.project(decided.position_m[None, :1]).lane)
    stretch_s = weighed.path_m.shape[2] * weighed.every * dt_s / weighed.lanes.shape[2]
    rows = zip(weighed.lanes[0].tolist(), weighed.brakes[0].tolist(), strict=True)
    return ["brake fully" if brakes else _moves(lanes, lane, road, stretch_s) for lanes, brakes in rows]


def _moves(lanes: list[int], lane: int, road: Road, stretch_s: float) -> str:
    moves = []
    for number, to in enumerate(lanes):
        if to not in (lane, NO_LANE):
            when = f"at {number * stretch_s:.1f} s" if number else "now"
            moves.append(f"{_side(lane, to, road)} {when}")
            lane = to
    return ", ".join(moves) or "keep the lane"


def _side(lane: int, to: int, road: Road) -> str:
    lanes = road.left.shape[1]
    if not (0 <= lane < lanes and 0 <= to < lanes):
        return f"lane {to}"
    if int(road.left[0, lane]) == to:
        return "left"
    return "right" if int(road.right[0, lane]) == to else f"lane {to}"
