"""Plans to choose among: lanes, speeds and times to begin, each driven on its own road as if nobody else were there."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from drivecast.planner.manoeuvres.manoeuvre import Law, LawConfig, Manoeuvre, wished_mps
from drivecast.planner.manoeuvres.open_lanes import lanes_open
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.kinematics import drive
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState

DECIDES_EVERY = 2  # steps between two looks of the laws


@dataclass(frozen=True)
class ProposalConfig:
    """Proposals.

    Args:
        horizon_s: How far they reach, s.
        faster_mps: Speeds to go for, against the present one, m/s; the speed that is wished stands beside them.
        later_s: Lane changes begin now, or so much later, s.
        imposed_mps2: No lane change is proposed if the next behind there would have to brake harder, m/s².
        exponent: IDM's, of the speed on a free road: the less, the gentler a lower speed is gone for.
    """

    horizon_s: float = 5.0
    faster_mps: tuple[float, ...] = (-9.0, -6.0, -4.0, -2.0, -1.0, 0.0, 2.0)
    later_s: tuple[float, ...] = (0.0, 1.5)
    imposed_mps2: float = 3.0
    exponent: float = 4.0

    def __post_init__(self) -> None:
        if not self.horizon_s > 0.0 or not self.faster_mps or not self.later_s:
            raise InputError("proposals: expected horizon_s above 0, and some of faster_mps and later_s")


@dataclass(frozen=True)
class Plans:
    """Controls of egos that drive on whatever the others do, `(plan, ...)`.

    Attributes:
        episode: Long `(plan,)`. Whose plan it is.
        lane: Long `(plan,)`. Where it leads.
        acceleration_mps2: `(plan, time)`.
        steering_rad: `(plan, time)`.
        states: The ego after each step, `(plan, time)`.
    """

    episode: Tensor
    lane: Tensor
    acceleration_mps2: Tensor
    steering_rad: Tensor
    states: TrafficState

    def __getitem__(self, index: Tensor) -> Plans:
        """Those of rows `index`."""
        own = self.acceleration_mps2[index], self.steering_rad[index], self.states[index]
        return Plans(self.episode[index], self.lane[index], *own)

    @property
    def controls(self) -> Controls:
        """`(plan, time)`."""
        return Controls(self.acceleration_mps2, self.steering_rad)

    def steps(self, first: int, count: int) -> Plans:
        """`count` steps from `first` on."""

        def part(values):
            return values[:, first : first + count]

        own = part(self.acceleration_mps2), part(self.steering_rad), part(self.states)
        return Plans(self.episode, self.lane, *own)


def driven_ego(ego: TrafficState, controls: Controls, dt_s: float) -> TrafficState:
    """`ego (plan,)` under `controls (plan, time)` by the bicycle: `(plan, time)`. Differentiable."""
    states = []
    for step in range(controls.acceleration_mps2.shape[1]):
        ego = drive(ego, Controls(controls.acceleration_mps2[:, step], controls.steering_rad[:, step]), dt_s)
        states.append(ego)
    return TrafficState.stack(states, 1)


def proposed(
    scene: TrafficState,
    before: TrafficState,
    road: Road,
    goal: Goal,
    bound: Tensor,
    config: ProposalConfig,
    law: LawConfig,
    dt_s: float,
) -> Plans:
    """Plans of the egos of `scene (episode, agent)`.

    Args:
        scene: The present.
        before: One step earlier.
        road: The road.
        goal: What is asked for.
        bound: Long `(episode,)`. The lane that each steers for now; it is always among those proposed.
        config: Which plans.
        law: How they are driven.
        dt_s: Time step, s.
    """
    episode, lane, wish, later, brakes = _options(scene, road, goal, bound, config, dt_s)
    own_road, law = road[episode], replace(law, exponent=config.exponent)
    of_row = Manoeuvre(lane, torch.full_like(wish, 1.0), wish, brakes)
    now = Law(replace(of_row, lane=bound[episode]), own_road, law)
    then = Law(of_row, own_road, law)
    ego = scene[episode, :1]
    acceleration = ((scene.speed_mps - before.speed_mps)[episode, 0] / dt_s).clamp(-8.0, 8.0)
    states, controls = [], []
    chosen = Controls(acceleration, torch.zeros_like(acceleration))
    for step in range(max(1, round(config.horizon_s / dt_s))):
        if step % DECIDES_EVERY == 0:
            first, second = now.controls(ego), then.controls(ego)
            wanted = second.where(later <= step, first)
            chosen = law.eased(wanted, acceleration, (DECIDES_EVERY if step else 1) * dt_s)
            acceleration = chosen.acceleration_mps2
        ego = drive(ego[:, 0], chosen, dt_s)[:, None]
        states.append(ego[:, 0])
        controls.append(chosen)
    driven = Controls.stack(controls, 1)
    return Plans(episode, lane, driven.acceleration_mps2, driven.steering_rad, TrafficState.stack(states, 1))


def _options(
    scene: TrafficState, road: Road, goal: Goal, bound: Tensor, config: ProposalConfig, dt_s: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Episode, lane, speed, step of the lane change and whether it brakes fully, of each plan: `(plan,)` each."""
    here = road.project(scene.position_m[:, :1]).lane[:, 0]
    beside = lanes_open(scene, road, here, config.imposed_mps2)
    lanes = torch.stack([bound, here, *beside], 1)  # (episode, 4)
    offered = lanes != NO_LANE
    offered[:, 1:] &= lanes[:, 1:] != bound[:, None]
    speeds = scene.speed_mps.new_tensor(config.faster_mps)
    fastest = wished_mps(goal, road, here)[:, None]
    wishes = torch.cat([(scene.speed_mps[:, :1] + speeds).clamp_min(0.0).minimum(fastest), fastest], 1)
    episodes, count, times = len(bound), wishes.shape[1], len(config.later_s)
    # the lane that it is bound for is kept whenever a change would begin: once is enough
    shape = (episodes, lanes.shape[1], count, times)
    use = offered[:, :, None, None].expand(shape).clone()
    use[:, 0, :, 1:] = False
    episode, option, speed, time = use.nonzero(as_tuple=True)
    lane, wish = lanes[episode, option], wishes[episode, speed]
    later = torch.tensor([round(each / dt_s) for each in config.later_s], device=bound.device)[time]
    every = torch.arange(episodes, device=bound.device)
    order = torch.cat([episode, every]).argsort(stable=True)
    braking = torch.cat([torch.zeros_like(episode), torch.ones_like(every)]).bool()
    found = (
        torch.cat([episode, every]),
        torch.cat([lane, bound]),
        torch.cat([wish, fastest[:, 0]]),
        torch.cat([later, torch.zeros_like(every)]),
        braking,
    )
    return tuple(each[order] for each in found)  # type: ignore[return-value]
