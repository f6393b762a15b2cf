"""How long decisions take is measured one scene at a time, whatever else is driven in batches."""

from __future__ import annotations

import time

import torch

from drivecast.envs.batched.traffic import BatchedHighwayTraffic
from drivecast.envs.drivers import HumanDriver
from drivecast.envs.evaluation.latency import WARM_UP, decision_ms
from drivecast.worldmodel.scene.traffic import Controls


class Thinks:
    """Takes 20 ms for every fifth decision; crashes soon, for it never steers or brakes."""

    name = "thinks"
    history_steps = 3

    def reset(self, scene, road, goal):
        self.resets = getattr(self, "resets", 0) + 1

    def act(self, history, road, goal):
        self.calls = getattr(self, "calls", 0) + 1
        assert history.valid.shape[0] == 1
        assert history.valid.shape[1] <= self.history_steps
        if self.calls % 5 == 0:
            time.sleep(0.02)
        return Controls(torch.full((1,), 5.0), torch.zeros(1))


def test_the_99th_percentile_is_that_of_the_steps_in_which_a_driver_thinks():
    driver, traffic = Thinks(), BatchedHighwayTraffic("highway-v0", vehicles=20)
    found = decision_ms(traffic, driver, [3], calls=150)
    assert driver.calls == 150 + WARM_UP
    assert driver.resets >= 2  # its episode ended before, so it drove it again
    assert found["decision_ms_p50"] < 20 <= found["decision_ms_p99"]


def test_a_recorded_human_is_not_asked():
    traffic = BatchedHighwayTraffic("highway-v0", vehicles=2)
    assert decision_ms(traffic, HumanDriver(), [0])["decision_ms_p50"] is None
