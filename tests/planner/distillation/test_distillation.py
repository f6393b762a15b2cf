"""What a policy sees of lanes, what a search says of them, and that the one is learned from the other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from traffic_scenes import driven_among_the_steady, history_of, scene

from drivecast.planner.costs.energy import Energy, EnergyConfig
from drivecast.planner.distillation.fitting import FittingConfig, examined, fit, lesson_loss
from drivecast.planner.distillation.teacher import TaughtDriver, of_choices
from drivecast.planner.manoeuvres.manoeuvre import LawConfig, Manoeuvre, with_added
from drivecast.planner.planning.driver import GradientPlanner, PlannerConfig
from drivecast.planner.policy.driver import PolicyDriver, ReactiveDriver
from drivecast.planner.policy.lane_choice import LaneChoiceConfig
from drivecast.planner.policy.lane_energy import LaneEnergy, choices
from drivecast.planner.policy.lane_view import OWN_DRIFT, VIEW_SIZE, lane_view, mirrored_view
from drivecast.planner.policy.network import Policy, PolicyConfig
from drivecast.worldmodel.forecaster.model import WorldModel, WorldModelConfig
from drivecast.worldmodel.recordings.sampling import mirrored, mirrored_road
from drivecast.worldmodel.scene.kinematics import drive
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState

LAWS = PolicyConfig(hidden=8, feedback="laws")
ENERGY = Energy(EnergyConfig())


def goal_of(count: int = 1, desired_mps: float = 30.0) -> Goal:
    return Goal(torch.full((count,), desired_mps), torch.full((count,), -1))


def seen(present: TrafficState, road: Road, bound: int | None = None) -> torch.Tensor:
    here = road.project(present.position_m[:, :1]).lane[:, 0]
    towards = here if bound is None else torch.full_like(here, bound)
    return lane_view(present, present, road, goal_of(len(here)), here, towards, 0.1)


def planner_of(seed: int = 0) -> GradientPlanner:
    torch.manual_seed(seed)
    model = WorldModel(WorldModelConfig(hidden=8, latent_dims=2)).eval().requires_grad_(False)  # constant velocity
    return GradientPlanner(model, PlannerConfig())


def test_the_view_does_not_change_with_the_place_on_the_road_or_the_order_of_others():
    road = Road.straight(4, start_m=-1000.0)
    here = scene((0, -4, 25), (30, -4, 20), (12, 0, 22), (-20, -8, 30))
    moved = replace(here, position_m=here.position_m + torch.tensor([350.0, 0.0]))
    torch.testing.assert_close(seen(here, road), seen(moved, road), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen(here, road), seen(here[:, [0, 3, 1, 2]], road))


def test_what_is_far_or_three_lanes_away_is_not_seen_and_what_is_two_lanes_away_is():
    road = Road.straight(4, start_m=-1000.0)
    alone = seen(scene((0, 0, 25), (500, 0, 20)), road)
    torch.testing.assert_close(alone, seen(scene((0, 0, 25), (10, -12, 20)), road))
    assert not torch.equal(alone, seen(scene((0, 0, 25), (10, -8, 20)), road))


def test_mirroring_the_view_is_viewing_the_mirrored_scene():
    road = Road.straight(3, start_m=-1000.0)
    present = scene((0, -3.5, 25), (30, -4, 20), (12, 0.6, 22), (-20, -8, 30))
    turned = replace(present, heading_rad=present.heading_rad + torch.tensor([[0.02, -0.01, 0.03, 0.0]]))
    view = seen(turned, road, bound=0)
    other, other_road = mirrored(turned[:, None])[:, 0], mirrored_road(road)
    torch.testing.assert_close(mirrored_view(view), seen(other, other_road, bound=0), atol=1e-5, rtol=0)
    torch.testing.assert_close(mirrored_view(mirrored_view(view)), view)


def test_the_search_says_that_the_free_lane_is_worth_it():
    road, present = Road.straight(3, start_m=-1000.0), scene((0, -4, 25), (30, -4, 15), (25, 0, 15))
    found = planner_of().searched(history_of(present, 3), road, goal_of(), torch.tensor([1]))
    energies = of_choices(found, choices(road, torch.tensor([1])))
    assert energies.argmin(1).tolist() == [2]
    best = found.energy[found.best(1)]
    torch.testing.assert_close(energies.min(1).values, best)


def test_a_choice_that_no_plan_sets_out_for_has_no_energy():
    road, present = Road.straight(2, start_m=-1000.0), scene((0, 0, 25), (3, -4, 25))
    found = planner_of().searched(history_of(present, 3), road, goal_of(), torch.tensor([0]))
    energies = of_choices(found, choices(road, torch.tensor([0])))
    assert energies.isfinite().tolist() == [[False, True, False]], "no lane to the left, a car beside on the right"


def test_energies_are_learned_up_to_a_constant_and_judged_on_what_was_not_fitted():
    torch.manual_seed(0)
    views = torch.randn(3000, VIEW_SIZE)
    energies = torch.stack([views[:, OWN_DRIFT], torch.zeros(3000), -views[:, OWN_DRIFT]], 1)  # as in a mirror, too
    energies[:300, 2] = torch.inf
    network = LaneEnergy(32, 1.0)
    before = examined(network, views[2500:], energies[2500:])
    fit(network, views[:2500], energies[:2500], FittingConfig(epochs=20, batch=64), seed=0)
    after = examined(network, views[2500:], energies[2500:])
    assert after["agreement"] > 0.75 > before["agreement"]
    assert after["regret"] < 0.5 * before["regret"]
    shifted = lesson_loss(network(views) + 5.0, energies)
    torch.testing.assert_close(shifted, lesson_loss(network(views), energies), atol=1e-4, rtol=1e-4)
    assert shifted.isfinite().all()


def driven(driver, present: TrafficState, road: Road, seconds: float) -> TrafficState:
    return driven_among_the_steady(driver, present, road, goal_of(len(present.valid)), seconds)


def test_an_untrained_policy_with_laws_follows_and_reaches_the_lane_that_is_named():
    road = Road.straight(3, start_m=-1000.0)
    driver = ReactiveDriver(Policy(LAWS).eval(), ENERGY, chooses=False)
    behind = driven(driver, scene((0, -4, 25), (40, -4, 15)), road, 12.0)
    gap = behind.position_m[0, -1, 1, 0] - behind.position_m[0, -1, 0, 0] - 5.0
    assert 2.0 < gap < 20.0
    assert abs(behind.speed_mps[0, -1, 0] - 15.0) < 0.3
    policy, named = Policy(LAWS).eval(), Goal(torch.tensor([25.0]), torch.tensor([0]))
    now = scene((0, -8, 25))
    for _ in range(100):
        controls = policy(now, now, road, named)
        now = now.with_ego(drive(now[:, 0], controls, 0.1))
    assert abs(now.position_m[0, 0, 1]) < 0.1, "two lanes to the left, past both markings"


def test_what_is_added_to_the_laws_is_bounded_and_the_gradient_reaches_it():
    policy, road = Policy(LAWS), Road.straight(3, start_m=-1000.0)
    present = scene((0, -4, 25), (60, -4, 24))
    plain = policy(present, present, road, goal_of())
    with torch.no_grad():
        policy.net[-1].bias[:] = torch.tensor([-50.0, 50.0])
    pushed = policy(present, present, road, goal_of())
    torch.testing.assert_close(
        pushed.acceleration_mps2 - plain.acceleration_mps2, torch.tensor([-2.0]), atol=1e-2, rtol=0
    )
    assert pushed.steering_rad > plain.steering_rad
    pushed.steering_rad.sum().backward()
    assert policy.net[-1].weight.grad.abs().sum() > 0


def test_of_hard_braking_nothing_is_taken_back_and_no_wish_is_exceeded():
    def driven_at(law_mps2: float, added_mps2: float, speed_mps: float = 25.0, wish_mps: float = 30.0) -> float:
        present, one = scene((0, 0, speed_mps)), torch.ones(1)
        keeping = Manoeuvre(torch.zeros(1, dtype=torch.long), one, wish_mps * one, torch.zeros(1, dtype=torch.bool))
        controls = Controls(law_mps2 * one, 0.0 * one)
        added = with_added(controls, torch.tensor([[added_mps2, 0.0]]), present, keeping, LawConfig())
        return float(added.acceleration_mps2)

    assert driven_at(-8.0, 2.0) == -8.0, "a wall ahead"
    assert driven_at(-5.0, 2.0) == -5.0
    assert driven_at(-1.0, 2.0) == 1.0
    assert driven_at(-3.5, 2.0) == pytest.approx(-2.5)
    assert driven_at(-7.0, -2.0) == -8.0, "braking harder is free"
    assert driven_at(1.0, 2.0) == 2.0, "the law's own limit"
    assert driven_at(0.2, 2.0, speed_mps=29.8) == pytest.approx(0.4, abs=1e-4)
    assert driven_at(-0.4, 2.0, speed_mps=30.5) == pytest.approx(-0.4), "what the law does is not undone either"


def test_taught_by_the_search_the_policy_overtakes_where_it_did_not():
    """Slow leaders at many distances, left and right: what is learned there holds at one that it has not seen."""
    road = Road.straight(3, start_m=-1000.0)
    lessons = []
    for part in range(3):
        scenes = [
            scene((0, -4, 25), (18.0 + 4 * n + part, -4, 15), (15.0 + 3 * n, 0.0 if n % 2 else -8.0, 15), (-60, -4, 15))
            for n in range(12)
        ]
        teacher = TaughtDriver(Policy(LAWS).eval(), planner_of(), 0.5, seed=part)
        driven(teacher, TrafficState.cat(scenes), road[torch.zeros(12, dtype=torch.long)], 5.0)
        lessons.append(teacher.lessons)
    views, energies = (torch.cat(parts) for parts in zip(*lessons, strict=True))
    assert views.shape == (360, VIEW_SIZE)
    assert energies.shape == (360, 3)
    assert ((energies.argmin(1) == 0).any(), (energies.argmin(1) == 2).any()) == (True, True)
    torch.manual_seed(1)
    policy = Policy(replace(LAWS, lane_hidden=32))
    fit(policy.lanes, views, energies, FittingConfig(epochs=80, batch=64), seed=0)
    learned = ReactiveDriver(policy.eval(), ENERGY)
    for side, y in ((1, 0.0), (-1, -8.0)):
        present = scene((0, -4, 25), (40, -4, 15), (31, y, 15), (-60, -4, 15))
        end = driven(learned, present, road, 6.0)
        assert end.position_m[0, -1, 0, 1].item() == pytest.approx(-4 - 4 * side, abs=0.5), "the side that is free"
        assert end.speed_mps[0, -1, 0] > 24.0


def test_an_episode_that_is_over_teaches_nothing_more():
    road, present = Road.straight(3, start_m=-1000.0), scene((0, -4, 25), (30, -4, 15))
    teacher, goal = TaughtDriver(Policy(LAWS).eval(), planner_of(), 1.0, seed=0), goal_of()
    teacher.reset(present, road, goal)
    for _ in range(16):  # it stands still, as one that is over does
        teacher.act(history_of(present, 3)[:, [-1, -1, -1]], road, goal)
    assert len(teacher.lessons[0]) == 1


def test_the_lanes_that_were_offered_are_shown_with_what_they_would_cost():
    torch.manual_seed(3)
    model = WorldModel(WorldModelConfig(hidden=8, latent_dims=2)).eval().requires_grad_(False)
    policy = Policy(replace(LAWS, lane_hidden=8)).eval()
    driver = PolicyDriver(policy, ENERGY, model, LaneChoiceConfig())
    road = Road.straight(2, start_m=-1000.0)[[0, 0]]
    present = TrafficState.cat([scene((0, 0, 25), (30, 0, 20)), scene((0, 0, 25), (2, -4, 25))])
    goal, history = goal_of(2), history_of(present, 3)
    driver.reset(present, road, goal)
    assert driver.imagine(history, road, goal, samples=2, steps=20).weighed is None, "nothing was chosen yet"
    driver.act(history, road, goal)
    shown = driver.imagine(history, road, goal, samples=2, steps=20).weighed
    assert shown.path_m.shape == (2, 3, 4, 2)
    assert shown.lanes[:, 0, 0].tolist() == driver.chosen_lane.tolist()
    assert shown.energy[:, 0].tolist() == [0.0, 0.0]
    assert shown.energy[0, 1] > 0
    assert shown.energy.isnan().tolist() == [[False, False, True], [False, True, True]], "beside a car, one is offered"
    ends = {lane: path for lane, path in zip(shown.lanes[0, :2, 0].tolist(), shown.path_m[0, :2, -1, 1], strict=True)}
    assert ends[0] == pytest.approx(0.0, abs=0.1)
    assert ends[1] < -2.0, "the path of each leads to its lane"
