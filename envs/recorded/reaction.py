"""Recorded vehicles that react: along their recorded paths, with the longitudinal motion of fitted IDM."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from drivecast.envs.behaviour.fitted_drivers import DriverTraits, idm_acceleration
from drivecast.envs.recorded.paths import RecordedPaths
from drivecast.worldmodel.scene.kinematics import MAX_BRAKING_MPS2
from drivecast.worldmodel.scene.traffic import TrafficState

SEEN_M = 80.0  # how far ahead a leader is looked for
BESIDE_M = 6.0  # who is further aside is nobody's leader yet
SIDE_GAP_M = 0.2  # boxes this near each other across the road are in each other's way
AT_ONCE_S = 0.5  # who will be in each other's way as soon as this is so now
FORESEEN_S = (1.0, 2.0, 3.0)  # moments at which it is looked whether two paths will be in each other's way
MARGIN_M = 0.5  # of the gap that is left when braking as hard as is needed
MOST_DRIFT_S = 1.0  # how long the ego is expected to go on moving sideways
ENTRY_GAP_M = 1.0  # room that who enters must find ahead and behind
FIRM_MPS2 = 2.0  # braking that nobody who follows attentively is in need of (highway-env's MOBIL imposes no more)
ABREAST_MPS2 = 4.0  # least braking of who is beside somebody in whose way it is
PASSES = 3  # in which the news of hard braking runs up a queue within one step


@dataclass(frozen=True)
class Situation:
    """What a step starts from, `(batch, slot)` each but the last; slot 0 is the ego."""

    state: TrafficState
    vehicle: Tensor  # long: number of the path
    driven_m: Tensor  # distance along it
    along_m: Tensor  # place along the axis; the ego's own, not its path's
    across_m: Tensor
    sideways_mps: Tensor  # of the ego across the axis; 0 for the others, whose paths are known
    braking_mps2: Tensor  # of the ego and of recorded vehicles, from now to the next state
    present: Tensor  # bool
    waiting: Tensor  # bool: wants to come into the recorded range
    reacts: Tensor  # bool: driven by IDM already
    ego_moved: Tensor  # bool (batch,): the ego does not do what the human did


@dataclass(frozen=True)
class Decision:
    """What everybody would do by IDM, `(batch, slot)`."""

    acceleration_mps2: Tensor
    reacts: Tensor  # bool: driven by IDM from now on
    enters: Tensor  # bool: finds room to enter


class Reaction:
    """Decides for all vehicles of a batch at once.

    **Leader**: the nearest vehicle ahead whose box is in the way of one's own recorded path, now or within 0.5 s; or,
    as far as both paths are known, in 1 to 3 s (a lane change to come: for that it brakes with at most `FIRM_MPS2`).
    **Acceleration**: fitted IDM. IDM does not see its leader's braking, and measured from centre to centre as in
    highway-env it is weak in the last metres; so whoever needs more than comfortable braking to stay behind brakes at
    least that much: b_need = v^2 / (2 (gap + v_l^2 / (2 b_l))) behind a leader that brakes with b_l to a stop before
    they would meet, b_l + (v - v_l)^2 / (2 gap) otherwise.
    Who is still beside the one it gives way to goes on braking (2 m/s^2, or 4 if they meet within 0.5 s).
    **Hand-over** (yielding): a recorded vehicle whose leader is the ego where no human was, or a vehicle that was
    handed over before, and whose b_need exceeds `FIRM_MPS2`. Behind a human ego nobody is handed over: the
    ego is where the recording has it, and the recorded driver knew that.
    """

    def __init__(self, paths: RecordedPaths, traits: DriverTraits, hands_over: bool) -> None:
        self.paths, self.traits, self.hands_over = paths, traits, hands_over

    def decide(self, now: Situation) -> Decision:
        """The decision of everybody present or waiting to enter."""
        considered = now.present | now.waiting
        # nearest behind first; nobody is far ahead
        place = torch.where(considered, now.along_m, torch.inf)
        order = place.argsort(1)[:, : max(1, int(considered.sum(1).max()))]
        traffic = _Ordered(self, now, order)
        leader, gap, soon, soon_gap = traffic.leaders()
        speed, traits = traffic.speed, traffic.traits
        comfortable = traits.braking_mps2

        def of_leader(values: Tensor, index: Tensor) -> Tensor:
            return values.gather(1, index.clamp_min(0))

        nobody, none_soon = leader < 0, soon < 0
        lead_mps = of_leader(speed, leader)
        lengths = traffic.half_length + of_leader(traffic.half_length, leader)
        follow = idm_acceleration(traits, speed, torch.where(nobody, 0.0, speed - lead_mps), gap, lengths)
        soon_mps = of_leader(speed, soon)
        lengths = traffic.half_length + of_leader(traffic.half_length, soon)
        give_way = idm_acceleration(traits, speed, torch.where(none_soon, 0.0, speed - soon_mps), soon_gap, lengths)
        # beside somebody IDM would ease off as soon as the other is faster, long before it has fallen back
        give_way = torch.where(soon_gap <= 0, -FIRM_MPS2, give_way.clamp_min(-FIRM_MPS2))
        follow = torch.where(gap <= 0, follow.clamp_max(-ABREAST_MPS2), follow)
        wanted = torch.minimum(follow, give_way)

        reacts = traffic.pick(now.reacts)
        moved_ego = (order == 0) & now.ego_moved[:, None]
        closing_in = needed_braking(speed, soon_mps, torch.zeros_like(speed), soon_gap)
        may = traffic.pick(now.present) & (order > 0)
        recorded_braking = traffic.pick(now.braking_mps2)
        acceleration = wanted
        for _ in range(PASSES):
            braking = torch.where(reacts, (-acceleration).clamp_min(0.0), recorded_braking)
            needed = needed_braking(speed, lead_mps, of_leader(braking, leader), gap).masked_fill(nobody, 0.0)
            acceleration = torch.where(needed > comfortable, torch.minimum(wanted, -needed), wanted)
            acceleration = acceleration.clamp(-MAX_BRAKING_MPS2, MAX_BRAKING_MPS2)
            if self.hands_over:
                new = reacts | moved_ego  # where the recording no longer holds
                heeds = of_leader(new, leader) & ~nobody & (needed > FIRM_MPS2)
                heeds |= of_leader(new, soon) & ~none_soon & (closing_in > FIRM_MPS2)
                reacts = reacts | (heeds & may)
        enters = torch.zeros_like(reacts)
        if bool(now.waiting.any()):
            room = (gap > ENTRY_GAP_M) & (needed <= comfortable) & (follow >= -comfortable)
            enters = traffic.pick(now.waiting) & room & ~traffic.in_the_way()
        return Decision(
            torch.zeros_like(now.along_m).scatter(1, order, acceleration),
            now.reacts.scatter(1, order, reacts),
            torch.zeros_like(now.reacts).scatter(1, order, enters),
        )


def needed_braking(speed_mps: Tensor, leader_mps: Tensor, leader_braking_mps2: Tensor, gap_m: Tensor) -> Tensor:
    """Constant braking that keeps `MARGIN_M` from a leader, m/s²; 0 behind nobody (an infinite gap)."""
    gap = (gap_m - MARGIN_M).clamp_min(0.05)
    closing = (speed_mps - leader_mps).clamp_min(0.0)
    brakes = leader_braking_mps2.clamp_min(1e-3)
    to_stop = speed_mps.square() / (2 * (gap + leader_mps.square() / (2 * brakes)))
    meanwhile = leader_braking_mps2 + closing.square() / (2 * gap)
    meet_s = torch.where(closing > 0, 2 * gap / closing.clamp_min(1e-6), torch.inf)
    return torch.where(meet_s < leader_mps / brakes, meanwhile, to_stop)


class _Ordered:
    """The vehicles of each episode from the hindmost to the foremost, `(batch, place)`, and who is in whose way."""

    def __init__(self, reaction: Reaction, now: Situation, order: Tensor) -> None:
        self.order, self.now, self.paths = order, now, reaction.paths
        self.speed = self.pick(now.state.speed_mps)
        self.half_length = self.pick(now.state.length_m) / 2
        self.vehicle = self.pick(now.vehicle)
        self.traits = DriverTraits(*(values[self.vehicle] for values in reaction.traits.values()))
        self.present, self.waiting = self.pick(now.present), self.pick(now.waiting)
        self._find_pairs()

    def pick(self, values: Tensor) -> Tensor:
        return values.gather(1, self.order)

    def _find_pairs(self) -> None:
        """Pairs of one behind and another ahead of it that may come into its way; `(pair,)` each."""
        along, across = self.pick(self.now.along_m), self.pick(self.now.across_m)
        there, ego = self.present | self.waiting, self.order == 0
        count = self.order.shape[1]
        ahead = torch.ones(count, count, dtype=torch.bool, device=along.device).triu(1)
        close = (along[:, None] - along[:, :, None] < SEEN_M) & ahead
        close &= (across[:, None] - across[:, :, None]).abs() < BESIDE_M
        close &= there[:, None] & there[:, :, None]
        self.episode, self.behind, self.ahead = close.nonzero(as_tuple=True)
        one, other = self.episode * count + self.behind, self.episode * count + self.ahead

        def flat(values: Tensor, index: Tensor) -> Tensor:
            return values.flatten()[index]

        half_width = self.pick(self.now.state.width_m) / 2
        width = flat(half_width, one) + flat(half_width, other) + SIDE_GAP_M
        reach = flat(self.half_length, one) + flat(self.half_length, other)
        here, place = flat(along, one), flat(along, other)
        self.gap = place - here - reach
        mine, theirs = flat(self.vehicle, one), flat(self.vehicle, other)
        aside, theirs_is_ego, mine_is_ego = flat(across, other), flat(ego, other), flat(ego, one)

        def own_offset(at_m: Tensor) -> Tensor:
            """Offset of the one behind at a place ahead; who drives the ego is expected to keep its own."""
            offset = self.paths.across_at(mine, torch.maximum(at_m, here))
            return torch.where(mine_is_ego, flat(across, one), offset)

        # beside each other the place of the one behind counts, and it is known exactly
        beside = torch.where(self.gap <= 0, flat(across, one), own_offset(place - reach))
        self.in_way = (beside - aside).abs() < width
        self.in_way |= (own_offset(place) - aside).abs() < width
        speed, sideways = flat(self.speed, other), flat(self.pick(self.now.sideways_mps), other)

        def meets(later_s: float) -> Tensor:
            then = place + speed * later_s
            drifted = aside + sideways * min(later_s, MOST_DRIFT_S)
            offset = torch.where(theirs_is_ego, drifted, self.paths.across_at(theirs, then))
            return (own_offset(then) - offset).abs() < width

        self.in_way |= meets(AT_ONCE_S)
        self.soon_in_way = torch.stack([meets(later_s) for later_s in FORESEEN_S]).any(0)
        slot_one, slot_other = flat(self.order, one), flat(self.order, other)
        self.earlier_ahead = flat(self.waiting, one) & (slot_other < slot_one)
        self.one, self.other = one, other
        self.earlier_behind = flat(self.waiting, other) & (slot_one < slot_other)
        self.ahead_present, self.behind_present = flat(self.present, other), flat(self.present, one)

    def leaders(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Place in the order of the leader now and of the one soon, -1 for none, each with the gap to it (inf)."""
        counts = self.ahead_present | self.earlier_ahead
        found: list[Tensor] = []
        for way in (self.in_way & counts, self.soon_in_way & ~self.in_way & counts):
            count = self.order.shape[1]
            first = torch.full((self.order.numel(),), count, device=self.order.device)
            first = first.scatter_reduce(0, self.one[way], self.ahead[way], "amin").view_as(self.order)
            chosen = self.ahead[way] == first.flatten()[self.one[way]]
            gap = torch.full_like(self.speed, torch.inf).flatten()
            gap = gap.scatter(0, self.one[way][chosen], self.gap[way][chosen]).view_as(self.speed)
            found += [torch.where(first == count, -1, first), gap]
        return found[0], found[1], found[2], found[3]

    def in_the_way(self) -> Tensor:
        """Bool `(batch, place)`: entering, it would leave somebody behind it no room."""
        counts = (self.behind_present | self.earlier_behind) & (self.in_way | self.soon_in_way)
        speed, comfortable = self.speed.flatten(), self.traits.braking_mps2.flatten()
        closing = (speed[self.one] - speed[self.other]).clamp_min(0.0)
        needed = closing.square() / (2 * (self.gap - MARGIN_M).clamp_min(0.05))
        crowded = counts & ((self.gap < ENTRY_GAP_M) | (needed > comfortable[self.one]))
        found = torch.zeros(self.order.numel(), dtype=torch.bool, device=self.order.device)
        found[self.other[crowded]] = True
        return found.view_as(self.order)


def advance(state: TrafficState, driven_m: Tensor, acceleration_mps2: Tensor, dt_s: float) -> tuple[Tensor, Tensor]:
    """Distance along the path and speed after `dt_s`, never backwards."""
    speed = state.speed_mps
    after = (speed + acceleration_mps2 * dt_s).clamp_min(0.0)
    return driven_m + (speed + after) / 2 * dt_s, after


def placed(state: TrafficState, paths: RecordedPaths, vehicle: Tensor, driven_m: Tensor, speed: Tensor) -> TrafficState:
    """`state` with everybody on its path."""
    point = paths.at(vehicle, driven_m)
    return replace(
        state,
        position_m=torch.stack([point.x_m, point.y_m], -1),
        heading_rad=point.heading_rad,
        speed_mps=speed,
    )
