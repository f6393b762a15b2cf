"""A strong planner without learning: proposals rolled out with IDM for everybody, the best by a score is driven.

After PDM-Closed (Dauner et al. 2023, "Parting with Misconceptions about Learning-based Vehicle Motion Planning"), which
leads on nuPlan; here with lane changes among the proposals.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from drivecast.envs.behaviour.driver_parameters import DriverParameters
from drivecast.envs.behaviour.intents import observed_intents
from drivecast.envs.behaviour.laws import MOST_TURN_RAD, TAU_HEADING_S, TAU_LATERAL_S, free_acceleration, interaction
from drivecast.envs.drivers.idm import IDMConfig, IDMDriver
from drivecast.envs.drivers.lanes_beside import runs_beside, touches
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.contact import separation_m
from drivecast.worldmodel.scene.kinematics import MAX_ACCELERATION_MPS2, MAX_BRAKING_MPS2
from drivecast.worldmodel.scene.lane_neighbours import nearest_agents, single_lane
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState

NEARBY_M = 3.0  # boxes whose edges are farther apart, along or across, need no exact look
SIDES = ("keep", "left", "right")


@dataclass(frozen=True)
class RuleConfig:
    """What is proposed and how it is scored.

    Args:
        time_gaps_s: IDM's time gaps that are proposed, s.
        starts_s: When a lane change may begin, s from now.
        horizon_s: How far proposals are rolled out, s.
        rollout_dt_s: Time step of the rollout, s.
        decide_every_s: Time between two decisions, s.
        considered: So many vehicles, the nearest ones, take part.
        jam_gap_m: The ego's IDM: gap from bumper to bumper in a jam, m.
        acceleration_mps2: The ego's IDM: acceleration from standing, m/s^2.
        braking_mps2: The ego's IDM: comfortable braking, m/s^2 (positive).
        exponent: The ego's IDM: of the speed on a free road.
        margin_m: Room around the ego's box that counts as a contact, m.
        collision_cost: Of a contact at once; one at the horizon's end costs half of it.
        short_ttc_s: Times to collision below this are penalised, s.
        ttc_cost: Of being that short all the time.
        imposed_mps2: Braking that a lane change asks of a follower, beyond which it is penalised, m/s^2 (positive).
        imposed_cost: Per m/s^2 beyond, at the worst moment.
        comfort_cost: Per m/s^2 of the acceleration's root mean square.
        change_cost: Of a lane change, against dithering.
        progress_gain: Per m/s of mean speed, and as much for the speed at the end.
    """

    time_gaps_s: tuple[float, ...] = (0.4, 0.7, 1.0, 1.4, 2.0)
    starts_s: tuple[float, ...] = (0.0, 1.5)
    horizon_s: float = 8.0
    rollout_dt_s: float = 0.2
    decide_every_s: float = 0.5
    considered: int = 20
    jam_gap_m: float = 2.5
    acceleration_mps2: float = 3.0
    braking_mps2: float = 5.0
    exponent: float = 6.0
    margin_m: float = 0.3
    collision_cost: float = 40.0
    short_ttc_s: float = 1.5
    ttc_cost: float = 3.0
    imposed_mps2: float = 2.0
    imposed_cost: float = 2.0
    comfort_cost: float = 0.1
    change_cost: float = 0.1
    progress_gain: float = 0.5

    def __post_init__(self) -> None:
        if not self.time_gaps_s or not self.starts_s:
            raise InputError("rule.time_gaps_s, starts_s: expected at least one of each")
        for name in ("horizon_s", "rollout_dt_s", "decide_every_s", "considered"):
            if getattr(self, name) <= 0:
                raise InputError(f"rule.{name}: expected more than 0, got {getattr(self, name)}")


@dataclass(frozen=True)
class Proposals:
    """What may be driven, `(proposal,)` each: the same for all episodes.

    Attributes:
        side: Long, number in `SIDES`.
        time_gap_s: s.
        start_s: s.
    """

    side: Tensor
    time_gap_s: Tensor
    start_s: Tensor

    @staticmethod
    def of(time_gaps_s: tuple[float, ...], starts_s: tuple[float, ...], device: torch.device) -> Proposals:
        """Keeping the lane at each gap, and changing to either side at each gap and start."""
        keep = [(0, gap, 0.0) for gap in time_gaps_s]
        change = [(side, gap, start) for side in (1, 2) for start in starts_s for gap in time_gaps_s]
        side, gap, start = zip(*keep, *change, strict=True)
        values = (torch.tensor(each, device=device, dtype=torch.get_default_dtype()) for each in (gap, start))
        return Proposals(torch.tensor(side, device=device), *values)

    def __len__(self) -> int:
        return len(self.side)


@dataclass(frozen=True)
class LaneFrame:
    """A scene along the ego's lane, straightened: `along_m` on it, `across_m` to its left.

    Attributes: of the others `(batch, agent)`, of the ego `(batch,)`.
        along_m, speed_mps, length_m, width_m, valid: Of the others.
        across_m: Where they are, and `bound_m` where they are going across.
        leader: Long. The other ahead of each on the lane that it is bound for; itself: nobody.
        ego_across_m, ego_heading_rad, ego_speed_mps, ego_length_m, ego_width_m: Of the ego, whose along is 0.
        lanes_m: `(batch, 3)`. Centres of the lanes to keep, to the left and to the right; NaN: may not be driven.
    """

    along_m: Tensor
    across_m: Tensor
    bound_m: Tensor
    speed_mps: Tensor
    length_m: Tensor
    width_m: Tensor
    valid: Tensor
    leader: Tensor
    ego_across_m: Tensor
    ego_heading_rad: Tensor
    ego_speed_mps: Tensor
    ego_length_m: Tensor
    ego_width_m: Tensor
    lanes_m: Tensor

    @staticmethod
    def of(scene: TrafficState, road: Road, own: Tensor, sides: Tensor) -> LaneFrame:
        """Args: `scene (batch, agent)`, the ego first; its lane `own (batch,)`; `sides (batch, 2)`, or NO_LANE."""
        here = single_lane(road, own).project(scene.position_m)
        along = here.along_m - here.along_m[:, :1]
        ego_m = scene.position_m[:, :1]
        centres = [torch.zeros_like(along[:, 0])]
        for side in range(2):
            lane = sides[:, side]
            across = single_lane(road, lane).project(ego_m).across_m[:, 0]
            centre = here.across_m[:, 0] - across
            centres.append(torch.where(lane == NO_LANE, torch.nan, centre))
        intents = observed_intents(scene, road)
        # where each is going across: as far from its present place as its lane's centre is
        bound = here.across_m - road.project(scene.position_m, intents.lane).across_m
        ahead = along[:, None, :] - along[:, :, None]  # (batch, who, whom)
        same = (intents.lane[:, None, :] == intents.lane[:, :, None]) & scene.valid[:, None, :] & (ahead > 0)
        same[:, :, 0] = False
        distance, leader = torch.where(same, ahead, torch.inf).min(-1)
        myself = torch.arange(along.shape[1], device=along.device).expand_as(leader)
        leader = torch.where(distance.isinf(), myself, leader)
        return LaneFrame(
            along[:, 1:],
            here.across_m[:, 1:],
            bound[:, 1:],
            scene.speed_mps[:, 1:],
            scene.length_m[:, 1:],
            scene.width_m[:, 1:],
            scene.valid[:, 1:],
            leader[:, 1:] - 1,
            here.across_m[:, 0],
            (scene.heading_rad - here.heading_rad)[:, 0],
            scene.speed_mps[:, 0],
            scene.length_m[:, 0],
            scene.width_m[:, 0],
            torch.stack(centres, 1),
        )

    def repeated(self, count: int) -> LaneFrame:
        """Each episode `count` times, side by side."""
        return LaneFrame(**{f.name: getattr(self, f.name).repeat_interleave(count, 0) for f in fields(self)})


class RuleDriver:
    """Proposes {keep, left, right} x time gaps x starts, rolls each out with IDM for everybody, drives the best.

    The rollout is along the ego's lane, straightened. The others keep the lane that they are bound for, behind their
    leader or the ego where it is in their way, and wish to go on at their present speed. The ego follows by IDM with
    the proposal's time gap, on the lane that it leaves and the one that it goes to. A score adds up contacts (exact
    boxes), progress, time to collision, braking imposed on followers and comfort. Between two decisions the chosen
    proposal is driven on by the same laws.

    Args:
        config: Proposals and score.
        dt_s: Time between two calls, s.
    """

    name = "rule"
    history_steps = 1

    def __init__(self, config: RuleConfig | None = None, dt_s: float = 0.1) -> None:
        self.config, self.dt_s = config or RuleConfig(), dt_s
        idm = {"jam_gap_m", "acceleration_mps2", "braking_mps2", "exponent"}
        given: dict[str, Any] = {name: getattr(self.config, name) for name in idm}
        self._follow = IDMDriver(IDMConfig(change_lanes=False, yields=False, dt_s=dt_s, **given))

    @property
    def chosen_lane(self) -> Tensor:
        """The lane that each ego steers for, `(batch,)`."""
        return self._follow.chosen_lane

    def reset(self, scene: TrafficState, road: Road, goal: Goal) -> None:
        self._follow.reset(scene, road, goal)
        self._steps = 0
        device = scene.valid.device
        self._proposals = Proposals.of(self.config.time_gaps_s, self.config.starts_s, device)
        self._lane, self._starts_in_s = self._follow.chosen_lane, torch.zeros_like(scene.speed_mps[:, 0])
        self._gap_s = torch.full_like(self._starts_in_s, 1.5)

    @torch.no_grad()
    def act(self, history: TrafficState, road: Road, goal: Goal) -> Controls:
        scene = nearest_agents(history[:, -1], self.config.considered)
        own = road.project(scene.position_m[:, :1]).lane[:, 0]
        if self._steps % max(1, round(self.config.decide_every_s / self.dt_s)) == 0:
            self._decide(scene, road, goal, own)
        self._steps += 1
        going = self._starts_in_s <= 1e-6
        self._follow.steer_for(torch.where(going, self._lane, own), self._gap_s)
        self._starts_in_s = (self._starts_in_s - self.dt_s).clamp_min(0.0)
        return self._follow.act(history[:, -1:], road, goal)

    def _decide(self, scene: TrafficState, road: Road, goal: Goal, own: Tensor) -> None:
        sides = self._sides(scene, road, own)
        frame = LaneFrame.of(scene, road, own, sides)
        limit = road.speed_limit(own[:, None])[:, 0]
        wish = torch.minimum(goal.desired_speed_mps, torch.where(limit > 0, limit, torch.inf)).clamp_min(1.0)
        best = self._scores(frame, wish).argmax(1)
        proposals = self._proposals
        side, lanes = proposals.side[best], torch.cat([own[:, None], sides], 1)
        self._lane = lanes.gather(1, side[:, None])[:, 0]
        self._gap_s, self._starts_in_s = proposals.time_gap_s[best], proposals.start_s[best]

    @staticmethod
    def _sides(scene: TrafficState, road: Road, own: Tensor) -> Tensor:
        """The lanes to the left and to the right that may be driven, `(batch, 2)`."""
        sides = []
        for side in ("left", "right"):
            lane = road.neighbour(own[:, None], side)[:, 0]
            there = (lane != NO_LANE) & runs_beside(scene, road, lane) & touches(scene, road, lane, own)
            sides.append(torch.where(there, lane, NO_LANE))
        return torch.stack(sides, 1)

    def _scores(self, frame: LaneFrame, wish_mps: Tensor) -> Tensor:
        """`(batch, proposal)`: the more, the better; minus infinity where a lane is not there."""
        config, proposals, count = self.config, self._proposals, len(self._proposals)
        batch = len(wish_mps)
        there = frame.lanes_m[:, proposals.side]  # (batch, proposal)
        possible = ~there.isnan()
        target = torch.where(possible, there, 0.0).flatten()
        rollout = Rollout(
            config,
            frame.repeated(count),
            target,
            proposals.time_gap_s.repeat(batch),
            proposals.start_s.repeat(batch),
            wish_mps.repeat_interleave(count),
        )
        score = rollout.run().view(batch, count) - config.change_cost * (proposals.side != 0)
        return score.masked_fill(~possible, -torch.inf)


class Rollout:
    """One row per proposal and episode, `(row,)`, rolled out and scored.

    Args:
        config: Step, horizon and score.
        frame: Where everybody is.
        target_m: Across, of the lane that the ego goes to.
        time_gap_s: The ego's.
        start_s: When it sets out for the target.
        wish_mps: Speed that it wants.
    """

    def __init__(
        self,
        config: RuleConfig,
        frame: LaneFrame,
        target_m: Tensor,
        time_gap_s: Tensor,
        start_s: Tensor,
        wish_mps: Tensor,
    ) -> None:
        self.config, self.frame, self.target_m, self.start_s, self.wish_mps = config, frame, target_m, start_s, wish_mps
        self.ego_drivers = DriverParameters(
            time_gap_s=time_gap_s,
            jam_distance_m=config.jam_gap_m,  # its distances are from bumper to bumper
            comfort_acceleration_mps2=config.acceleration_mps2,
            comfort_braking_mps2=config.braking_mps2,
        )
        self.others = DriverParameters()
        self.leader = frame.leader
        self.has_leader = frame.leader != torch.arange(frame.leader.shape[1], device=frame.leader.device)

    def run(self) -> Tensor:
        """The score of each row."""
        config, frame = self.config, self.frame
        steps, dt = round(config.horizon_s / config.rollout_dt_s), config.rollout_dt_s
        x, y, speed = frame.along_m, frame.across_m, frame.speed_mps
        ego_x, ego_y = torch.zeros_like(frame.ego_across_m), frame.ego_across_m
        ego_heading, ego_speed = frame.ego_heading_rad, frame.ego_speed_mps
        changes = self.target_m != 0  # who follows on the ego's own lane has chosen its gap
        contact_at = torch.full_like(ego_x, torch.inf)
        short, imposed, squared = (torch.zeros_like(ego_x) for _ in range(3))
        for step in range(steps):
            goes = step * dt >= self.start_s - 1e-6
            aim = torch.where(goes, self.target_m, 0.0)
            ego_a, ttc = self._ego(x, y, speed, ego_x, ego_y, ego_speed, aim)
            others_a, braking = self._others(x, y, speed, ego_x, ego_y, ego_speed, aim)
            across_mps = ((aim - ego_y) / TAU_LATERAL_S / ego_speed.clamp_min(1.0)).clamp(-1.0, 1.0)
            wanted = torch.asin(across_mps).clamp(-MOST_TURN_RAD, MOST_TURN_RAD)
            ego_heading = ego_heading + (wanted - ego_heading) * min(1.0, dt / TAU_HEADING_S)
            ego_x = ego_x + ego_speed * ego_heading.cos() * dt
            ego_y = ego_y + ego_speed * ego_heading.sin() * dt
            ego_speed = (ego_speed + ego_a * dt).clamp_min(0.0)
            x = x + speed * dt
            y = y + (frame.bound_m - y) * (dt / (TAU_LATERAL_S + TAU_HEADING_S))
            speed = (speed + others_a * dt).clamp_min(0.0)
            touching = self._contact(x, y, ego_x, ego_y, ego_heading)
            contact_at = torch.where(touching & contact_at.isinf(), (step + 1) * dt, contact_at)
            before = contact_at.isinf()  # what comes after a contact counts no more
            short = short + (ttc < config.short_ttc_s) * before
            imposed = torch.where(before, imposed.maximum(braking), imposed)
            squared = squared + ego_a.square()
        crash = torch.where(contact_at.isinf(), 0.0, 1.0 - 0.5 * contact_at / config.horizon_s)
        return (
            config.progress_gain * (ego_x / config.horizon_s + ego_speed)
            - config.collision_cost * crash
            - config.ttc_cost * short / steps
            - config.imposed_cost * (imposed - config.imposed_mps2).clamp_min(0.0) * changes
            - config.comfort_cost * (squared / steps).sqrt()
        )

    def _ego(
        self, x: Tensor, y: Tensor, speed: Tensor, ego_x: Tensor, ego_y: Tensor, ego_speed: Tensor, aim: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The ego's IDM acceleration behind who is in its way, and its time to collision with them, `(row,)`."""
        frame = self.frame
        gap = x - ego_x[:, None] - (frame.length_m + frame.ego_length_m[:, None]) / 2
        ahead = frame.valid & (x > ego_x[:, None]) & self._in_the_way(y, ego_y, aim)
        gap = torch.where(ahead, gap, torch.inf)
        nearest, who = gap.min(1)
        leader_speed = speed.gather(1, who[:, None])[:, 0]
        closing = ego_speed - leader_speed
        free = free_acceleration(ego_speed, self.wish_mps, self.config.exponent, self.ego_drivers)
        acceleration = free - interaction(ego_speed, closing, nearest.clamp_min(0.1), self.ego_drivers)
        ttc = torch.where(closing > 0.1, nearest.clamp_min(0.0) / closing.clamp_min(0.1), torch.inf)
        return acceleration.clamp(-MAX_BRAKING_MPS2, MAX_ACCELERATION_MPS2), ttc

    def _in_the_way(self, y: Tensor, ego_y: Tensor, aim: Tensor) -> Tensor:
        """Bool `(row, agent)`: overlaps across, with some room, what the ego sweeps on its way to `aim`."""
        frame = self.frame
        room = (frame.width_m + frame.ego_width_m[:, None]) / 2 + 0.4
        low, high = torch.minimum(ego_y, aim)[:, None], torch.maximum(ego_y, aim)[:, None]
        here = (y > low - room) & (y < high + room)
        return here | ((frame.bound_m > low - room) & (frame.bound_m < high + room))

    def _others(
        self, x: Tensor, y: Tensor, speed: Tensor, ego_x: Tensor, ego_y: Tensor, ego_speed: Tensor, aim: Tensor
    ) -> tuple[Tensor, Tensor]:
        """IDM accelerations of the others `(row, agent)`; the hardest braking that the ego imposes `(row,)`, > 0."""
        frame = self.frame
        # highway-env's jam distance is from centre to centre of two cars of 5 m
        longer = (frame.length_m + frame.length_m.gather(1, self.leader)) / 2 - 5.0
        leader_x = torch.where(self.has_leader, x.gather(1, self.leader) - longer, torch.inf)
        leader_speed = speed.gather(1, self.leader)
        free = free_acceleration(speed, frame.speed_mps.clamp_min(1.0), 4.0, self.others)
        by_leader = interaction(speed, speed - leader_speed, (leader_x - x).clamp_min(0.1), self.others)
        behind = frame.valid & (ego_x[:, None] > x) & self._in_the_way(y, ego_y, aim)
        longer = (frame.length_m + frame.ego_length_m[:, None]) / 2 - 5.0
        distance = torch.where(behind, ego_x[:, None] - x - longer, torch.inf).clamp_min(0.1)
        by_ego = interaction(speed, speed - ego_speed[:, None], distance, self.others)
        acceleration = (free - torch.maximum(by_leader, by_ego)).clamp(-6.0, 6.0)
        nearest = distance.amin(1, keepdim=True)
        imposed = torch.where(distance == nearest, (by_ego - free).clamp(0.0, 8.0), 0.0).amax(1)
        return acceleration, torch.where(nearest[:, 0].isinf(), 0.0, imposed)

    def _contact(self, x: Tensor, y: Tensor, ego_x: Tensor, ego_y: Tensor, ego_heading: Tensor) -> Tensor:
        """Bool `(row,)`: the ego's box, with its margin, overlaps another's; looked at exactly where they are near."""
        frame = self.frame
        apart_x = (x - ego_x[:, None]).abs() - (frame.length_m + frame.ego_length_m[:, None]) / 2
        apart_y = (y - ego_y[:, None]).abs() - (frame.width_m + frame.ego_width_m[:, None]) / 2
        row, agent = ((apart_x < NEARBY_M) & (apart_y < NEARBY_M / 2) & frame.valid).nonzero(as_tuple=True)
        touching = torch.zeros_like(ego_x, dtype=torch.bool)
        if len(row):
            nothing, true = torch.zeros_like(ego_x[row]), torch.ones_like(row, dtype=torch.bool)

            def box(along: Tensor, across: Tensor, heading: Tensor, length: Tensor, width: Tensor) -> TrafficState:
                place = torch.stack([along, across], -1)
                return TrafficState(place, heading, nothing, length, width, true)

            ego = box(ego_x[row], ego_y[row], ego_heading[row], frame.ego_length_m[row], frame.ego_width_m[row])
            length, width = frame.length_m[row, agent], frame.width_m[row, agent]
            other = box(x[row, agent], y[row, agent], nothing, length, width)
            near = separation_m(ego, other) < self.config.margin_m
            touching[row[near]] = True
        return touching
