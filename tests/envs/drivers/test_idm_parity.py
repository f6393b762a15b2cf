"""The driver `idm` is highway-env's own `IDMVehicle`, and traffic that sees the ego is highway-env's, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from highway_env.vehicle.behavior import IDMVehicle

from drivecast.envs.batched.traffic import BatchedHighwayTraffic
from drivecast.envs.drivers import IDMConfig, IDMDriver
from drivecast.envs.highway.simulator import HighwayScenario, make_simulator, read_state, road_users
from drivecast.envs.highway.traffic import HighwayTraffic
from drivecast.worldmodel.scene.traffic import TrafficState

STEPS = 200
EVERYONE = IDMConfig(considered=99)


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def by_highway_env(
    seed: int, scenario: HighwayScenario, steps: int, rival: bool = True
) -> tuple[np.ndarray, list[int]]:
    """States `(step, agent, 6)` in our frame with an `IDMVehicle` as the ego; the lanes that it was bound for."""
    simulator = make_simulator(scenario)
    simulator.reset(seed=seed)
    old = simulator.vehicle
    ego = IDMVehicle(simulator.road, old.position, old.heading, old.speed, target_speed=30.0)
    simulator.road.vehicles[simulator.road.vehicles.index(old)] = ego
    simulator.vehicle = ego
    states, bound = [read_state(road_users(simulator))], []
    for _ in range(steps):
        simulator.step(None)
        states.append(read_state(road_users(simulator)))
        bound.append(ego.target_lane_index[2])
        if ego.crashed:
            break
    return np.stack(states), bound


def by_driver(traffic, seeds: Sequence[int], steps: int, driver: IDMDriver) -> list[tuple[np.ndarray, list[int]]]:
    """Of each episode, as `by_highway_env`: states `(step, agent, 4)` until it ends, and the lanes."""
    start = traffic.reset(seeds)
    states, bound = [start.history[:, -1]], []
    driver.reset(states[0], start.road, start.goal)
    lasted = torch.full((len(seeds),), steps)
    for number in range(1, steps + 1):
        controls = driver.act(TrafficState.stack(states[-1:], 1), start.road, start.goal)
        traffic.announce(driver.chosen_lane)
        step = traffic.step(controls)
        states.append(step.state)
        bound.append(driver.chosen_lane)
        lasted = torch.where(step.ended, number, lasted)
        if bool((lasted <= number).all()):
            break
    every, lanes = TrafficState.stack(states, 1), torch.stack(bound, 1)
    columns = torch.cat([every.position_m, every.heading_rad[..., None], every.speed_mps[..., None]], -1).numpy()
    return [(columns[row, : last + 1], lanes[row, :last].tolist()) for row, last in enumerate(lasted.tolist())]


@pytest.mark.parametrize(("vehicles", "density", "seed"), [(20, 1.0, 0), (20, 1.0, 1), (50, 1.5, 2), (50, 1.5, 3)])
def test_idm_drives_whole_episodes_as_highway_envs_own_vehicle(vehicles, density, seed):
    scenario = HighwayScenario("highway-v0", vehicles, 4, density, duration_s=60.0)
    theirs, bound = by_highway_env(seed, scenario, STEPS)
    traffic = BatchedHighwayTraffic("highway-v0", vehicles, 4, density, duration_s=60.0, reactive=True)
    driver = IDMDriver(EVERYONE, intents=lambda scene, road: traffic.intents())
    ((ours, chosen),) = by_driver(traffic, [seed], STEPS, driver)
    assert len(ours) == len(theirs)
    assert np.abs(ours - theirs[..., :4]).max() < 1e-6
    assert chosen == bound
    if seed == 2:
        assert len(set(chosen)) > 1  # it changed lane


def test_a_lane_change_is_broken_off_as_there_and_matters():
    """Somewhere in these episodes the ego gives way: with the rule switched off it drives otherwise, and wrongly."""
    scenario, seeds = HighwayScenario("highway-v0", 30, 4, 1.5, duration_s=60.0), range(10, 22)
    drives = []
    for config in (EVERYONE, replace(EVERYONE, yields=False)):
        traffic = BatchedHighwayTraffic("highway-v0", 30, 4, 1.5, duration_s=60.0, reactive=True)
        driver = IDMDriver(config, intents=lambda scene, road, traffic=traffic: traffic.intents())
        drives.append([states for states, _ in by_driver(traffic, seeds, 100, driver)])
    gave_way = []
    for seed, ours, rude in zip(seeds, *drives, strict=True):
        if len(rude) == len(ours) and np.abs(rude - ours).max() < 1e-6:
            continue
        theirs, _ = by_highway_env(seed, scenario, 100)
        assert np.abs(ours - theirs[..., :4]).max() < 1e-6
        gave_way.append(seed)
    assert gave_way


@pytest.mark.parametrize("mixed", [False, True])
def test_both_simulators_show_the_ego_alike(mixed):
    for environment, seed in (("highway-v0", 5), ("merge-v1", 6)):
        given = {"vehicles": 20 if environment == "highway-v0" else None, "duration_s": 40.0}
        traffics = [
            kind(environment, **given, reactive=True, mixed=mixed) for kind in (BatchedHighwayTraffic, HighwayTraffic)
        ]
        ((ours, _),), ((theirs, _),) = (by_driver(traffic, [seed], 120, IDMDriver()) for traffic in traffics)
        assert len(ours) == len(theirs)
        assert np.abs(ours - theirs).max() < 1e-6


def cut_ins(reactive: bool) -> int:
    """Others that set out for the ego's lane, ahead of it with nobody between, in 6 s of 48 episodes."""
    traffic = BatchedHighwayTraffic("highway-v0", 50, 4, 1.5, duration_s=60.0, reactive=reactive)
    start = traffic.reset(range(100, 148))
    driver, state, count = IDMDriver(), start.history[:, -1], 0
    driver.reset(state, start.road, start.goal)
    bound = traffic.intents().lane
    for _ in range(60):
        controls = driver.act(TrafficState.stack([state], 1), start.road, start.goal)
        traffic.announce(driver.chosen_lane)
        x, here = state.position_m[..., 0], start.road.project(state.position_m).lane
        next_ahead = torch.where((here == here[:, :1]) & (x > x[:, :1]), x, torch.inf).amin(1, keepdim=True)
        state = traffic.step(controls).state
        now = traffic.intents().lane
        sets_out = (now != bound) & (now == here[:, :1]) & (x > x[:, :1]) & (x < next_ahead)
        sets_out[:, 0] = False
        count, bound = count + int(sets_out.sum()), now
    return count


def test_cars_change_lane_ahead_of_an_ego_that_they_see_and_of_no_other():
    assert cut_ins(reactive=False) == 0
    assert cut_ins(reactive=True) > 5
