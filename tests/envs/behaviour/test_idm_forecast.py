"""Claims about traffic that is forecast by IDM."""

import pytest
import torch
from traffic_scenes import history_of, scene

from drivecast.envs.behaviour.fitted_drivers import DriverTraits, FittedDrivers
from drivecast.envs.behaviour.idm_forecast import idm_forecast
from drivecast.worldmodel.scene.road import Road

DRIVERS = FittedDrivers(DriverTraits(1.0, 1.5, 2.0, 1.0, 20.0), DriverTraits(0.0, 0.0, 0.0, 0.0, 0.0))
ROAD = Road.straight(2)


def test_a_follower_closes_up_to_its_headway_and_no_further():
    history = history_of(scene((0, 0, 28), (80, 0, 20), (0, -4, 20)), 3)
    future = idm_forecast(DRIVERS, history, ROAD, 300)
    gap = future.position_m[0, :, 1, 0] - future.position_m[0, :, 0, 0] - 5
    assert gap.min() > 2.0
    # (2 m + 20 m/s x 1 s) / sqrt(1 - (20/28)^4) = 25.6 m in the end
    assert 22 < float(gap[-1]) < 32
    assert float(future.speed_mps[0, -1, 0]) == pytest.approx(20.0, abs=0.3)
    torch.testing.assert_close(future.speed_mps[0, :, 2], torch.full((300,), 20.0), atol=0.1, rtol=0)


def test_everybody_keeps_to_its_place_across_the_lane():
    history = history_of(scene((0, 0.5, 20), (30, -4, 15)), 3)
    future = idm_forecast(DRIVERS, history, ROAD, 50)
    torch.testing.assert_close(future.position_m[0, :, 0, 1], torch.full((50,), 0.5))
