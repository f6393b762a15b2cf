"""highway-env's traffic in lockstep."""

from __future__ import annotations

import pickle

import gymnasium
import numpy as np
import pytest
import torch

from drivecast.envs.highway.traffic import HighwayTraffic
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.road import NO_LANE
from drivecast.worldmodel.scene.traffic import Controls


def controls(*pairs: tuple[float, float]) -> Controls:
    acceleration, steering = torch.tensor(pairs, dtype=torch.float32).unbind(-1)
    return Controls(acceleration, steering)


def alone(traffic: HighwayTraffic) -> HighwayTraffic:
    """Put everyone but the egos far away."""
    for users in traffic._users:
        for user in users[1:]:
            user.position[0] += 5000
    return traffic


def test_left_steering_moves_to_the_left_lane():
    traffic = HighwayTraffic(lanes=3)
    seeds = [seed for seed in range(12) if traffic.reset([seed]).history.position_m[0, 0, 0, 1] == -4.0][:2]
    start = traffic.reset(seeds)
    alone(traffic)
    for _ in range(15):
        step = traffic.step(controls((0.0, 0.02), (0.0, -0.02)))
    assert step.state.heading_rad[0, 0] > 0.05
    assert step.state.heading_rad[1, 0] < -0.05
    lanes = start.road.project(step.state.position_m).lane[:, 0]
    assert start.road.project(start.history.position_m[:, 0]).lane[:, 0].tolist() == [1, 1]
    assert lanes.tolist() == [0, 2]
    assert start.road.left[0].tolist() == [NO_LANE, 0, 1]
    assert start.road.right[0].tolist() == [1, 2, NO_LANE]


@pytest.mark.parametrize("environment", ["highway-v0", "highway-fast-v0", "merge-v1"])
def test_follows_highway_env_step_by_step(environment):
    """Against highway-env itself, untouched, with its own action scaling; merge refuses continuous ones."""
    continuous = environment != "merge-v1"
    config = {"simulation_frequency": 10, "policy_frequency": 10}
    if continuous:
        wide = {"acceleration_range": [-10, 10], "steering_range": [-1, 1]}
        config |= {"vehicles_count": 20, "action": {"type": "ContinuousAction", **wide}}
    theirs = gymnasium.make(environment, config=config).unwrapped
    theirs.reset(seed=5)
    traffic = HighwayTraffic(environment)
    traffic.reset([5])
    draw = np.random.default_rng(0)
    for _ in range(40):
        acceleration, steering = (0.0, 0.0) if not continuous else (draw.normal(), 0.01 * draw.normal())
        step = traffic.step(Controls(*torch.tensor([[acceleration], [steering]], dtype=torch.float64)))
        if continuous:
            theirs.step(np.array([acceleration / 10, -steering]))
        else:
            theirs.vehicle.action = {"acceleration": 0.0, "steering": 0.0}
            theirs.road.vehicles[0].act = lambda action=None: None
            theirs._simulate(None)
        expected = [(v.position[0], -v.position[1], v.speed, -v.heading) for v in theirs.road.vehicles]
        state = traffic._state[0, : len(expected)]
        np.testing.assert_allclose(state[:, [0, 1, 3, 2]], expected, rtol=0, atol=1e-9)
        assert bool(step.collided[0]) == theirs.vehicle.crashed
        if step.ended[0]:
            break


def test_a_seed_is_the_same_episode_in_any_batch():
    traffic = HighwayTraffic()
    together = traffic.reset([3, 8, 11]).history
    apart = HighwayTraffic().reset([8]).history
    assert torch.equal(together.position_m[1], apart.position_m[0])
    assert not torch.equal(together.position_m[0], together.position_m[1])
    again = pickle.loads(pickle.dumps(traffic)).reset([8]).history
    assert torch.equal(again.speed_mps, apart.speed_mps)
    assert apart.valid.all()
    assert apart.position_m.shape == (1, 1, 21, 2)


def test_an_ended_episode_is_frozen_and_tells_its_event_once():
    traffic = HighwayTraffic("merge-v1")
    traffic.reset([0, 1])
    ended = {}
    for number in range(40):
        step = traffic.step(controls((6.0, 0.0), (-8.0, 0.0)))
        if step.ended[0]:
            ended[number] = step
        if ended:
            assert torch.equal(step.state.position_m[0], next(iter(ended.values())).state.position_m[0])
    assert len(ended) == 1
    (event,) = ended.values()
    assert event.collided[0]
    assert not event.completed[0]
    assert not event.off_road[0]


def test_a_braking_ego_stands_and_does_not_reverse():
    traffic = HighwayTraffic()
    traffic.reset([0])
    alone(traffic)
    for _ in range(45):
        step = traffic.step(controls((-20.0, 0.0)))
        assert -8.0 <= step.controls.acceleration_mps2[0] <= 0
    assert step.state.speed_mps[0, 0] == pytest.approx(0.0, abs=1e-6)


def test_leaving_the_road_ends_the_episode():
    traffic = HighwayTraffic()
    traffic.reset([0])
    alone(traffic)
    for _ in range(60):
        step = traffic.step(controls((0.0, 0.05)))
        if step.ended[0]:
            break
    assert step.off_road.tolist() == [True]
    assert step.state.position_m[0, 0, 1] > 2.0
    assert not step.collided[0]


def test_lasting_a_highway_episode_completes_it():
    traffic = HighwayTraffic(duration_s=1.0)
    traffic.reset([0])
    for number in range(10):
        step = traffic.step(controls((0.0, 0.0)))
        assert step.ended.item() == (number == 9)
    assert step.completed.item()
    assert not step.timed_out.item()


def test_passing_the_merge_completes_it_and_dawdling_times_out():
    traffic = HighwayTraffic("merge-v1", duration_s=14.0)
    traffic.reset([0, 0])
    alone(traffic)
    last = []
    for _ in range(140):
        step = traffic.step(controls((0.0, 0.0), (-2.0, 0.0)))
        last.append((step.completed.tolist(), step.timed_out.tolist()))
    assert [completed[0] for completed, _ in last].index(True) == pytest.approx(113, abs=2)  # 340 m at 30 m/s
    assert last[-1] == ([False, False], [False, True])


def test_the_end_of_the_merge_ramp_is_closed_and_its_obstacle_is_seen():
    traffic = HighwayTraffic("merge-v1")
    start = traffic.reset([0])
    scene, road = start.history[:, -1], start.road
    assert scene.position_m[0, -1].tolist() == [310.0, -8.0]
    assert scene.speed_mps[0, -1] == 0
    assert (scene.length_m[0, -1], scene.width_m[0, -1], bool(scene.valid[0, -1])) == (2.0, 2.0, True)
    assert road.open_end[0].tolist() == [True, True, False]
    assert road.left[0].tolist() == [NO_LANE, 0, 1]
    assert road.right[0].tolist() == [1, NO_LANE, NO_LANE]  # nobody may change to the ramp
    network = traffic._simulators[0].road.network
    ramp = network.get_lane(("k", "b", 0))
    points = [ramp.position(along, 0) * [1, -1] for along in np.linspace(0.5, 79.5, 80)]
    there = road.project(torch.tensor(np.array(points), dtype=torch.float32)[None])
    assert (there.lane == 2).all()
    assert there.across_m.abs().max() < 0.01
    assert road.off_road_m(torch.tensor([[[330.0, -8.0]]])).item() == pytest.approx(2.0)  # across to the open lane


@pytest.mark.parametrize("name", ["highway-v9", "parking-v0"])
def test_an_unknown_environment_is_refused_in_one_line(name):
    with pytest.raises(InputError, match=r"expected one of highway-v0, .*; got '" + name) as caught:
        HighwayTraffic(name)
    assert "\n" not in str(caught.value)


def test_no_human_drives_in_simulation():
    traffic = HighwayTraffic()
    traffic.reset([0])
    with pytest.raises(InputError, match="has no recorded ego"):
        traffic.step(None)
