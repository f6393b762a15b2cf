"""The planners without learning: what they see, what they choose, and that it is safe and fast."""

from __future__ import annotations

import pytest
import torch

from drivecast.envs.batched.traffic import BatchedHighwayTraffic
from drivecast.envs.drivers.ceiling import CeilingDriver
from drivecast.envs.drivers.idm import IDMConfig, IDMDriver
from drivecast.envs.drivers.lane_frame import LaneFrame
from drivecast.envs.drivers.proposals import RuleConfig
from drivecast.envs.drivers.rule import RuleDriver
from drivecast.envs.evaluation.closed_loop import ClosedLoopConfig, run_episodes
from drivecast.envs.highway.traffic import HighwayTraffic
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import Goal, TrafficState


def scene(*vehicles: tuple[float, float, float]) -> TrafficState:
    """One scene of 5 m cars (x, y, speed), the ego first."""
    values = torch.tensor(vehicles)[None].float()
    shape = values.shape[:2]
    return TrafficState(
        values[..., :2],
        torch.zeros(shape),
        values[..., 2],
        torch.full(shape, 5.0),
        torch.full(shape, 2.0),
        torch.ones(shape).bool(),
    )


def decided(state: TrafficState, road: Road, config: RuleConfig | None = None) -> RuleDriver:
    driver = RuleDriver(config)
    goal = Goal(torch.full((1,), 30.0), torch.full((1,), NO_LANE))
    driver.reset(state, road, goal)
    driver.act(TrafficState.stack([state], 1), road, goal)
    return driver


def test_the_frame_along_the_lane_knows_leaders_and_lanes():
    road = Road.straight(3)
    state = scene((0, -4, 20), (30, -4, 15), (60, -4, 10), (20, 0, 20), (40, -8, 20))
    own = road.project(state.position_m[:, :1]).lane[:, 0]
    frame = LaneFrame.of(state, road, own, torch.tensor([[0, 2]]))
    assert frame.along_m[0].tolist() == [30, 60, 20, 40]
    assert frame.lanes_m[0].tolist() == [0, 4, -4]
    assert frame.leader[0].tolist() == [1, 1, 2, 3]  # itself: nobody
    assert frame.bound_m[0].tolist() == [0, 0, 4, -4]


def test_a_car_that_drifts_is_bound_for_the_next_lane():
    road = Road.straight(2)
    state = scene((0, 0, 20), (15, 0, 20))
    state.heading_rad[0, 1] = -0.2
    own = torch.tensor([0])
    frame = LaneFrame.of(state, road, own, torch.tensor([[NO_LANE, 1]]))
    assert frame.bound_m[0, 0].item() == pytest.approx(-4.0, abs=1e-4)


def test_it_overtakes_a_slow_car_where_there_is_room_and_stays_where_there_is_none():
    road = Road.straight(2)
    assert decided(scene((0, 0, 20), (30, 0, 12)), road)._lane.item() == 1
    wall = [(x, -4, 20) for x in range(-40, 60, 8)]
    assert decided(scene((0, 0, 20), (30, 0, 12), *wall), road)._lane.item() == 0


def test_it_does_not_cut_in_ahead_of_a_much_faster_car():
    road = Road.straight(2)
    slow_ahead = [(0.0, 0.0, 15.0), (25.0, 0.0, 12.0)]
    assert decided(scene(*slow_ahead), road).chosen_lane.item() == 1
    waits = decided(scene(*slow_ahead, (-14, -4, 30)), road)
    assert waits.chosen_lane.item() == 0


def test_where_every_way_ends_in_a_contact_it_takes_the_latest():
    road = Road.straight(1)
    driver = decided(scene((0, 0, 25), (9, 0, 0)), road)
    goal = Goal(torch.full((1,), 30.0), torch.full((1,), NO_LANE))
    controls = driver.act(TrafficState.stack([scene((0, 0, 25), (9, 0, 0))], 1), road, goal)
    assert controls.acceleration_mps2.item() == -6.0


def driven(driver, episodes: int, vehicles: int = 20, seconds: float = 20.0):
    traffic = BatchedHighwayTraffic("highway-v0", vehicles, 4, 1.0, duration_s=seconds)
    table = run_episodes(traffic, driver, range(50, 50 + episodes), ClosedLoopConfig(batch=episodes, keep="none")).table
    return int((table["outcome"] == "collision").sum()), table["distance_m"].sum() / table["duration_s"].sum()


def test_rule_is_faster_than_idm_and_the_ceiling_no_slower_than_rule_in_the_same_traffic():
    idm, rule = (driven(driver, 12) for driver in (IDMDriver(), RuleDriver()))
    assert rule[0] == 0
    assert rule[1] > idm[1] + 0.5
    small = RuleConfig(
        time_gaps_s=(0.4, 0.8, 1.4), starts_s=(0.0, 1.0), decide_every_s=1.0, jam_gap_m=1.5, exponent=10.0
    )
    few, bound = driven(RuleDriver(), 3, 10), driven(CeilingDriver(small), 3, 10)
    assert bound[0] == 0
    assert bound[1] > few[1] - 0.3


def test_the_branch_of_the_ceiling_leaves_the_traffic_as_it_is():
    traffic = BatchedHighwayTraffic("highway-v0", 8, 3, 1.0, duration_s=20.0, reactive=True)
    start = traffic.reset([1, 2])
    driver = CeilingDriver(RuleConfig(time_gaps_s=(1.0,), starts_s=(0.0,), horizon_s=2.0))
    driver.attend(traffic)
    driver.reset(start.history[:, -1], start.road, start.goal)
    before = {name: values.clone() for name, values in vars(traffic.simulator.scene).items()}
    driver.act(start.history, start.road, start.goal)
    for name, values in before.items():
        assert torch.equal(getattr(traffic.simulator.scene, name), values), name


def test_the_ceiling_refuses_traffic_that_cannot_be_branched():
    with pytest.raises(InputError, match="'ceiling': merge-v1 cannot be branched"):
        CeilingDriver().attend(BatchedHighwayTraffic("merge-v1"))
    with pytest.raises(InputError, match="'ceiling'"):
        CeilingDriver().attend(HighwayTraffic("highway-v0"))


def test_drivers_of_one_batch_may_differ():
    road = Road.straight(1, batch=2)
    state = TrafficState.cat([scene((0, 0, 20), (40, 0, 20))] * 2)
    driver = IDMDriver([IDMConfig(time_gap_s=0.5), IDMConfig(time_gap_s=3.0)])
    goal = Goal(torch.full((2,), 30.0), torch.full((2,), NO_LANE))
    driver.reset(state, road, goal)
    acceleration = driver.act(TrafficState.stack([state], 1), road, goal).acceleration_mps2
    assert acceleration[0] > 0 > acceleration[1]
