"""How highway-env's cars decide: IDM along the lane, MOBIL between lanes, a cascade of controllers for the steering.

Equations and constants are those of highway-env 1.12.1 (`vehicle/behavior.py`, `vehicle/controller.py`); IDM: Treiber,
Hennecke, Helbing 2000; MOBIL: Kesting, Treiber, Helbing 2007.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from drivecast.envs.batched.lanes import NO_LANE, Lanes
from drivecast.envs.batched.places import Few, anywhere, places_of
from drivecast.envs.batched.scene import Scene
from drivecast.envs.batched.situation import Situation, behind, closing_speed
from drivecast.worldmodel.rules.laws import TAU_PURSUIT_S, desired_gap, free_acceleration, lane_steering, worth_changing
from drivecast.worldmodel.scene.kinematics import MAX_ACCELERATION_MPS2

LANE_CHANGE_DELAY_S = 1.0
LANE_CHANGE_MIN_SPEED_MPS = 1.0

TAU_ACCELERATION_S = 0.6
MOST_STEERING_RAD = math.pi / 3  # of highway-env's own drivers
MOST_SLIP_SINE = 0.9
HALF_LENGTH_M = 2.5


def steering_towards(scene: Scene, lanes: Lanes, target: Tensor) -> Tensor:
    """Steering angle that leads to the centre of `target`, rad (`ControlledVehicle.steering_control`)."""
    # where the lane points a little further on
    lane_heading = lanes.heading(scene.x_m + scene.speed_mps * TAU_PURSUIT_S, target)

    def steering(speed: Tensor, across: Tensor, heading: Tensor) -> tuple[Tensor]:
        # full_like: torch takes a number over a tensor as a product with the reciprocal, which rounds otherwise
        half_length = torch.full_like(speed, HALF_LENGTH_M)
        return (lane_steering(speed, across, heading, lane_heading, half_length, MOST_SLIP_SINE, MOST_STEERING_RAD),)

    across = lanes.across(scene.x_m, scene.y_m, target)
    # who is on the centre line of a straight lane, and points along it, does not steer
    steers = Few(None) if lanes.curved else Few.of(across.bool() | scene.heading_rad.bool())
    return steers.apply(steering, scene.speed_mps, across, scene.heading_rad, otherwise=(0.0,))[0]


def idm_actions(now: Situation, target: Tensor, drives: Tensor) -> Tensor:
    """IDM acceleration of every agent on its lane and, while it changes, on the one it changes to, m/s².

    Args:
        now: The frame.
        target: Lane that each steers for, `(episode, agent)`.
        drives: Bool. Whose acceleration is wanted; that of the others means nothing.
    """
    scene, motion, acceleration = now.scene, now.motion, now.keeping_mps2
    changing = places_of(drives & (target != scene.lane))
    if len(changing):
        episode, who = changing // motion.agents, changing % motion.agents
        leader = motion.of(episode, now.order.leader(episode, who, target.take(changing)))
        there = behind(motion.of(episode, who), leader, now.free_mps2.take(changing), now.drivers.of(changing))
        least = torch.minimum(acceleration.take(changing), there)
        acceleration = acceleration.flatten().scatter(0, changing, least).view_as(acceleration)
    return acceleration.clamp(-MAX_ACCELERATION_MPS2, MAX_ACCELERATION_MPS2)


@torch.no_grad()
def choose_lanes(now: Situation) -> tuple[Tensor, Tensor]:
    """Target lanes and timers after everyone's decision (`IDMVehicle.change_lane_policy`).

    highway-env's cars decide one after the other, and whoever is changing lane gives up if a car ahead is bound for the
    same lane. Only there does the order of decisions matter: an earlier car's new target is seen, a later car's is not.
    """
    scene, lanes = now.scene, now.lanes
    drives = scene.idm & ~scene.crashed
    onwards = scene.target_lane
    if not lanes.parallel:
        looks = drives | (scene.aims & ~scene.idm)
        onwards = torch.where(looks, lanes.onwards(scene.x_m, scene.target_lane), scene.target_lane)
    changing = drives & (onwards != scene.lane)
    due = drives & ~changing & (scene.timer_s > LANE_CHANGE_DELAY_S)
    timer = scene.timer_s.masked_fill(due, 0.0)
    target = onwards
    asking = places_of(due)
    if len(asking):
        target = target.flatten().scatter(0, asking, _mobil(now, asking)).view_as(target)
    if not lanes.parallel:
        changing &= lanes.edge.take(scene.lane) == lanes.edge.take(onwards)
    if anywhere(changing):
        target = _give_up(now, target, changing)
    return target, timer


def _mobil(now: Situation, asking: Tensor) -> Tensor:
    """The lane `(k,)` that the cars at the places `asking (k,)` want; of both sides the right one, if both are better.

    All accelerations, those of other cars too, are what IDM gives with the parameters of the car that asks.
    """
    scene, lanes, polite = now.scene, now.lanes, now.drivers.polite
    wanted = here = scene.lane.take(asking)
    x, y, speed = (values.take(asking) for values in (scene.x_m, scene.y_m, scene.speed_mps))
    moves = speed.abs() >= LANE_CHANGE_MIN_SPEED_MPS
    for side in (lanes.left, lanes.right):
        beside = side[here]
        may = places_of((beside != NO_LANE) & moves & lanes.reachable(x, y, beside))
        gain = _gain(now, asking[may], beside[may])
        if not polite:  # whoever gains too little need not look who would be behind
            worth = gain >= now.drivers.of(asking[may]).least_gain_mps2
            may, gain = may[worth], gain[worth]
        drivers = now.drivers.of(asking[may])
        imposed, felt = _on_followers(now, asking[may], beside[may])
        gain = gain + drivers.politeness * felt if polite else gain
        changes = may[worth_changing(gain, imposed, drivers)]
        wanted = wanted.scatter(0, changes, beside[changes])
    return wanted


def _gain(now: Situation, asking: Tensor, beside: Tensor) -> Tensor:
    """What the cars at the places `asking (k,)` would gain on the lane `beside (k,)`, m/s²."""
    motion, episode, who = now.motion, asking // now.motion.agents, asking % now.motion.agents
    leader = motion.of(episode, now.order.leader(episode, who, beside))
    go = behind(motion.of(episode, who), leader, now.free_mps2.take(asking), now.drivers.of(asking))
    return go - now.keeping_mps2.take(asking)


def _on_followers(now: Situation, asking: Tensor, beside: Tensor) -> tuple[Tensor, Tensor]:
    """What it does to the followers if the cars at `asking (k,)` change to the lane `beside (k,)`.

    Returns, m/s², `(k,)` each: the acceleration of the new follower, which may have to brake; and what it and the old
    follower gain together. Zero where nobody follows; the second is computed for polite drivers only.
    """
    scene, motion, order, drivers = now.scene, now.motion, now.order, now.drivers.of(asking)
    episode, who, exponent = asking // motion.agents, asking % motion.agents, scene.exponent.take(asking)
    vehicle = torch.nn.functional.pad(scene.vehicle, (0, 1), value=False)

    def follower_on(lane: Tensor) -> Callable[[Tensor], Tensor]:
        """What the follower would do behind a leader."""
        agent = order.follower(episode, who, lane)
        one, there = motion.of(episode, agent), vehicle[episode, agent]
        free = free_acceleration(one[1], one[6], exponent, drivers)
        return lambda leader: behind(one, leader, free, drivers).where(there, 0.0)

    mine, new = motion.of(episode, who), follower_on(beside)
    imposed = new(mine)
    if not drivers.polite:
        return imposed, torch.zeros_like(imposed)
    here = scene.lane.take(asking)
    old, ahead, ahead_there = follower_on(here), order.leader(episode, who, here), order.leader(episode, who, beside)
    felt = imposed - new(motion.of(episode, ahead_there)) + old(motion.of(episode, ahead)) - old(mine)
    return imposed, felt


def _give_up(now: Situation, target: Tensor, changing: Tensor) -> Tensor:
    """Targets after the cars that are `changing` lane have looked who else is bound for theirs."""
    scene, motion = now.scene, now.motion
    bound = scene.aims & ((scene.target_lane != scene.lane) | (target != scene.lane))
    episode, who, other = _pairs_within_episodes(changing, bound)
    wish = target.take(who)
    first = episode * motion.agents
    mine, theirs = motion.of(episode, who - first), motion.of(episode, other - first)
    ahead = theirs[0] - mine[0]
    rival = (ahead > 0) & (ahead < desired_gap(mine[1], closing_speed(mine, theirs), now.drivers.of(who)))
    rival &= scene.lane.take(other) != wish
    who, other, wish = who[rival], other[rival], wish[rival]
    earlier, before, here = other < who, scene.target_lane.take(other), scene.lane.take(who)
    after = target
    for _ in range(target.shape[1]):  # who gives up no longer stands in a later one's way: until nothing changes
        gives_up = torch.where(earlier, after.take(other), before) == wish
        then = target.flatten().scatter(0, who[gives_up], here[gives_up]).view_as(target)
        if not anywhere(then != after):
            break
        after = then
    return after


def _pairs_within_episodes(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All pairs of one among `first` and another among `second`, bool `(episode, agent)`, of the same episode.

    Returns, long `(k,)` each: the episode, and the places of the one and the other in the flattened scene.
    """
    one, candidates, count = places_of(first), places_of(second), second.sum(1)
    episode = one // first.shape[1]
    begin, count = (count.cumsum(0) - count)[episode], count[episode]
    repeated = torch.repeat_interleave(torch.arange(len(one), device=one.device), count)
    within = torch.arange(len(repeated), device=one.device) - (count.cumsum(0) - count)[repeated]
    other = candidates[begin[repeated] + within]
    episode, one = episode[repeated], one[repeated]
    differ = other != one
    return episode[differ], one[differ], other[differ]
