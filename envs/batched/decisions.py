"""How highway-env's cars decide: IDM along the lane, MOBIL between lanes, a cascade of controllers for the steering.

Equations and constants are those of highway-env 1.12.1 (`vehicle/behavior.py`, `vehicle/controller.py`); IDM: Treiber,
Hennecke, Helbing 2000; MOBIL: Kesting, Treiber, Helbing 2007.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from envs.batched.driver_parameters import DriverParameters
from envs.batched.elementary import asin, atan, cos, power, sin, tan
from envs.batched.lanes import NO_LANE, Lanes, wrap_to_pi
from envs.batched.neighbours import LaneOrder
from envs.batched.scene import Scene

MAX_ACCELERATION_MPS2 = 6.0
LANE_CHANGE_DELAY_S = 1.0
LANE_CHANGE_MIN_SPEED_MPS = 1.0

TAU_ACCELERATION_S = 0.6
TAU_HEADING_S = 0.2
TAU_LATERAL_S = 0.6
TAU_PURSUIT_S = 0.5 * TAU_HEADING_S
MAX_STEERING_RAD = math.pi / 3
HALF_LENGTH_M = 2.5


def not_zero(value: Tensor, least: float = 1e-2) -> Tensor:
    """`value`, kept `least` away from zero on its side (`utils.not_zero`)."""
    return torch.where(value.abs() > least, value, torch.where(value >= 0, least, -least))


class Motion:
    """What the equations need of each agent, with one place more for nobody: infinitely far ahead, at rest.

    Attributes: `(episode, agent + 1)` each.
        x_m: m.
        speed_mps: Along the heading, m/s.
        cos, sin: Of the heading.
        vx_mps, vy_mps: Velocity, m/s.
        desired_mps: Target speed within the limit of the lane, m/s.
        columns: All of them in this order, `(7, episode * (agent + 1))`: to pick some agents is one operation.
    """

    def __init__(self, scene: Scene, lanes: Lanes) -> None:
        limit = lanes.limit_mps[0] if lanes.one_limit else lanes.limit_mps.take(scene.lane)
        desired = not_zero(scene.target_speed_mps.clamp_min(0.0).minimum(limit)).abs()
        nothing = torch.zeros_like(scene.x_m[:, :1])

        def with_nobody(values: Tensor, value: float) -> Tensor:
            return torch.cat([values, nothing + value], 1)

        self.x_m = with_nobody(scene.x_m, torch.inf)
        self.speed_mps = with_nobody(scene.speed_mps, 0.0)
        heading = with_nobody(scene.heading_rad, 0.0)
        self.cos, self.sin = cos(heading), sin(heading)
        self.vx_mps, self.vy_mps = self.speed_mps * self.cos, self.speed_mps * self.sin
        self.desired_mps = with_nobody(desired, 1.0)
        columns = (self.x_m, self.speed_mps, self.cos, self.sin, self.vx_mps, self.vy_mps, self.desired_mps)
        self.columns = torch.stack(columns).flatten(1)
        self.places = self.x_m.shape[1]

    def of(self, episode: Tensor, agent: Tensor) -> Tensor:
        """The columns `(7, k)` of some agents."""
        return self.columns.index_select(1, episode * self.places + agent)


def desired_gap(speed: Tensor, closing: Tensor, drivers: DriverParameters) -> Tensor:
    """IDM's d* = d0 + T v + v Δv / (2 sqrt(a b)), m."""
    return drivers.jam_distance_m + speed * drivers.time_gap_s + speed * closing / drivers.closing_mps2


def idm_acceleration(
    speed: Tensor, desired: Tensor, exponent: Tensor, closing: Tensor, distance: Tensor, drivers: DriverParameters
) -> Tensor:
    """a (1 - (v / v0)^δ - (d* / d)²), m/s²; `distance` is infinite where nobody is ahead."""
    free = 1 - power(speed.clamp_min(0.0) / desired, exponent)
    gap = (desired_gap(speed, closing, drivers) / not_zero(distance)) ** 2
    return drivers.comfort_acceleration_mps2 * free - drivers.comfort_acceleration_mps2 * gap


def follow(motion: Motion, leader: Tensor, exponent: Tensor, drivers: DriverParameters) -> Tensor:
    """IDM acceleration of every agent behind its `leader (episode, agent)`, m/s²."""
    agents = leader.shape[1]
    speed, cos, sin = motion.speed_mps[:, :agents], motion.cos[:, :agents], motion.sin[:, :agents]
    closing = (motion.vx_mps[:, :agents] - motion.vx_mps.gather(1, leader)) * cos
    closing = closing + (motion.vy_mps[:, :agents] - motion.vy_mps.gather(1, leader)) * sin
    distance = motion.x_m.gather(1, leader) - motion.x_m[:, :agents]
    return idm_acceleration(speed, motion.desired_mps[:, :agents], exponent, closing, distance, drivers)


def follow_pairs(who: Tensor, leader: Tensor, exponent: Tensor, drivers: DriverParameters) -> Tensor:
    """The same for some agents `(7, k)` behind theirs; both are columns of `Motion`."""
    x, speed, _, _, _, _, desired = who
    return idm_acceleration(speed, desired, exponent, _closing(who, leader), leader[0] - x, drivers)


def _closing(who: Tensor, other: Tensor) -> Tensor:
    """Speed of `who` towards `other`, along its own heading, m/s."""
    return (who[4] - other[4]) * who[2] + (who[5] - other[5]) * who[3]


def steering_towards(scene: Scene, lanes: Lanes, target: Tensor) -> Tensor:
    """Steering angle that leads to the centre of `target`, rad (`ControlledVehicle.steering_control`)."""
    speed = not_zero(scene.speed_mps)
    # where the lane points a little further on
    lane_heading = lanes.heading(scene.x_m + scene.speed_mps * TAU_PURSUIT_S, target)
    lateral_speed = -1 / TAU_LATERAL_S * lanes.across(scene.x_m, scene.y_m, target)
    heading = asin((lateral_speed / speed).clamp(-1.0, 1.0)).clamp(-math.pi / 4, math.pi / 4)
    heading_rate = 1 / TAU_HEADING_S * wrap_to_pi(lane_heading + heading - scene.heading_rad)
    # highway-env clips at 1; from 0.66 on the steering is at its limit, and float32 gives tan(asin(1)) the wrong sign
    # (divided by hand: torch takes a number over a tensor as a product with the reciprocal, which rounds otherwise)
    slip = asin((torch.full_like(speed, HALF_LENGTH_M) / speed * heading_rate).clamp(-0.9, 0.9))
    return atan(2 * tan(slip)).clamp(-MAX_STEERING_RAD, MAX_STEERING_RAD)


def idm_actions(scene: Scene, motion: Motion, order: LaneOrder, target: Tensor, drivers: DriverParameters) -> Tensor:
    """IDM acceleration of every agent on its lane and, while it changes, on the one it changes to, m/s²."""
    acceleration = follow(motion, order.leaders(scene.lane), scene.exponent, drivers)
    episode, who = (scene.idm & (target != scene.lane)).nonzero(as_tuple=True)
    if len(who):
        leader = order.leader(episode, who, target[episode, who])
        exponent, theirs = scene.exponent[episode, who], drivers.of(episode, who)
        there = follow_pairs(motion.of(episode, who), motion.of(episode, leader), exponent, theirs)
        acceleration = acceleration.index_put((episode, who), torch.minimum(acceleration[episode, who], there))
    return acceleration.clamp(-MAX_ACCELERATION_MPS2, MAX_ACCELERATION_MPS2)


@torch.no_grad()
def choose_lanes(
    scene: Scene, motion: Motion, order: LaneOrder, lanes: Lanes, drivers: DriverParameters
) -> tuple[Tensor, Tensor]:
    """Target lanes and timers after everyone's decision (`IDMVehicle.change_lane_policy`).

    highway-env's cars decide one after the other, and whoever is changing lane gives up if a car ahead is bound for the
    same lane. Only there does the order of decisions matter: an earlier car's new target is seen, a later car's is not.
    """
    drives = scene.idm & ~scene.crashed
    onwards = scene.target_lane
    if not lanes.parallel:
        looks = drives | (scene.aims & ~scene.idm)
        onwards = torch.where(looks, lanes.onwards(scene.x_m, scene.target_lane), scene.target_lane)
    changing = drives & (onwards != scene.lane)
    due = drives & ~changing & (scene.timer_s > LANE_CHANGE_DELAY_S)
    timer = scene.timer_s.masked_fill(due, 0.0)
    target = onwards
    episode, who = due.nonzero(as_tuple=True)
    if len(who):
        wanted = _mobil(scene, motion, order, lanes, episode, who, drivers.of(episode, who))
        target = target.index_put((episode, who), wanted)
    if not lanes.parallel:
        changing &= lanes.edge.take(scene.lane) == lanes.edge.take(onwards)
    if bool(changing.any()):
        target = _give_up(scene, motion, target, changing, drivers)
    return target, timer


def _mobil(
    scene: Scene,
    motion: Motion,
    order: LaneOrder,
    lanes: Lanes,
    episode: Tensor,
    who: Tensor,
    drivers: DriverParameters,
) -> Tensor:
    """The lane `(k,)` that each car `who (k,)` now wants; of both sides the right one, if both are better.

    All accelerations, those of other cars too, are what IDM gives with the parameters of the car that asks.
    """
    here = scene.lane[episode, who]
    x, y, exponent = (values[episode, who] for values in (scene.x_m, scene.y_m, scene.exponent))
    mine = motion.of(episode, who)
    moves = mine[1].abs() >= LANE_CHANGE_MIN_SPEED_MPS
    vehicle = torch.nn.functional.pad(scene.vehicle, (0, 1), value=False)
    ahead = motion.of(episode, order.leader(episode, who, here))
    stay = follow_pairs(mine, ahead, exponent, drivers)
    if drivers.polite:
        behind = order.follower(episode, who, here)
        there, old = vehicle[episode, behind], motion.of(episode, behind)
        freed = follow_pairs(old, ahead, exponent, drivers).where(there, 0.0)
        held = follow_pairs(old, mine, exponent, drivers).where(there, 0.0)
    wanted = here
    for side in (lanes.left, lanes.right):
        beside = side[here]
        exists = beside != NO_LANE
        beside = torch.where(exists, beside, here)
        reachable = exists & moves & lanes.reachable(x, y, beside)
        leader = motion.of(episode, order.leader(episode, who, beside))
        go = follow_pairs(mine, leader, exponent, drivers)
        follower = order.follower(episode, who, beside)
        there, new = vehicle[episode, follower], motion.of(episode, follower)
        imposed = follow_pairs(new, mine, exponent, drivers)  # how hard must the new follower brake?
        safe = ~there | (imposed >= -drivers.most_imposed_mps2)
        gain = go - stay
        if drivers.polite:
            now = follow_pairs(new, leader, exponent, drivers).where(there, 0.0)
            gain = gain + drivers.politeness * (imposed.where(there, 0.0) - now + freed - held)
        wanted = torch.where(reachable & safe & (gain >= drivers.least_gain_mps2), beside, wanted)
    return wanted


def _give_up(scene: Scene, motion: Motion, target: Tensor, changing: Tensor, drivers: DriverParameters) -> Tensor:
    """Targets after the cars that are `changing` lane have looked who else is bound for theirs."""
    bound = scene.aims & ((scene.target_lane != scene.lane) | (target != scene.lane))
    episode, who, other = _pairs_within_episodes(changing, bound)
    wish = target[episode, who]
    mine, theirs = motion.of(episode, who), motion.of(episode, other)
    ahead = theirs[0] - mine[0]
    rival = (ahead > 0) & (ahead < desired_gap(mine[1], _closing(mine, theirs), drivers.of(episode, who)))
    rival &= scene.lane[episode, other] != wish
    episode, who, other, wish = (values[rival] for values in (episode, who, other, wish))
    earlier, before, here = other < who, scene.target_lane[episode, other], scene.lane[episode, who]
    after = target
    for _ in range(target.shape[1]):  # who gives up no longer stands in a later one's way: until nothing changes
        gives_up = torch.where(earlier, after[episode, other], before) == wish
        now = target.index_put((episode[gives_up], who[gives_up]), here[gives_up])
        if bool((now == after).all()):
            break
        after = now
    return after


def _pairs_within_episodes(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All pairs `(episode, one, other)` with one among `first` and another among `second`, bool `(episode, agent)`."""
    episode, one = first.nonzero(as_tuple=True)
    _, candidates = second.nonzero(as_tuple=True)
    count = second.sum(1)
    begin = (count.cumsum(0) - count)[episode]
    count = count[episode]
    repeated = torch.repeat_interleave(torch.arange(len(one), device=one.device), count)
    within = torch.arange(len(repeated), device=one.device) - (count.cumsum(0) - count)[repeated]
    other = candidates[begin[repeated] + within]
    episode, one = episode[repeated], one[repeated]
    differ = other != one
    return episode[differ], one[differ], other[differ]
