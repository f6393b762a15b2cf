"""The bound `ceiling`: the planner in copies of the true simulator."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from drivecast.envs.batched.traffic import BatchedHighwayTraffic
from drivecast.envs.batched.world import SimulatedWorld
from drivecast.envs.drivers.rule import RuleDriver
from drivecast.envs.evaluation.closed_loop import ClosedLoopConfig, run_episodes
from drivecast.envs.highway.traffic import HighwayTraffic
from drivecast.planner.planning.driver import PlannerConfig
from drivecast.scripts.driving.ceiling import CeilingDriver
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.traffic import Controls

BASE = PlannerConfig()
QUICK = replace(
    BASE, search=replace(BASE.search, beam=3, horizon_s=4.5), refinement=replace(BASE.refinement, iterations=0)
)


@pytest.mark.parametrize("reactive", [False, True])
def test_a_copy_goes_on_as_the_traffic_itself_does(reactive):
    """Agents, their lane changes and contacts: to the last bit, whatever else is branched from the same moment."""
    traffic = BatchedHighwayTraffic("highway-v0", 12, 3, 1.5, duration_s=20.0, reactive=reactive)
    start = traffic.reset([3, 4])
    lane = start.road.project(start.history[:, -1].position_m[:, :1]).lane[:, 0]
    other = torch.where(start.road.neighbour(lane[:, None], "right")[:, 0] < 0, lane, lane + 1)
    world = SimulatedWorld.of(traffic, torch.tensor([0, 1]), start.road)
    world = world.picked(torch.tensor([0, 0, 1]))  # the second one goes its own way
    world.announce(other[[0, 0, 1]])
    traffic.announce(other)
    for step in range(50):
        acceleration = torch.tensor([0.5, -0.5]) * (1 if step < 25 else -1)
        branched = Controls(torch.stack([acceleration[0], acceleration[0] - 2.0, acceleration[1]]), torch.zeros(3))
        ahead = world.advance(branched)
        really = traffic.step(Controls(acceleration, torch.zeros(2)))
        if bool(really.ended.any()):
            break
        for mine, row in ((0, 0), (2, 1)):
            assert torch.equal(ahead.position_m[mine], really.state.position_m[row]), step
            assert torch.equal(ahead.speed_mps[mine], really.state.speed_mps[row]), step
    assert step > 20
    assert not torch.equal(ahead.position_m[1], ahead.position_m[0])


def test_it_is_faster_than_the_rule_in_the_same_traffic():
    traffic, seeds = BatchedHighwayTraffic("highway-v0", 20, 4, 1.0, duration_s=20.0), range(50, 54)
    speeds = []
    for driver in (RuleDriver(), CeilingDriver(QUICK)):
        table = run_episodes(traffic, driver, seeds, ClosedLoopConfig(batch=4, keep="none")).table
        assert set(table["outcome"]) == {"completed"}
        speeds.append(table["distance_m"].sum() / table["duration_s"].sum())
    assert speeds[1] > speeds[0] + 0.5


def test_it_leaves_the_traffic_as_it_is():
    traffic = BatchedHighwayTraffic("highway-v0", 8, 3, 1.0, duration_s=20.0, reactive=True)
    start = traffic.reset([1, 2])
    driver = CeilingDriver(replace(QUICK, refinement=replace(BASE.refinement, iterations=1)))
    driver.attend(traffic)
    driver.reset(start.history[:, -1], start.road, start.goal)
    before = {name: values.clone() for name, values in vars(traffic.simulator.scene).items()}
    driver.act(start.history, start.road, start.goal)
    for name, values in before.items():
        assert torch.equal(getattr(traffic.simulator.scene, name), values), name


def test_it_refuses_traffic_that_cannot_be_branched():
    with pytest.raises(InputError, match="'ceiling': merge-v1 cannot be branched"):
        CeilingDriver().attend(BatchedHighwayTraffic("merge-v1"))
    with pytest.raises(InputError, match="'ceiling'"):
        CeilingDriver().attend(HighwayTraffic("highway-v0"))
