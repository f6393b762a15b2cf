"""A strong planner without learning: proposals rolled out with IDM for everybody, the best by a score is driven.

After PDM-Closed (Dauner et al. 2023, "Parting with Misconceptions about Learning-based Vehicle Motion Planning"), which
leads on nuPlan; here with lane changes among the proposals.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from drivecast.envs.drivers.idm import IDMConfig, IDMDriver
from drivecast.envs.drivers.lane_frame import LaneFrame
from drivecast.envs.drivers.proposals import Proposals, RuleConfig
from drivecast.envs.drivers.rule_rollout import Rollout
from drivecast.worldmodel.rules.in_the_way import in_the_way
from drivecast.worldmodel.rules.lanes_beside import runs_beside, touches
from drivecast.worldmodel.scene.lane_neighbours import LaneNeighbours, nearest_agents
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState


class RuleDriver:
    """Proposes {keep, left, right} x time gaps x starts or offsets, rolls each out with IDM for all, drives the best.

    The rollout is along the ego's lane, straightened. The others keep the lane that they are bound for, behind their
    leader or the ego where it is in their way, and wish to go on at their present speed. The ego follows by IDM with
    the proposal's time gap, on the lane that it leaves and the one that it goes to. A score adds up contacts (exact
    boxes), progress, time to collision, braking imposed on followers and comfort. Between two decisions the chosen
    proposal is driven on by the same laws.

    Args:
        config: Proposals and score.
        dt_s: Time between two calls, s.
        most_mps2: Acceleration and braking are held within this, m/s².
    """

    name = "rule"
    history_steps = 1

    def __init__(
        self, config: RuleConfig | None = None, dt_s: float = 0.1, most_mps2: float = IDMConfig.most_mps2
    ) -> None:
        self.config, self.dt_s = config or RuleConfig(), dt_s
        idm = {"jam_gap_m", "acceleration_mps2", "braking_mps2", "exponent"}
        given: dict[str, Any] = {name: getattr(self.config, name) for name in idm}
        self._follow = IDMDriver(
            IDMConfig(change_lanes=False, yields=False, dt_s=dt_s, most_mps2=most_mps2, **given),
            neighbours=self._in_the_way,
        )

    @property
    def chosen_lane(self) -> Tensor:
        """The lane that each ego steers for, `(batch,)`."""
        return self._follow.chosen_lane

    def reset(self, scene: TrafficState, road: Road, goal: Goal) -> None:
        self._follow.reset(scene, road, goal)
        self._steps = 0
        device = scene.valid.device
        self._proposals = Proposals.of(self.config, device)
        self._lane, self._starts_in_s = self._follow.chosen_lane, torch.zeros_like(scene.speed_mps[:, 0])
        self._gap_s, self._offset_m = torch.full_like(self._starts_in_s, 1.5), torch.zeros_like(self._starts_in_s)

    @torch.no_grad()
    def act(self, history: TrafficState, road: Road, goal: Goal) -> Controls:
        scene = nearest_agents(history[:, -1], self.config.considered)
        own = road.project(scene.position_m[:, :1]).lane[:, 0]
        if self._steps % max(1, round(self.config.decide_every_s / self.dt_s)) == 0:
            self._decide(scene, road, goal, own)
        self._steps += 1
        going = self._starts_in_s <= 1e-6
        self._follow.steer_for(torch.where(going, self._lane, own), self._gap_s, self._offset_m)
        self._starts_in_s = (self._starts_in_s - self.dt_s).clamp_min(0.0)
        return self._follow.act(history[:, -1:], road, goal)

    def _in_the_way(self, scene: TrafficState, road: Road, lane: Tensor) -> LaneNeighbours:
        return in_the_way(scene, road, lane, self._offset_m)

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
        self._offset_m = proposals.offset_m[best]

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
        target = torch.where(possible, there + proposals.offset_m, 0.0).flatten()
        changes = proposals.side != 0
        rollout = Rollout(
            config,
            frame.repeated(count),
            target,
            changes.repeat(batch),
            proposals.time_gap_s.repeat(batch),
            proposals.start_s.repeat(batch),
            wish_mps.repeat_interleave(count),
        )
        score = rollout.run().view(batch, count) - config.change_cost * changes
        score = score - config.offset_cost * proposals.offset_m.abs()
        return score.masked_fill(~possible, -torch.inf)
