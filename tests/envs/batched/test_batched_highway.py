"""The batched simulator is highway-env: same seeds, same actions, same future; and it can be differentiated."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drivecast.envs.batched import simulator
from drivecast.envs.batched.parity import compare
from drivecast.envs.batched.simulator import BatchedHighway, advance
from drivecast.envs.batched.traffic import BatchedHighwayTraffic
from drivecast.envs.drivers import ConstantVelocityDriver
from drivecast.envs.evaluation.closed_loop import ClosedLoopConfig, run_episodes
from drivecast.envs.highway.simulator import mended_class
from drivecast.envs.highway.traffic import HighwayTraffic
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.rules.driver_parameters import DriverParameters
from drivecast.worldmodel.rules.elementary import numpy_functions

CONTINUOUS = {"type": "ContinuousAction"}
TEN_HERTZ = {"action": CONTINUOUS, "simulation_frequency": 10, "policy_frequency": 10}


@pytest.mark.parametrize(
    ("environment", "config", "seeds", "steps"),
    [
        ("highway-v0", {}, 1, 12),
        ("highway-fast-v0", {}, 4, 30),  # seed 3 comes to cars that roll backwards, where a last bit grows to metres
        ("highway-v0", TEN_HERTZ, 2, 80),
        ("merge-v0", {}, 3, 20),
        ("merge-v1", {}, 3, 20),
        ("merge-v1", TEN_HERTZ, 2, 120),
        ("merge-generic-v1", {"lanes_count": 3, "vehicles_count": 8}, 2, 15),
    ],
)
def test_the_same_seeds_and_actions_give_highway_envs_future(environment, config, seeds, steps):
    found = compare(environment, config, range(seeds), steps)
    assert found.forks == []
    assert found.steps == seeds * steps
    assert found.largest < 1e-9
    assert found.largest_reward < 1e-9
    assert found.lane_changes > 0


def test_torchs_own_sines_differ_by_a_last_bit_until_a_car_rolls_backwards():
    batched, by_numpy = BatchedHighway("highway-fast-v0"), BatchedHighway("highway-fast-v0")
    for one in (batched, by_numpy):
        one.reset(range(20))
    for _ in range(8):
        batched.step(torch.ones(20, dtype=torch.long))
        with numpy_functions():
            by_numpy.step(torch.ones(20, dtype=torch.long))
    assert not torch.equal(batched.scene.y_m, by_numpy.scene.y_m)
    torch.testing.assert_close(batched.scene.x_m, by_numpy.scene.x_m, atol=1e-9, rtol=0)


def test_the_comparison_notices_a_driver_who_keeps_another_distance(monkeypatch):
    monkeypatch.setattr(simulator, "HIGHWAY_ENV", DriverParameters(time_gap_s=1.5001))
    assert compare("highway-fast-v0", {}, range(1), 5).forks


def test_pile_ups_are_pushed_apart_as_in_highway_env():
    found = compare("highway-v0", {"vehicles_count": 30, "lanes_count": 1, "duration": 60}, range(1), 15)
    assert found.forks == []
    crowded = compare("highway-v0", {"vehicles_count": 25, "lanes_count": 2, "vehicles_density": 3.0}, range(2), 12)
    assert crowded.forks == []
    assert crowded.crashed > 2


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    vehicles=st.integers(0, 18),
    lanes=st.integers(1, 6),
    density=st.floats(0.5, 3.0),
    frequency=st.sampled_from([4, 5, 10, 15, 20]),
    continuous=st.booleans(),
    seed=st.integers(0, 2**31 - 1),
)
def test_any_traffic_is_highway_envs(vehicles, lanes, density, frequency, continuous, seed):
    config = {
        "vehicles_count": vehicles,
        "lanes_count": lanes,
        "vehicles_density": density,
        "simulation_frequency": frequency,
        "policy_frequency": frequency if continuous else 1,
    }
    if continuous:
        config["action"] = CONTINUOUS
    assert compare("highway-v0", config, [seed], 30 if continuous else 6).forks == []


def test_episodes_that_restart_alone_leave_the_others_as_they_are():
    batched = BatchedHighway("highway-fast-v0")
    batched.reset([0, 1, 2])
    batched.step(torch.tensor([1, 1, 1]))
    before = batched.scene
    batched.restart(torch.tensor([1]), [7])
    assert torch.equal(batched.scene.x_m[[0, 2]], before.x_m[[0, 2]])
    reference = mended_class("highway-fast-v0")()
    reference.reset(seed=7)
    expected = np.array([vehicle.position[0] for vehicle in reference.road.vehicles])
    np.testing.assert_array_equal(batched.scene.x_m[1].numpy(), expected)
    assert batched.time_s.tolist() == [1.0, 0.0, 1.0]


def test_gradients_are_those_of_finite_differences():
    batched = BatchedHighway("highway-v0", {**TEN_HERTZ, "vehicles_count": 12})
    scene = batched.reset([3])
    scene = scene.but(timer_s=torch.zeros_like(scene.timer_s))  # nobody thinks of changing lane within a second

    def rollout(controls, x, speed):
        now = scene.but(x_m=x, speed_mps=speed)
        for control in controls:
            now = now.but(
                acceleration_mps2=torch.cat([control[None, :1], now.acceleration_mps2[:, 1:]], 1),
                steering_rad=torch.cat([control[None, 1:], now.steering_rad[:, 1:]], 1),
            )
            now = advance(now, batched.lanes, 0.1)
        return torch.stack([now.x_m, now.y_m, now.speed_mps, now.heading_rad])

    controls = torch.tensor([[1.0, 0.01]] * 5 + [[-2.0, -0.01]] * 4, dtype=torch.float64, requires_grad=True)
    x, speed = scene.x_m.clone().requires_grad_(), scene.speed_mps.clone().requires_grad_()
    assert torch.autograd.gradcheck(rollout, (controls, x, speed), eps=1e-6, atol=1e-6)
    # the car behind answers to the ego: what it does depends on the ego's controls
    follower = torch.autograd.grad(rollout(controls, x, speed)[2].sum(), controls)[0]
    assert follower.abs().sum() > 0.1


def test_closed_loop_episodes_are_those_of_highway_env():
    tables = [
        run_episodes(traffic, ConstantVelocityDriver(), range(6), ClosedLoopConfig(batch=6, keep="none")).table
        for traffic in (
            HighwayTraffic("highway-v0", duration_s=14.0),
            BatchedHighwayTraffic("highway-v0", duration_s=14.0),
        )
    ]
    assert tables[0]["outcome"].tolist() == tables[1]["outcome"].tolist()
    assert {"collision", "completed"} <= set(tables[0]["outcome"])
    for column in ("distance_m", "duration_s", "min_ttc_s"):
        np.testing.assert_allclose(tables[0][column], tables[1][column], rtol=1e-4)


def test_float32_drives_alike_for_a_while():
    double, single = BatchedHighway("highway-fast-v0"), BatchedHighway("highway-fast-v0", dtype=torch.float32)
    for batched in (double, single):
        batched.reset(range(20))
        for _ in range(3):
            batched.step(torch.ones(20, dtype=torch.long))
    torch.testing.assert_close(single.scene.x_m.double(), double.scene.x_m, atol=0.05, rtol=0)


def test_what_is_not_supported_is_refused_with_one_line():
    with pytest.raises(InputError, match="environment: expected one of highway-v0"):
        BatchedHighway("roundabout-v0")
    with pytest.raises(InputError, match="controlled_vehicles: 2 is not supported"):
        BatchedHighway("highway-v0", {"controlled_vehicles": 2})
