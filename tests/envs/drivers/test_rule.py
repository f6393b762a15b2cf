"""The planners without learning: what they see, what they choose, and that it is safe and fast."""

from __future__ import annotations

import pytest
import torch

from drivecast.envs.batched.traffic import BatchedHighwayTraffic
from drivecast.envs.drivers.idm import IDMConfig, IDMDriver
from drivecast.envs.drivers.lane_frame import LaneFrame
from drivecast.envs.drivers.proposals import RuleConfig
from drivecast.envs.drivers.rule import RuleDriver
from drivecast.envs.drivers.rule_rollout import Rollout, next_heading
from drivecast.envs.evaluation.closed_loop import ClosedLoopConfig, run_episodes
from drivecast.worldmodel.rules.in_the_way import bound_lane, in_the_way
from drivecast.worldmodel.scene.kinematics import MAX_STEERING_RAD, drive
from drivecast.worldmodel.scene.lane_neighbours import lane_neighbours
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState


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


def test_it_does_not_go_behind_a_car_alongside_before_that_one_has_left_room():
    """All three contacts of 1,000 dense episodes were corners that touched behind a faster car."""
    state = scene((0, -4, 13), (12.7, -4, 10), (3, 0, 18))
    assert int(decided(state, Road.straight(2), RuleConfig(bumper_m=0.0)).chosen_lane[0]) == 0
    assert int(decided(state, Road.straight(2)).chosen_lane[0]) == 1


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


def test_rule_is_faster_than_idm_in_the_same_traffic():
    idm, rule = (driven(driver, 12) for driver in (IDMDriver(), RuleDriver()))
    assert rule[0] == 0
    assert rule[1] > idm[1] + 0.5


def test_drivers_of_one_batch_may_differ():
    road = Road.straight(1, batch=2)
    state = TrafficState.cat([scene((0, 0, 20), (40, 0, 20))] * 2)
    driver = IDMDriver([IDMConfig(time_gap_s=0.5), IDMConfig(time_gap_s=3.0)])
    goal = Goal(torch.full((2,), 30.0), torch.full((2,), NO_LANE))
    driver.reset(state, road, goal)
    acceleration = driver.act(TrafficState.stack([state], 1), road, goal).acceleration_mps2
    assert acceleration[0] > 0 > acceleration[1]


def narrow(lanes: int, width_m: float = 3.2) -> Road:
    """Lanes of a motorway, narrower than highway-env's."""
    return Road.straight(lanes, lane_width_m=width_m)


def test_a_lorry_abreast_on_a_narrow_lane_is_no_leader():
    road = narrow(2)
    state = scene((0, 0, 20), (6, -2.3, 20))  # its box ends 0.3 m beside the ego's
    own = torch.zeros(1, dtype=torch.long)
    assert lane_neighbours(state, road, own).leader.item() == 1
    assert in_the_way(state, road, own).leader.item() == -1
    driver = decided(state, road)
    controls = driver.act(TrafficState.stack([state], 1), road, Goal(torch.full((1,), 20.0), own - 1))
    assert controls.acceleration_mps2.item() > -0.5


def test_who_reaches_into_the_ego_s_way_is_a_leader():
    own = torch.zeros(1, dtype=torch.long)
    assert in_the_way(scene((0, 0, 20), (9, -1.9, 20)), narrow(2), own).leader.item() == 1
    off_centre = scene((0, -0.5, 20), (9, -2.3, 20))
    assert in_the_way(off_centre, narrow(2), own).leader.item() == 1
    assert in_the_way(scene((0, 0, 20), (-9, 0.5, 20)), narrow(2), own).follower.item() == 1


def test_a_car_that_is_near_beside_but_stays_there_is_no_contact():
    """People on narrow lanes pass each other at 0.2 m: no reason to leave the lane or to fall back."""
    state = scene((0, 0, 20), (0, -2.2, 20))
    kept = decided(state, Road.straight(2, lane_width_m=2.2))
    assert kept.chosen_lane.item() == 0
    frame = LaneFrame.of(state, Road.straight(2, lane_width_m=2.2), torch.tensor([0]), torch.tensor([[NO_LANE, 1]]))
    keep = [torch.tensor([value]) for value in (0.0, False, 1.0, 0.0, 20.0)]
    assert Rollout(RuleConfig(), frame, *keep).run().item() > 0


def test_a_slow_car_turns_no_faster_than_its_wheels_allow():
    still, speed, length = torch.zeros(2), torch.tensor([3.0, 30.0]), torch.full((2,), 4.5)
    turned = next_heading(still, still + 0.4, speed, length, 0.2)
    state = scene((0, 0, 3), (50, 0, 3))[:, 0]
    state = TrafficState(state.position_m, state.heading_rad, state.speed_mps, length[:1], state.width_m, state.valid)
    most = drive(state, Controls(torch.zeros(1), torch.full((1,), MAX_STEERING_RAD)), 0.2).heading_rad
    assert turned[0].item() == pytest.approx(most.item(), abs=1e-5)
    assert turned[1].item() == pytest.approx(0.4)
    assert next_heading(still, still - 0.4, speed, length, 0.2)[0].item() == pytest.approx(-most.item(), abs=1e-5)


def test_where_no_way_is_free_it_stays_in_its_lane_and_spares_the_car_alongside():
    state = scene((0, 0, 15), (-5.03, 0, 17), (25, 0, 8), (-2, -4, 20), (6, -4, 20))  # about to be hit from behind
    assert decided(state, Road.straight(2)).chosen_lane.item() == 0


def test_a_slow_lane_change_is_seen_a_second_and_a_half_ahead():
    """A person drifts across at 0.6 m/s: 0.8 m from the marking, it crosses it in 1.3 s."""
    road = narrow(2, 3.6)
    state = scene((0, -3.6, 20), (9, -1.0, 20), (30, 0.3, 20))
    state.heading_rad[0, 1] = -0.03
    state.heading_rad[0, 2] = -0.03  # back to its lane's centre
    assert bound_lane(state, road)[0].tolist() == [1, 1, 0]
    right = torch.ones(1, dtype=torch.long)
    assert in_the_way(state, road, right).leader.item() == 1
    frame = LaneFrame.of(state, road, right, torch.tensor([[0, NO_LANE]]))
    assert frame.bound_m[0].tolist() == pytest.approx([0.0, 3.6], abs=0.1)


def test_a_lane_change_is_broken_off_for_one_who_comes_to_the_same_lane_from_its_other_side():
    road = narrow(3, 3.6)
    slow_ahead, rival = (22, 0, 10), (3, -5.9, 20)  # towards the lane in the middle, from the right
    state = scene((0, 0, 20), slow_ahead, rival)
    assert decided(state, road).chosen_lane.item() == 1
    state.heading_rad[0, 2] = 0.035
    assert decided(state, road).chosen_lane.item() == 0


def test_who_changes_lanes_swiftly_is_bound_for_the_next_lane_and_no_further():
    state = scene((0, 0, 20), (30, -0.5, 20), (50, -3.0, 20))
    state.heading_rad[0, 1:] = torch.tensor([-0.3, -0.083])  # 6 m/s; and as highway-env settles, 1 m in 0.6 s
    assert bound_lane(state, Road.straight(3))[0].tolist() == [0, 1, 1]


def test_who_keeps_off_its_lane_s_centre_is_not_taken_to_go_there():
    state = scene((0, 0, 20), (3, -2.5, 20), (30, -2.5, 20))
    state.heading_rad[0, 2] = -0.05
    frame = LaneFrame.of(state, narrow(2), torch.tensor([0]), torch.tensor([[NO_LANE, 1]]))
    assert frame.bound_m[0].tolist() == pytest.approx([-2.5, -2.5 - 20 * 0.05 * 0.6], abs=1e-3)


def test_it_makes_room_within_its_lane_for_a_lorry_that_comes_over_the_marking():
    road = narrow(2, 3.4)
    state = scene((0, 0, 20), (3, -2.3, 20))
    state.heading_rad[0, 1] = 0.019
    goal = Goal(torch.full((1,), 20.0), torch.tensor([NO_LANE]))
    driver = decided(state, road)
    assert driver.chosen_lane.item() == 0
    assert driver.act(TrafficState.stack([state], 1), road, goal).steering_rad.item() > 0.01  # to the left
    far = scene((0, 0, 20), (3, -3.4, 20))
    straight = decided(far, road).act(TrafficState.stack([far], 1), road, goal)
    assert straight.steering_rad.item() == pytest.approx(0.0, abs=1e-4)
