"""Where imagined episodes begin: a recorded moment, and the vehicle that is driven from there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from drivecast.envs.imagined.config import ImaginedTrafficConfig
from drivecast.worldmodel.recordings.window import RecordedScene
from drivecast.worldmodel.scene.contact import ego_contacts
from drivecast.worldmodel.scene.lane_neighbours import pick_agents
from drivecast.worldmodel.scene.traffic import TrafficState, _TensorRecord


@dataclass(frozen=True)
class Starts(_TensorRecord):
    """The starts of all recordings, `(start,)` long each; frames count from the start of their recording."""

    scene: Tensor
    frame: Tensor  # the present
    agent: Tensor


def find_starts(
    scenes: Sequence[RecordedScene], config: ImaginedTrafficConfig, dt_s: float, history_steps: int
) -> Starts:
    """Vehicles with their whole history at moments `every_s` apart, on the road and touching nobody."""
    every, found = max(1, round(config.every_s / dt_s)), []
    for number, scene in enumerate(scenes):
        frames = torch.arange(len(scene.states.valid))[history_steps - 1 :: every]
        known = (scene.first_step <= frames[:, None] - history_steps + 1) & (scene.last_step >= frames[:, None])
        moment, agent = known.nonzero(as_tuple=True)
        present = scene.states[frames[moment]]
        ego = present.map(lambda tensor, agent=agent: tensor[torch.arange(len(agent)), agent])
        clear = ~_touches(present, agent, config.contact_tolerance_m)
        clear &= scene.road.off_road_m(ego.position_m[None])[0] <= config.off_road_m
        columns = (torch.full_like(agent, number), frames[moment], agent)
        found.append(Starts(*(column[clear] for column in columns)))
    return Starts.cat(found)


def recorded_history(scene: RecordedScene, frame: int, agent: int, steps: int, slots: int) -> TrafficState:
    """The past of who is there at `frame`, `agent` first, in `slots` slots: `(1, time, slot)`.

    A slot without a vehicle repeats the first one's numbers and is not valid.
    """
    there = scene.states.valid[frame].clone()
    there[agent] = False
    agents = torch.cat([torch.tensor([agent]), there.nonzero()[:, 0]])
    index = torch.cat([agents, torch.full((slots - len(agents),), agent)])
    history = scene.states[frame - steps + 1 : frame + 1].map(lambda tensor: tensor[:, index])
    history.valid[:, len(agents) :] = False
    return history.map(lambda tensor: tensor[None])


def _touches(present: TrafficState, agent: Tensor, tolerance_m: float) -> Tensor:
    """Whether `agent (n,)` touches somebody in its scene, bool `(n,)`."""
    others = torch.arange(present.valid.shape[1]).expand_as(present.valid)
    order = torch.where(others == agent[:, None], -1, others).argsort(1)
    return ego_contacts(pick_agents(present, order), tolerance_m).any(1)
