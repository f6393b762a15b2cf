"""Who drives ahead of and behind whom, on each lane, without looking at all pairs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from drivecast.envs.batched.lanes import Lanes
from drivecast.envs.batched.scene import Scene


@dataclass(frozen=True)
class LaneOrder:
    """Each lane's agents in their order along x (`Road.neighbour_vehicles`).

    All lanes run along +x, so one sorting by x serves them all; running minima over the sorted list then say, for each
    place in it and each lane, who is next. A step costs O(agents x lanes), the sorting O(agents log agents).

    Agents are numbered as in the scene; `agents` (one past the last) stands for nobody.

    Attributes:
        order: Long `(episode, agent + 1)`. Agents sorted by x; the last entry is nobody.
        rank: Long `(episode, agent)`. Place of each agent in `order`.
        ahead: Int16 `(agent + 1, lane, episode)`. First place at or after each one that is on the lane.
        behind: Int16 `(agent + 1, lane, episode)`. Last place *before* each one that is on the lane.
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
        # places first, so that a row of memory holds the same place of all episodes
        member = lanes.members(x.T.contiguous(), y.T.contiguous()).to(torch.int16)
        place = places.to(torch.int16)[:, None, None]
        ahead, behind = (torch.empty(agents + 1, lanes.count, episodes).to(member) for _ in range(2))
        ahead[:-1], ahead[-1] = member * (place - agents) + agents, agents
        behind[1:], behind[0] = member * (place + 1) - 1, -1
        reach = 1
        while reach < agents + 1:  # after each round a place knows of the 2 `reach` places from it on
            ahead = torch.cat([torch.minimum(ahead[:-reach], ahead[reach:]), ahead[-reach:]])
            behind = torch.cat([behind[:reach], torch.maximum(behind[reach:], behind[:-reach])])
            reach *= 2
        nobody = order.new_full((episodes, 1), agents)
        return LaneOrder(torch.cat([order, nobody], 1), rank, ahead, behind)

    def leaders(self, lane: Tensor) -> Tensor:
        """The agent `(episode, agent)` ahead of each on `lane (episode, agent)`."""
        _, lanes, episodes = self.ahead.shape
        episode = torch.arange(episodes, device=lane.device)[:, None]
        return self.order.gather(1, self.ahead.take(((self.rank + 1) * lanes + lane) * episodes + episode).long())

    def leader(self, episode: Tensor, agent: Tensor, lane: Tensor) -> Tensor:
        """The agent `(k,)` ahead of `agent (k,)` on `lane (k,)`."""
        return self._next(self.ahead, episode, self._rank(episode, agent) + 1, lane)

    def follower(self, episode: Tensor, agent: Tensor, lane: Tensor) -> Tensor:
        """The agent `(k,)` behind `agent (k,)` on `lane (k,)`."""
        return self._next(self.behind, episode, self._rank(episode, agent), lane)

    def _rank(self, episode: Tensor, agent: Tensor) -> Tensor:
        return self.rank.take(episode * self.rank.shape[1] + agent)

    def _next(self, table: Tensor, episode: Tensor, rank: Tensor, lane: Tensor) -> Tensor:
        _, lanes, episodes = table.shape
        place = table.take((rank * lanes + lane) * episodes + episode).long()
        place = torch.where(place < 0, self.rank.shape[1], place)  # nobody is last in the order
        return self.order.take(episode * self.order.shape[1] + place)
