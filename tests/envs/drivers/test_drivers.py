"""Baseline drivers against highway-env's own, and against the equations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from highway_env.road.road import Road as HighwayRoad
from highway_env.road.road import RoadNetwork
from highway_env.vehicle.behavior import IDMVehicle

from drivecast.envs.drivers import ConstantVelocityDriver, HumanDriver, IdleDriver, IDMConfig, IDMDriver
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.rules.steering import lane_keeping_steering
from drivecast.worldmodel.scene.kinematics import bicycle_step
from drivecast.worldmodel.scene.lane_neighbours import lane_neighbours, nearest_agents
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import Goal, TrafficState


def scene(*vehicles: tuple[float, float, float], heading_rad: float = 0.0) -> TrafficState:
    """One scene of 5 m cars (x, y, speed), the ego first."""
    values = torch.tensor(vehicles)[None].float()
    shape = values.shape[:2]
    heading = torch.zeros(shape)
    heading[:, 0] = heading_rad
    return TrafficState(
        values[..., :2],
        heading,
        values[..., 2],
        torch.full(shape, 5.0),
        torch.full(shape, 2.0),
        torch.ones(shape).bool(),
    )


def goal(speed_mps: float = 25.0, batch: int = 1) -> Goal:
    return Goal(torch.full((batch,), speed_mps), torch.full((batch,), NO_LANE))


def act(driver, state: TrafficState, road: Road, wish_mps: float = 25.0, steps: int = 1):
    """Ask a driver `steps` times about the same scene; its last answer."""
    driver.reset(state, road, goal(wish_mps))
    for _ in range(steps):
        answer = driver.act(TrafficState.stack([state], 1), road, goal(wish_mps))
    return answer


def highway_vehicles(state: TrafficState, lanes: int = 3, wish_mps: float = 25.0) -> list[IDMVehicle]:
    """The same scene in highway-env, whose y points right."""
    network = RoadNetwork.straight_road_network(lanes, length=10_000, speed_limit=30)
    road = HighwayRoad(network=network, np_random=np.random.RandomState(0))
    for agent in range(state.heading_rad.shape[1]):
        x, y = state.position_m[0, agent].tolist()
        vehicle = IDMVehicle(
            road,
            np.array([x + 1000.0, -y]),  # its lanes begin at 0
            heading=-float(state.heading_rad[0, agent]),
            speed=float(state.speed_mps[0, agent]),
            target_speed=wish_mps if agent == 0 else float(state.speed_mps[0, agent]),
            timer=0.5,
        )
        road.vehicles.append(vehicle)
    return road.vehicles


@pytest.mark.parametrize(
    "vehicles",
    [
        [(0, 0, 20)],
        [(0, 0, 20), (30, 0, 15)],
        [(0, -4, 28), (60, -4, 10), (15, 0, 20), (-20, -4, 30)],
        [(0, 0.8, 12), (18, -0.5, 9), (9, -3.4, 5)],  # off the centre, a neighbour half in the lane
        [(0, 0, 1), (7, 0, 0)],
    ],
)
def test_idm_acceleration_and_steering_equal_highway_env(vehicles):
    state = scene(*vehicles, heading_rad=0.02)
    answer = act(IDMDriver(), state, Road.straight(3))
    ego = highway_vehicles(state)[0]
    ego.act()
    assert answer.acceleration_mps2.item() == pytest.approx(ego.action["acceleration"], rel=1e-3, abs=1e-3)
    limit = 0.7  # our wheels turn less far
    assert answer.steering_rad.item() == pytest.approx(-np.clip(ego.action["steering"], -limit, limit), abs=1e-3)


@pytest.mark.parametrize("seed", range(30))
def test_mobil_chooses_the_lane_that_highway_env_chooses(seed):
    random = np.random.default_rng(seed)
    places = random.permutation(np.arange(-60, 100, 13))
    others = [(x, -4.0 * random.integers(3), random.uniform(8, 25)) for x in places]
    state = scene((0, -4, random.uniform(10, 25)), *[other for other in others if abs(other[0]) > 6])
    driver = IDMDriver()
    act(driver, state, Road.straight(3), steps=11)
    ego = highway_vehicles(state)[0]
    ego.timer = 1.1
    ego.change_lane_policy()
    assert driver._lane.item() == ego.target_lane_index[2]


def test_idm_settles_at_the_equilibrium_gap():
    driver, road = IDMDriver(IDMConfig(change_lanes=False)), Road.straight(1)
    state = scene((0, 0, 22), (60, 0, 15))
    driver.reset(state, road, goal(25))
    for _ in range(500):
        answer = driver.act(TrafficState.stack([state], 1), road, goal(25))
        ego = bicycle_step(
            state.position_m[:, 0], state.heading_rad[:, 0], state.speed_mps[:, 0], state.length_m[:, 0],
            answer.acceleration_mps2, answer.steering_rad, 0.1,
        )  # fmt: skip
        state.position_m[:, 0], state.heading_rad[:, 0], state.speed_mps[:, 0] = ego
        state.position_m[:, 1, 0] += 1.5
    gap = (state.position_m[0, 1, 0] - state.position_m[0, 0, 0]).item()
    assert state.speed_mps[0, 0].item() == pytest.approx(15, abs=0.05)
    assert gap == pytest.approx((10 + 15 * 1.5) / math.sqrt(1 - (15 / 25) ** 4), abs=0.3)


def test_longer_vehicles_are_kept_away_from_by_their_length():
    driver, road = IDMDriver(), Road.straight(1)
    car = scene((0, 0, 15), (35, 0, 15))
    truck = TrafficState(**{**car.__dict__, "length_m": torch.tensor([[5.0, 15.0]])})
    assert act(driver, truck, road).acceleration_mps2 < act(driver, car, road).acceleration_mps2


def test_mobil_does_not_change_into_an_occupied_gap():
    driver = IDMDriver()
    blocked = scene((0, 0, 15), (20, 0, 5), (-1, -4, 15))
    act(driver, blocked, Road.straight(2), steps=15)
    assert driver._lane.item() == 0
    act(driver, scene((0, 0, 15), (20, 0, 5)), Road.straight(2), steps=15)
    assert driver._lane.item() == 1


def test_mobil_thinks_once_a_second():
    driver = IDMDriver()
    free = scene((0, 0, 15), (20, 0, 5))
    act(driver, free, Road.straight(2), steps=11)  # ten tenths of a second are not more than a second
    assert driver._lane.item() == 0
    act(driver, free, Road.straight(2), steps=12)
    assert driver._lane.item() == 1


def test_a_lane_that_ends_is_braked_for_and_left():
    road = Road.straight(2, length_m=200.0)
    road.open_end[0, 1] = False
    road.centre_m[0, 1, 1, 0] = 80.0
    assert act(IDMDriver(), scene((50, -4, 15)), road).acceleration_mps2.item() == -6.0
    assert act(IDMDriver(), scene((50, 0, 15)), road).acceleration_mps2.item() > 0
    driver = IDMDriver()
    act(driver, scene((50, -4, 15)), road, steps=15)
    assert driver._lane.item() == 0


def test_a_gore_is_not_crossed():
    road = Road.straight(2)
    blocked = scene((0, 0, 15), (20, 0, 5))
    road.centre_m[0, 1, :, 1] = -6.0  # edges 2 m apart
    driver = IDMDriver()
    act(driver, blocked, road, steps=15)
    assert driver._lane.item() == 0


def test_a_batch_of_scenes_is_decided_scene_by_scene():
    road = Road.straight(2, batch=2)
    state = TrafficState.cat([scene((0, 0, 15), (20, 0, 5), (500, 0, 5)), scene((0, 0, 15), (20, 0, 5), (-1, -4, 15))])
    driver = IDMDriver()
    driver.reset(state, road, goal(batch=2))
    for _ in range(15):
        driver.act(TrafficState.stack([state], 1), road, goal(batch=2))
    assert driver._lane.tolist() == [1, 0]


def test_steering_has_the_sign_of_the_way_back_at_any_speed():
    road = Road.straight(1)
    for speed in (0.0, 0.05, 1.0, 10.0, 30.0):
        ego = scene((0, 0.3, speed))[:, 0]
        assert lane_keeping_steering(ego, road, torch.tensor([0])).item() < 0
        ego = scene((0, -0.3, speed))[:, 0]
        assert lane_keeping_steering(ego, road, torch.tensor([0])).item() > 0


def test_constant_velocity_keeps_its_speed_and_its_lane_round_a_bend():
    angle = torch.linspace(0, 1.2, 60)
    centre = torch.stack([200 * angle.sin(), 200 * (1 - angle.cos())], -1)[None, None]
    straight = Road.straight(1)
    road = Road(
        **{
            **straight.__dict__,
            "centre_m": centre,
            "width_m": torch.full((1, 1, 60), 4.0),
            "point_count": torch.tensor([[60]]),
        }
    )
    driver, state = ConstantVelocityDriver(), scene((0, 0, 20))
    driver.reset(state, road, goal())
    furthest = 0.0
    for _ in range(100):
        answer = driver.act(TrafficState.stack([state], 1), road, goal())
        assert answer.acceleration_mps2.item() == 0
        ego = bicycle_step(
            state.position_m[:, 0], state.heading_rad[:, 0], state.speed_mps[:, 0], state.length_m[:, 0],
            answer.acceleration_mps2, answer.steering_rad, 0.1,
        )  # fmt: skip
        state.position_m[:, 0], state.heading_rad[:, 0], state.speed_mps[:, 0] = ego
        furthest = max(furthest, road.project(state.position_m).across_m.abs().item())
    assert furthest < 0.5
    assert state.speed_mps.item() == 20


def test_idle_does_nothing_and_the_human_is_not_asked():
    answer = act(IdleDriver(), scene((0, 1, 20), (10, 1, 0)), Road.straight(1))
    assert (answer.acceleration_mps2.item(), answer.steering_rad.item()) == (0.0, 0.0)
    with pytest.raises(NotImplementedError):
        act(HumanDriver(), scene((0, 1, 20)), Road.straight(1))


def test_neighbours_on_a_lane_are_the_nearest_before_and_behind():
    state = scene((0, 0, 20), (30, 0, 20), (50, 0, 20), (-10, 0, 20), (-40, 0, 20), (5, -4, 20))
    near = lane_neighbours(state, Road.straight(2), torch.tensor([0]))
    assert (near.leader.item(), near.leader_distance_m.item()) == (1, 30)
    assert (near.follower.item(), near.follower_distance_m.item()) == (3, 10)
    right = lane_neighbours(state, Road.straight(2), torch.tensor([1]))
    assert (right.leader.item(), right.follower.item()) == (5, -1)
    assert lane_neighbours(state, Road.straight(2), torch.tensor([NO_LANE])).leader.item() == -1


def test_nearest_agents_keeps_the_ego_first():
    state = scene((0, 0, 20), (50, 0, 1), (10, 0, 2), (-20, 0, 3))
    assert nearest_agents(state, 2).speed_mps[0].tolist() == [20, 2, 3]


def test_impossible_parameters_are_refused():
    with pytest.raises(InputError, match=r"idm.braking_mps2: expected more than 0, got -1"):
        IDMConfig(braking_mps2=-1)
