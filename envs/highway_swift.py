"""highway-env's straight roads, stepped several times faster and to the last bit alike.

highway-env looks at every vehicle on the road for each question that a driver asks, and at every pair of vehicles for
collisions. While vehicles decide nobody moves, so one sorted list per lane answers all their questions; and a pair that
is too far apart to touch need not be asked about. The decisions and collisions themselves stay highway-env's.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

import numpy as np
from highway_env.road.lane import StraightLane
from highway_env.road.road import Road, RoadNetwork

MARGIN_M = 1e-6  # far above what the two ways to round a distance differ by


class SwiftNetwork(RoadNetwork):
    """Lanes along +x only."""

    def get_closest_lane_index(self, position: np.ndarray, heading: float | None = None) -> Any:
        x, y = float(position[0]), float(position[1])
        turn = 0.0 if heading is None else abs(((heading + np.pi) % (2 * np.pi)) - np.pi)
        best, nearest = None, np.inf
        for start, to_dict in self.graph.items():
            for end, lanes in to_dict.items():
                for number, lane in enumerate(lanes):
                    along = x - float(lane.start[0])
                    beyond = max(along - lane.length, 0) + max(0 - along, 0)
                    distance = abs(y - float(lane.start[1])) + beyond + turn
                    if distance < nearest:
                        best, nearest = (start, end, number), distance
        return best


class SwiftRoad(Road):
    """A road of lanes along +x, without objects on it."""

    _order: dict[Any, tuple[list[float], list[Any]]] | None = None  # of each lane, while the vehicles decide

    def act(self) -> None:
        self._order = {}
        super().act()
        self._order = None

    def neighbour_vehicles(self, vehicle: Any, lane_index: Any = None) -> tuple[Any, Any]:
        lane_index = lane_index or vehicle.lane_index
        if self._order is None or not lane_index:
            return super().neighbour_vehicles(vehicle, lane_index)
        if lane_index not in self._order:
            self._order[lane_index] = self._sorted_along(self.network.get_lane(lane_index))
        along, vehicles = self._order[lane_index]
        here = float(vehicle.position[0]) - float(self.network.get_lane(lane_index).start[0])
        first = bisect_left(along, here)
        # of vehicles side by side highway-env takes the last listed ahead and the first listed behind
        ahead = None
        for i in range(first, len(along)):
            if vehicles[i] is not vehicle:
                if ahead is not None and along[i] != along[ahead]:
                    break
                ahead = i
        behind = None
        for i in range(first - 1, -1, -1):
            if vehicles[i] is not vehicle:
                if behind is not None and along[i] != along[behind]:
                    break
                behind = i
        return (
            None if ahead is None else vehicles[ahead],
            None if behind is None else vehicles[behind],
        )

    def _sorted_along(self, lane: StraightLane) -> tuple[list[float], list[Any]]:
        start_x, start_y, reach = float(lane.start[0]), float(lane.start[1]), lane.width / 2 + 1
        there = []
        for vehicle in self.vehicles:
            along = float(vehicle.position[0]) - start_x
            near = abs(float(vehicle.position[1]) - start_y) <= reach
            if near and -lane.VEHICLE_LENGTH <= along < lane.length + lane.VEHICLE_LENGTH:
                there.append((along, vehicle))
        there.sort(key=lambda item: item[0])
        return [along for along, _ in there], [vehicle for _, vehicle in there]

    def step(self, dt: float) -> None:
        for vehicle in self.vehicles:
            vehicle.step(dt)
        position = np.array([vehicle.position for vehicle in self.vehicles])
        reach = np.array([vehicle.diagonal / 2 for vehicle in self.vehicles])
        travel = np.array([vehicle.speed * dt for vehicle in self.vehicles])
        gap = position[:, None] - position
        near = np.sqrt((gap * gap).sum(-1)) <= reach[:, None] + reach + travel[:, None] + MARGIN_M
        for i, j in np.argwhere(np.triu(near, 1)):
            self.vehicles[i].handle_collisions(self.vehicles[j], dt)


def hasten(road: Road) -> None:
    """Make `road` a swift one in place (its vehicles refer to it), if its lanes run along +x and it is bare."""
    lanes = road.network.lanes_list()
    plain = all(type(lane) is StraightLane and tuple(lane.direction) == (1.0, 0.0) for lane in lanes)
    if plain and not road.objects and not road.neighbour_vehicles_connected_lanes and type(road) is Road:
        road.__class__ = SwiftRoad
        road.network.__class__ = SwiftNetwork
