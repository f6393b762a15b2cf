"""The planner's search and refinement, in a world whose cars keep their speed (an untrained world model)."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from traffic_scenes import driven_among_the_steady, history_of, scene

from drivecast.planner.imagination.world import ImaginedWorld
from drivecast.planner.manoeuvres.manoeuvre import Law, LawConfig, Manoeuvre
from drivecast.planner.planning.driver import GradientPlanner, PlannerConfig
from drivecast.planner.planning.refinement import Refinement, RefinementConfig
from drivecast.planner.planning.search import SearchConfig
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.draws import LatentDraws
from drivecast.worldmodel.scene.kinematics import drive
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Goal, TrafficState

FREE = PlannerConfig(spread=False)  # each decision in one step


def goal_of(scenes: TrafficState, desired_mps: float = 30.0, lane: int = -1) -> Goal:
    batch = len(scenes.valid)
    return Goal(torch.full((batch,), desired_mps), torch.full((batch,), lane))


def decided(model, present, lanes=3, config=FREE, road=None, goal_lane=-1):
    """The planner after one decision in `present`, and its controls."""
    road = road or Road.straight(lanes, batch=len(present.valid), start_m=-1000.0)
    planner, goal = GradientPlanner(model, config), goal_of(present, lane=goal_lane)
    planner.reset(present, road, goal)
    controls = planner.act(history_of(present, 3), road, goal)
    return planner, controls


def driven(model, present, seconds, config=FREE, road=None, lanes=3):
    """States of a closed loop whose others keep their velocity, as the model expects."""
    road = road or Road.straight(lanes, batch=len(present.valid), start_m=-1000.0)
    return driven_among_the_steady(GradientPlanner(model, config), present, road, goal_of(present), seconds)


def test_it_steers_for_the_free_lane_beside_a_slow_leader(model):
    present = scene((0, -4, 25), (30, -4, 15), (25, 0, 15))
    planner, controls = decided(model, present)
    assert planner.chosen_lane.tolist() == [2]
    assert controls.steering_rad[0] < 0


def test_it_sees_that_a_change_pays_only_because_another_follows(model):
    """Own lane and the next are blocked alike; the one after is free: only two changes in a row gain anything."""
    present = scene((0, 0, 25), (40, 0, 15), (62, -4, 15))
    planner, _ = decided(model, present)
    assert planner.chosen_lane.tolist() == [1]
    short = replace(FREE, search=replace(FREE.search, horizon_s=1.5))
    assert decided(model, present, config=short)[0].chosen_lane.tolist() == [0]


def test_it_goes_to_the_lane_that_the_goal_names_though_that_one_is_slower(model):
    present = scene((0, 0, 25), (60, -8, 20))
    assert decided(model, present)[0].chosen_lane.tolist() == [0]
    assert decided(model, present, goal_lane=2)[0].chosen_lane.tolist() == [1]


def test_it_does_not_enter_the_way_of_who_speeds_up_from_behind_and_does_not_yield(model):
    """At its present speed the car behind would stay behind: only its speeding up tells."""
    present, road = scene((0, -4, 25), (35, -4, 15), (-16, 0, 25)), Road.straight(2, start_m=-1000.0)
    history = history_of(present, 3)
    assert decided(model, present, lanes=2)[0].chosen_lane.tolist() == [0]
    history.speed_mps[:, -2, 2] -= 0.4
    planner = GradientPlanner(model, FREE)
    planner.reset(present, road, goal_of(present))
    planner.act(history, road, goal_of(present))
    assert planner.chosen_lane.tolist() == [1]


def test_it_does_not_change_into_a_car_alongside(model):
    present = scene((0, 0, 25), (30, 0, 15), (0, -4, 25))
    assert decided(model, present, lanes=2)[0].chosen_lane.tolist() == [0]


def test_full_braking_is_always_among_the_plans_and_taken_when_nothing_else_avoids_a_contact(model):
    planner, controls = decided(model, scene((0, 0, 25), (46, 0, 0)), lanes=1)
    assert planner.found is not None
    assert planner.found.manoeuvre.brakes.any()
    assert controls.acceleration_mps2[0] < -6


def test_a_plan_costs_what_comes_of_it(model):
    """Where others do as imagined, driving the plan for its whole horizon costs exactly what was found."""
    config = replace(FREE, decide_every_s=6.0, refinement=replace(FREE.refinement, iterations=0))
    present = scene((0, -4, 25), (30, -4, 15), (25, 0, 15))
    planner, _ = decided(model, present, config=config)
    best = planner.found.best(1)
    stretch = planner.found.stretches[-1]
    expected = stretch.states.position_m[planner.found.way(best)[-1], -1, 0]
    reached = driven(model, present, 6.0, config).position_m[:, -1, 0]
    torch.testing.assert_close(reached, expected, atol=0.05, rtol=0)


def test_episodes_of_a_batch_do_not_depend_on_each_other(model):
    one, other = scene((0, -4, 25), (30, -4, 15), (25, 0, 15)), scene((0, 0, 20), (80, 0, 18), (-20, -4, 24))
    both = TrafficState.cat([one, other])
    planner, controls = decided(model, both)
    for number, alone in enumerate((one, other)):
        single, its_controls = decided(model, alone)
        assert single.chosen_lane[0] == planner.chosen_lane[number]
        torch.testing.assert_close(its_controls.acceleration_mps2[0], controls.acceleration_mps2[number])
        torch.testing.assert_close(its_controls.steering_rad[0], controls.steering_rad[number])


def test_the_beam_keeps_as_many_plans_as_it_may_and_the_best_of_them(model):
    present = scene((0, -4, 25), (30, -4, 15), (25, 0, 15))
    wide = decided(model, present, config=replace(FREE, search=replace(FREE.search, beam=64)))[0].found
    narrow = decided(model, present, config=replace(FREE, search=replace(FREE.search, beam=3)))[0].found
    assert len(narrow.energy) <= 10 < len(wide.energy)
    assert wide.energy.min() <= narrow.energy.min() + 1e-5


def test_plans_are_judged_by_the_worst_of_their_futures(model):
    planner = GradientPlanner(model, replace(FREE, search=SearchConfig(futures=4, worst_share=0.5)))
    cost = torch.tensor([[1.0, 2.0, 3.0, 10.0], [4.0, 4.0, 4.0, 4.0]])
    assert planner.search.judged(cost).tolist() == [6.5, 4.0]


def world_of(model, present, road):
    history = history_of(present, 3)
    return ImaginedWorld(model, model.observe(history, road), history[:, -2], road, LatentDraws(model, False))


def test_the_gradient_of_a_refinement_is_that_of_its_cost(model):
    exact = copy.deepcopy(model).double()
    road = Road.straight(2, start_m=-1000.0).map(lambda t: t.double() if t.is_floating_point() else t)
    present = scene((0, 0.3, 25), (40, 0, 18), dtype=torch.float64)
    refinement = Refinement(RefinementConfig(horizon_s=1.0, knots=3), GradientPlanner(exact, FREE).search)
    gap, wish = torch.tensor([[0.3], [30.0]], dtype=torch.float64)
    plan = Manoeuvre(torch.tensor([0]), gap, wish, torch.tensor([False]))
    goal = Goal(wish, torch.tensor([-1]))

    def cost(knots):
        world = world_of(exact, present, road)
        return refinement.costs(world, goal, plan, torch.tensor([[0]]), knots, 0)[0].sum()

    knots = 0.1 * torch.ones(1, 2, 3, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(cost, knots.requires_grad_(), eps=1e-6, atol=1e-5)


def one_plan():
    return Manoeuvre(torch.tensor([0]), torch.tensor([0.3]), torch.tensor([30.0]), torch.tensor([False]))


def refined(refinement, world, goal, plan, lanes, before=None):
    *_, reached = refinement.pass_by_pass(world, goal, plan, lanes, before=before)
    return reached


def test_a_refinement_lowers_the_cost_and_never_keeps_what_does_not(model):
    road, present = Road.straight(2, start_m=-1000.0), scene((0, 0.3, 25), (40, 0, 18))
    planner = GradientPlanner(model, FREE)
    world, goal, lanes = world_of(model, present, road), goal_of(present), torch.tensor([[0]])
    gains = []
    for config in (RefinementConfig(iterations=4), RefinementConfig(steps_mps2=(1e3,), most_mps2=50.0)):
        added, gain = refined(Refinement(config, planner.search), world, goal, one_plan(), lanes)
        gains.append(gain.item())
        assert added.abs().max() <= config.most_mps2
    assert gains[0] > 0.01
    assert gains[1] == 0.0


def test_a_refinement_goes_on_from_the_one_before_where_that_is_better_than_nothing(model):
    road, present = Road.straight(2, start_m=-1000.0), scene((0, 0.3, 25), (40, 0, 18))
    planner = GradientPlanner(model, FREE)
    world, goal, lanes = world_of(model, present, road), goal_of(present), torch.tensor([[0]])
    refinement = Refinement(RefinementConfig(), planner.search)
    first, gain = refined(refinement, world, goal, one_plan(), lanes)
    assert refined(refinement, world, goal, one_plan(), lanes, before=first)[1] > gain * 1.05
    _, after_nonsense = refined(refinement, world, goal, one_plan(), lanes, before=-2.0 * torch.ones_like(first))
    torch.testing.assert_close(after_nonsense, gain)


def test_spread_over_steps_it_comes_to_the_same_decision_later_and_keeps_its_lane_until_then(model):
    present = scene((0, -4, 25), (30, -4, 15), (-60, -8, 33))
    road, goal, history = Road.straight(3, start_m=-1000.0), goal_of(present), history_of(present, 3)
    at_once, _ = decided(model, present)
    spread = GradientPlanner(model, PlannerConfig())
    spread.reset(present, road, goal)
    chosen = []
    for _ in range(spread.decide_every):
        spread.act(history, road, goal)
        chosen.append(spread.chosen_lane.item())
    assert chosen[0] == 1
    assert chosen[-1] == at_once.chosen_lane.item() == 0
    torch.testing.assert_close(spread.found.energy, at_once.found.energy)


def test_its_acceleration_grows_step_by_step_and_brakes_at_once(model):
    free, blocked = scene((0, 0, 15)), scene((0, 0, 25), (46, 0, 0))
    calm = replace(FREE, law=LawConfig(rise_mps3=5.0))
    _, controls = decided(model, free, config=calm)
    torch.testing.assert_close(controls.acceleration_mps2, torch.tensor([0.5]))
    assert decided(model, free, config=replace(FREE, law=LawConfig(rise_mps3=1e6)))[1].acceleration_mps2 > 1.9
    assert decided(model, blocked, lanes=1, config=calm)[1].acceleration_mps2 < -6
    speeds = driven(model, free, 1.0, calm).speed_mps[0, :, 0]
    torch.testing.assert_close(speeds.diff().diff()[:3], torch.full((3,), 0.05), atol=2e-3, rtol=0)


def test_the_law_stops_before_the_end_of_a_lane_and_behind_who_stands(model):
    ends = replace(Road.straight(1, length_m=100.0), open_end=torch.tensor([[False]]))
    roads = Road.cat([ends, Road.straight(1, start_m=-1000.0)])
    present = TrafficState.cat([scene((0, 0, 20), (-50, 0, 0)), scene((0, 0, 20), (100, 0, 0))])
    seldom = replace(FREE, decide_every_s=1.5, search=replace(FREE.search, horizon_s=3.0))
    states = driven(model, present, 15.0, seldom, road=roads)
    at_the_end, behind = states.position_m[:, -1, 0, 0].tolist()
    assert 90 < at_the_end < 97.5
    assert states.speed_mps[0, -1, 0] < 0.3
    assert 85 < behind < 95


@pytest.mark.parametrize(("along_m", "brakes"), [(2.0, False), (12.0, True)])
def test_the_law_yields_to_who_drifts_over_from_ahead_and_not_to_who_is_alongside(along_m, brakes):
    plan = Manoeuvre(torch.tensor([0]), torch.tensor([0.3]), torch.tensor([25.0]), torch.tensor([False]))
    state = scene((0, 0, 25), (along_m, -3.0, 25))
    state.heading_rad[0, 1] = 0.05  # 1.25 m/s to the left
    acceleration = Law(plan, Road.straight(2), LawConfig()).controls(state).acceleration_mps2
    assert (acceleration[0] < -1.0) == brakes


def test_a_lane_change_keeps_to_the_lateral_acceleration_that_is_allowed():
    road, config = Road.straight(2), LawConfig(lateral_mps2=2.0)
    plan = Manoeuvre(torch.tensor([1]), torch.tensor([1.0]), torch.tensor([25.0]), torch.tensor([False]))
    law, state = Law(plan, road, config), scene((0, 0, 25))
    yaw_rates, across = [], []
    for _ in range(60):
        before = state.heading_rad[0, 0]
        state = state.with_ego(drive(state[:, 0], law.controls(state), 0.1))
        yaw_rates.append((state.heading_rad[0, 0] - before) / 0.1)
        across.append(state.position_m[0, 0, 1].item())
    assert (torch.stack(yaw_rates).abs() * 25).max() < 2.05
    assert across[-1] == pytest.approx(-4, abs=0.05)
    assert min(across) > -4.1  # no overshoot


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: SearchConfig(beam=0),
        lambda: SearchConfig(time_gaps_s=()),
        lambda: RefinementConfig(knots=1),
        lambda: LawConfig(lateral_mps2=0.0),
        lambda: PlannerConfig(decide_every_s=0.0),
    ],
)
def test_what_makes_no_planner_is_refused(wrong):
    with pytest.raises(InputError):
        wrong()
