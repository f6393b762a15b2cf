"""Faster, and to the last bit the same."""

from __future__ import annotations

import numpy as np
import pytest
from highway_env.road.road import Road, RoadNetwork

from envs.highway_simulator import HighwayScenario, make_simulator, read_state, road_users
from envs.highway_swift import SwiftRoad


@pytest.mark.parametrize("environment", ["highway-v0", "highway-fast-v0"])
def test_swift_road_is_highway_env_to_the_last_bit(environment):
    simulator = make_simulator(HighwayScenario(environment, vehicles=20, density=1.3))

    def drive(seed: int, swift: bool) -> tuple[np.ndarray, list]:
        simulator.reset(seed=seed)
        assert type(simulator.road) is SwiftRoad
        if not swift:
            simulator.road.__class__, simulator.road.network.__class__ = Road, RoadNetwork
        draw = np.random.default_rng(seed)
        states = []
        for _ in range(80):
            simulator.step(np.array([2 * draw.normal(), 0.02 * draw.normal()]))
            states.append(read_state(road_users(simulator)))
        return np.array(states), [(v.crashed, v.lane_index) for v in simulator.road.vehicles]

    for seed in range(3):
        ours, theirs = drive(seed, swift=True), drive(seed, swift=False)
        assert (ours[0] == theirs[0]).all()
        assert ours[1] == theirs[1]


def test_vehicles_side_by_side_are_chosen_as_highway_env_does():
    simulator = make_simulator(HighwayScenario("highway-v0", vehicles=6, lanes=2))
    simulator.reset(seed=0)
    road = simulator.road
    for vehicle, x in zip(road.vehicles, (100.0, 120.0, 120.0, 80.0, 80.0, 100.0, 300.0), strict=True):
        vehicle.position[:] = (x, 0.0)
    for vehicle in road.vehicles:
        for lane in (("0", "1", 0), ("0", "1", 1)):
            theirs = Road.neighbour_vehicles(road, vehicle, lane)
            road._order = {}
            assert road.neighbour_vehicles(vehicle, lane) == theirs
            road._order = None


def test_a_road_with_curves_or_objects_stays_highway_envs():
    simulator = make_simulator(HighwayScenario("merge-v1"))
    assert type(simulator.road) is Road
