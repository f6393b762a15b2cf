"""Who drives ahead of and behind whom, on each lane, without looking at all pairs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from envs.batched.lanes import Lanes
from envs.batched.scene import Scene


@dataclass(frozen=True)
class LaneOrder:
    """Each lane's agents in their order along x (`Road.neighbour_vehicles`).

    All lanes run along +x, so one sorting by x serves them all; running minima over the sorted list then say, for each
    place in it and each lane, who is next. A step costs O(agents x lanes), the sorting O(agents log agents).

    Agents are numbered as in the scene; `agents` (one past the last) stands for nobody.

    Attributes:
        order: Long `(episode, agent + 1)`. Agents sorted by x; the last entry is nobody.
        rank: Long `(episode, agent)`. Place of each agent in `order`.
        ahead: Int16 `(episode, lane, agent + 1)`. First place at or after each one that is on the lane.
        behind: Int16 `(episode, lane, agent + 1)`. Last place *before* each one that is on the lane.
    """

    order: Tensor
    rank: Tensor
    ahead: Tensor
    behind: Tensor

    @staticmethod
    @torch.no_grad()
    def of(scene: Scene, lanes: Lanes) -> LaneOrder:
        """Sort the agents of `scene`."""
        x, y = scene.x_m.detach(), scene.y_m.detach()
        episodes, agents = x.shape
        x, order = x.sort(1)
        y = y.gather(1, order)
        places = torch.arange(agents, device=x.device)
        rank = torch.empty_like(order).scatter_(1, order, places.expand_as(order))
        member = lanes.members(x, y)
        nobody = order.new_full((episodes, 1), agents)
        place = places.to(torch.int16)
        ahead = torch.nn.functional.pad(torch.where(member, place, agents), (0, 1), value=agents)
        behind = torch.nn.functional.pad(torch.where(member, place, -1), (1, 0), value=-1)
        reach = 1
        while reach < agents + 1:  # after each round a place knows of the 2 `reach` places from it on
            ahead = torch.cat([torch.minimum(ahead[..., :-reach], ahead[..., reach:]), ahead[..., -reach:]], -1)
            behind = torch.cat([behind[..., :reach], torch.maximum(behind[..., reach:], behind[..., :-reach])], -1)
            reach *= 2
        return LaneOrder(torch.cat([order, nobody], 1), rank, ahead, behind)

    def leaders(self, lane: Tensor) -> Tensor:
        """The agent `(episode, agent)` ahead of each on `lane (episode, agent)`."""
        episodes, lanes, places = self.ahead.shape
        first = torch.arange(0, episodes * lanes * places, lanes * places, device=lane.device)[:, None]
        place = self.ahead.reshape(-1).take(first + lane * places + (self.rank + 1)).long()
        return self.order.gather(1, place)

    def leader(self, episode: Tensor, agent: Tensor, lane: Tensor) -> Tensor:
        """The agent `(k,)` ahead of `agent (k,)` on `lane (k,)`."""
        place = self.ahead[episode, lane, self.rank[episode, agent] + 1].long()
        return self.order[episode, place]

    def follower(self, episode: Tensor, agent: Tensor, lane: Tensor) -> Tensor:
        """The agent `(k,)` behind `agent (k,)` on `lane (k,)`."""
        place = self.behind[episode, lane, self.rank[episode, agent]].long()
        return self.order[episode, place]  # place -1 is the last entry: nobody
