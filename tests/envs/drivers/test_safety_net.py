"""A safety net under any driver."""

from __future__ import annotations

import pytest
import torch
from traffic_scenes import driven_among_the_steady, scene

from drivecast.envs.batched.traffic import BatchedHighwayTraffic
from drivecast.envs.drivers import IdleDriver, IDMConfig, IDMDriver
from drivecast.envs.drivers.safety_net import R157, RSS, RULES, Around, ImaginingSafetyNet, under_net
from drivecast.envs.evaluation.closed_loop import ClosedLoopConfig, run_episodes
from drivecast.envs.evaluation.results import summarise
from drivecast.scripts.driving.driver_kinds import NETS
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.contact import ego_contacts
from drivecast.worldmodel.scene.driver import ImaginingDriver
from drivecast.worldmodel.scene.lane_neighbours import single_lane
from drivecast.worldmodel.scene.road import NO_LANE, Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState

ROAD = Road.straight(lanes=3, length_m=1000.0)


class Leftwards(IdleDriver):
    """Steers to the left for half a second, whoever is there, and straightens: half a lane change."""

    name = "leftwards"

    def reset(self, scene, road, goal) -> None:
        self.steps = 0

    def act(self, history: TrafficState, road: Road, goal: Goal) -> Controls:
        self.steps += 1
        steering = 0.02 if self.steps <= 10 else 0.0
        return Controls(torch.zeros(1), torch.full((1,), steering))


def goal() -> Goal:
    return Goal(torch.tensor([25.0]), torch.tensor([NO_LANE]))


def around(*others: tuple[float, float, float], ego: tuple[float, float, float] = (0.0, 0.0, 20.0)) -> Around:
    return Around.of(scene(ego, *others), single_lane(ROAD, torch.tensor([0])))


@pytest.mark.parametrize(("gap_m", "unsafe"), [(27.0, True), (29.0, False)])
def test_the_least_safe_gap_is_that_of_the_paper(gap_m, unsafe):
    # 20 x 0.3 + 0.5 x 2 x 0.3² + 20.6² / 12 - 13² / 12 = 27.37 ... by definition 1, by hand
    least = 20 * 0.3 + 0.5 * 2.0 * 0.09 + 20.6**2 / 12 - 13.0**2 / 12
    assert 27.0 < least < 29.0
    found = RSS().unsafe_along(around((gap_m + 5.0, 0.0, 13.0)))
    assert found.tolist() == [[False, unsafe]]


def test_beside_each_other_cars_are_safe_until_one_drifts_over():
    rule = RSS()
    assert not bool(rule.unsafe_across(around((0.0, 4.0, 20.0))).any())
    drifting = scene((0.0, 0.0, 20.0), (0.0, 4.0, 20.0))
    drifting.heading_rad[0, 1] = -0.1  # 2 m/s towards the ego, which cannot be stopped within 2 m
    found = rule.unsafe_across(Around.of(drifting, single_lane(ROAD, torch.tensor([0]))))
    assert found.tolist() == [[False, True]]


@pytest.mark.parametrize(
    ("kmh", "gap_m"), [(3.6, 2.0), (10, 3.1), (20, 6.7), (30, 10.8), (40, 15.6), (50, 20.8), (60, 26.7)]
)
def test_the_gaps_are_those_of_the_regulation(kmh, gap_m):
    assert float(R157.gap_m(torch.tensor([kmh / 3.6]))[0]) == pytest.approx(gap_m, abs=0.06)


@pytest.mark.parametrize("rule", ["rss", "r157"])
def test_who_does_nothing_no_longer_drives_into_the_car_ahead(rule):
    traffic = BatchedHighwayTraffic("highway-v0", duration_s=15.0)
    loop, seeds = ClosedLoopConfig(batch=32, keep="none"), range(7_000_000, 7_000_032)
    bare = summarise(run_episodes(traffic, IdleDriver(), seeds, loop).table, "idle", "highway-v0")
    held = summarise(run_episodes(traffic, under_net(rule, IdleDriver()), seeds, loop).table, rule, "highway-v0")
    assert bare["collision_rate"] > 0.3
    assert held["collision_rate"] == 0.0
    assert "net_rate" not in bare
    assert held["net_rate"] >= bare["collision_rate"]  # it acted wherever there would have been a contact
    assert 0.0 < held["net_time_share"] < 0.5
    assert held["off_road_rate"] == 0.0


def test_nobody_steers_into_the_car_beside():
    present = scene((0.0, -4.0, 20.0), (0.0, 0.0, 20.0), (0.0, -8.0, 20.0))
    bare = driven_among_the_steady(Leftwards(), present, ROAD, goal(), 4.0)
    assert bool(ego_contacts(bare[0]).any())
    net = under_net("rss", Leftwards())
    held = driven_among_the_steady(net, present, ROAD, goal(), 4.0)
    assert not bool(ego_contacts(held[0]).any())
    assert float(held.position_m[0, :, 0, 1].max()) > -4.0 + 0.1  # it moved until the net held it


def test_with_nobody_near_the_driver_is_left_alone():
    present, net = scene((0.0, 0.0, 20.0), (400.0, 0.0, 20.0)), under_net("rss", Leftwards())
    net.reset(present, ROAD, goal())
    controls = net.act(present[:, None], ROAD, goal())
    assert float(controls.steering_rad[0]) == pytest.approx(0.02)
    assert net.acted.tolist() == [False]


def test_a_careful_driver_is_hardly_overridden():
    traffic = BatchedHighwayTraffic("highway-v0", duration_s=15.0)
    net = under_net("rss", IDMDriver(IDMConfig()))
    table = run_episodes(traffic, net, range(7_000_000, 7_000_016), ClosedLoopConfig(keep="none")).table
    assert table["net_share"].mean() < 0.03


def test_it_shows_what_its_driver_expects_and_says_which_lane_it_takes():
    class Imagining(IdleDriver):
        chosen_lane = torch.tensor([2])

        def imagine(self, history, road, goal):
            return "expected"

    net = under_net("r157", Imagining())
    assert isinstance(net, ImaginingSafetyNet)
    assert isinstance(net, ImaginingDriver)
    assert net.imagine(None, None, None) == "expected"
    assert net.chosen_lane.tolist() == [2]
    assert net.name == "r157:idle"
    assert not isinstance(under_net("r157", IdleDriver()), ImaginingDriver)


def test_an_unknown_rule_is_refused():
    with pytest.raises(InputError, match="expected one of rss, r157"):
        under_net("hope", IdleDriver())


def test_every_rule_can_be_named():
    assert set(NETS) == set(RULES)
