"""The policy: from what the ego sees to its controls, in one pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from drivecast.planner.manoeuvres.manoeuvre import Law, LawConfig, keeping, with_added
from drivecast.planner.policy.lane_energy import LaneEnergy
from drivecast.worldmodel.scene.kinematics import TURN_AT_LEAST_MPS, lateral_acceleration, steering_for
from drivecast.worldmodel.scene.neighbours import FEATURES_PER_SLOT, SLOTS, find_neighbours
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState

OWN_FEATURES = 15
BEFORE_IT_WAS_SAID = {"sees_markings": True}  # of policies older than this setting


@dataclass(frozen=True)
class PolicyConfig:
    """Architecture and limits of the policy.

    Args:
        hidden: Width of its two layers.
        max_acceleration_mps2: Strongest acceleration, in m/s²; nuPlan's limit of comfort is 2.4.
        max_braking_mps2: Strongest deceleration, in m/s².
        max_lateral_mps2: Largest lateral acceleration that it steers for, in m/s².
        dt_s: Time step in seconds.
        sees_markings: Sees how far it is from the centre of the nearest lane, too, which jumps at a marking. While it
            keeps a lane that is the same as the distance from the goal's lane, and a policy that steers by it hangs
            on the marking when it is to change lane. Policies of before did.
        feedback: `laws`: the network adds to what the planner's laws do on the goal's lane (IDM along the road, an
            oscillator across it), up to `most_added_mps2`; `none`: it does all itself.
        law: These laws. Their limits hold, and not those above.
        time_gap_s: The laws' time gap, s.
        most_added_mps2: Most that is added, along and across, m/s².
        lane_hidden: Width of the network that foretells what a planner's search would find each lane to cost; 0: there
            is none (`drivecast distil-planner` adds it).
        lane_every_s: Time between two choices of a lane by it, s.
        lane_imposed_mps2: It goes for no lane whose next behind would have to brake harder, m/s².
    """

    hidden: int = 128
    max_acceleration_mps2: float = 2.4
    max_braking_mps2: float = 6.0
    max_lateral_mps2: float = 3.0
    dt_s: float = 0.1
    sees_markings: bool = False
    feedback: Literal["none", "laws"] = "none"
    law: LawConfig = field(default_factory=LawConfig)
    time_gap_s: float = 0.3
    most_added_mps2: float = 2.0
    lane_hidden: int = 0
    lane_every_s: float = 0.5
    lane_imposed_mps2: float = 1.0

    def __post_init__(self) -> None:
        for name in (
            "hidden",
            "max_acceleration_mps2",
            "max_braking_mps2",
            "max_lateral_mps2",
            "dt_s",
            "most_added_mps2",
            "lane_every_s",
        ):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        if self.lane_hidden < 0 or self.time_gap_s < 0:
            raise ValueError("lane_hidden and time_gap_s must not be negative")


def limited_lateral(steering_rad: Tensor, speed_mps: Tensor, length_m: Tensor) -> Tensor:
    """The lateral acceleration that `max_lateral_mps2` limits, m/s², left positive: below 5 m/s as if at 5 m/s."""
    return lateral_acceleration(steering_rad, speed_mps.clamp_min(TURN_AT_LEAST_MPS), length_m)


class Policy(nn.Module):
    """Deterministic policy on the ego's lane-relative state, its goal and its directional neighbours.

    Attributes:
        lanes: Chooses lanes, where it has learned to.
    """

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.config = config
        inputs = OWN_FEATURES + len(SLOTS) * (FEATURES_PER_SLOT + 1)
        self.net = nn.Sequential(
            nn.Linear(inputs, config.hidden),
            nn.SiLU(),  # smooth, so that the gradient through a long unroll is too
            nn.Linear(config.hidden, config.hidden),
            nn.SiLU(),
            nn.Linear(config.hidden, 2),
        )
        last = self.net[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)  # an untrained policy keeps its speed and its heading, or to the laws
        nn.init.zeros_(last.bias)
        self.lanes = LaneEnergy(config.lane_hidden, config.lane_imposed_mps2) if config.lane_hidden else None

    def forward(self, scene: TrafficState, before: TrafficState, road: Road, goal: Goal) -> Controls:
        """Controls `(batch,)` in `scene (batch, agent)`; `before` is one step ago (the same at a start)."""
        config = self.config
        raw = self.net(self._features(scene, before, road, goal))
        # bounded as tanh is, but its slope falls with the cube of `raw`, not exponentially: saturation can be unlearned
        bounded = raw * (1.0 + raw**2).rsqrt()
        if config.feedback == "laws":
            return self._lawful(scene, before, road, goal, config.most_added_mps2 * bounded)
        forward, sideways = bounded.unbind(-1)
        acceleration = torch.where(forward > 0, config.max_acceleration_mps2, config.max_braking_mps2) * forward
        steering = steering_for(config.max_lateral_mps2 * sideways, scene.speed_mps[:, 0], scene.length_m[:, 0])
        return Controls(acceleration, steering)

    def _lawful(self, scene: TrafficState, before: TrafficState, road: Road, goal: Goal, added: Tensor) -> Controls:
        """What the laws do on the goal's lane, with `added (batch, 2)` m/s² along and across."""
        config, law = self.config, self.config.law
        nearest = road.project(scene.position_m[:, :1]).lane[:, 0]
        lane = torch.where(goal.lane == NO_LANE, nearest, goal.lane)
        manoeuvre = keeping(goal, road, lane, config.time_gap_s)
        controls = with_added(Law(manoeuvre, road, law).controls(scene), added, scene, manoeuvre, law)
        return law.eased(controls, (scene.speed_mps[:, 0] - before.speed_mps[:, 0]) / config.dt_s, config.dt_s)

    def _features(self, scene: TrafficState, before: TrafficState, road: Road, goal: Goal) -> Tensor:
        nearest = road.project(scene.position_m[:, :1])
        wanted_lane = torch.where(goal.lane[:, None] == NO_LANE, nearest.lane, goal.lane[:, None])
        there = road.project(scene.position_m[:, :1], wanted_lane)
        speed, error = scene.speed_mps[:, 0], (scene.heading_rad[:, 0] - nearest.heading_rad[:, 0]).sin()
        both = (scene.valid & before.valid).to(speed)
        accelerations = ((scene.speed_mps - before.speed_mps) / self.config.dt_s).clamp(-8.0, 8.0) * both
        yaw_rate = ((scene.heading_rad[:, 0] - before.heading_rad[:, 0]).sin() / self.config.dt_s).clamp(-1.0, 1.0)
        left, right = (road.neighbour(nearest.lane, side)[:, 0] != NO_LANE for side in ("left", "right"))
        closed = ~road.is_open_end(nearest.lane)[:, 0]
        off_goal = there.across_m[:, 0]
        own = [
            speed / 15,
            (goal.desired_speed_mps - speed) / 10,
            ((goal.desired_speed_mps - speed) / 2).tanh(),
            accelerations[:, 0] / 3,
            yaw_rate * 10,
            nearest.across_m[:, 0] / 2 * self.config.sees_markings,
            off_goal / 4,
            (off_goal * 2).tanh(),
            nearest.width_m[:, 0] - 4,
            error * 10,
            error * speed,
            left.to(speed),
            right.to(speed),
            closed * torch.exp(-nearest.remaining_m[:, 0].clamp_min(0.0) / 60),
            (scene.length_m[:, 0] - 5) / 5,
        ]
        around = find_neighbours(scene, nearest, watchers=1)
        theirs = accelerations.gather(1, around.index.flatten(1))[:, None] * around.present / 3
        slots = torch.cat([around.features(), theirs[..., None]], -1)
        return torch.cat([torch.stack(own, -1), slots.flatten(1)], -1)
