"""A world of rules: who follows, who does not, and what a gradient reaches."""

import torch
from traffic_scenes import history_of, scene

from drivecast.planner.imagination.rule_world import RuleWorld
from drivecast.planner.planning.driver import RulePlanner
from drivecast.worldmodel.scene.contact import ego_separation_m
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls, Goal

ROAD = Road.straight(3)
PRESENT = scene((0, -4, 20), (-25, -4, 20), (40, 0, 20), (60, -4, 15))


def driven(follows: bool, accelerations, present=PRESENT, steering=0.0) -> RuleWorld:
    history = history_of(present, 2)
    world = RuleWorld.of(present, history[:, 0], ROAD, 0.1, follows)
    for acceleration in accelerations:
        world.advance(Controls(torch.as_tensor(acceleration).reshape(1), torch.tensor([steering])))
    return world


def test_who_follows_brakes_behind_an_ego_that_stops_and_who_does_not_runs_into_it():
    stop = [-6.0] * 60
    follows, holds = driven(True, stop).scene, driven(False, stop).scene
    assert ego_separation_m(follows)[0, 0] > 0.5
    assert follows.speed_mps[0, 1] < 2.0
    torch.testing.assert_close(holds.speed_mps, torch.where(torch.arange(4) == 0, 0.0, PRESENT.speed_mps))
    assert holds.position_m[0, 1, 0] > holds.position_m[0, 0, 0]  # through it


def test_only_those_in_the_way_are_followed():
    away = driven(True, [0.0] * 40)
    alone = driven(True, [0.0] * 40, scene((0, -4, 20), (40, 0, 20)))
    torch.testing.assert_close(away.scene.position_m[:, 2], alone.scene.position_m[:, 1])
    assert away.scene.speed_mps[0, 2] == 20.0  # nobody is ahead on its lane


def test_who_is_between_two_lanes_settles_on_the_one_that_it_is_bound_for():
    present = scene((0, -4, 20), (30, -2.6, 20))
    world = driven(True, [0.0] * 40, present)
    assert abs(world.scene.position_m[0, 1, 1] + 4.0) < 0.05
    assert abs(world.scene.heading_rad[0, 1]) < 0.01


def test_worlds_go_their_own_ways():
    world = driven(True, [0.0] * 3)
    two = world.picked(torch.tensor([0, 0]))
    for _ in range(20):
        two.advance(Controls(torch.tensor([0.0, -6.0]), torch.zeros(2)))
    assert two.scene.position_m[0, 1, 0] > two.scene.position_m[1, 1, 0] + 1.0
    torch.testing.assert_close(two.picked(torch.tensor([1])).scene.position_m, two.scene.position_m[1:])
    assert world.step == 3


def test_the_gradient_is_the_egos_alone():
    acceleration = torch.zeros(10, requires_grad=True)
    end = driven(True, acceleration).scene
    assert not torch.autograd.grad(end.position_m[0, 0, 0], acceleration, retain_graph=True)[0].eq(0).all()
    assert not driven(True, [0.0] * 10).scene.position_m.requires_grad
    others = torch.autograd.grad(end.position_m[0, 1:].sum(), acceleration, allow_unused=True)[0]
    assert others is None or others.eq(0).all()


def test_the_planner_overtakes_in_it():
    present = scene((0, -4, 25), (40, -4, 15))
    planner, goal = RulePlanner(True), Goal(torch.tensor([30.0]), torch.tensor([-1]))
    planner.reset(present, ROAD, goal)
    world = driven(True, [], present)
    for _ in range(60):
        world.advance(planner.act(history_of(world.scene, 4), ROAD, goal))
        assert ego_separation_m(world.scene)[0, 0] > 0.3
    assert world.scene.position_m[0, 0, 0] > world.scene.position_m[0, 1, 0]
    assert world.scene.speed_mps[0, 0] > 26.0
    imagined = planner.imagine(history_of(world.scene, 4), ROAD, goal, samples=2, steps=10)
    assert imagined.futures_m.shape == (1, 2, 10, 2, 2)
