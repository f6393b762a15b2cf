"""A taught concept as a term of the energy, and the planner that drives by it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from traffic_scenes import driven_among_the_steady, history_of, scene

from drivecast.planner.costs.concept import Concept, ConceptTerm, concept_terms
from drivecast.planner.costs.concept_rule import ConceptByRule
from drivecast.planner.costs.energy import Energy, EnergyConfig
from drivecast.planner.costs.trajectory import Trajectory
from drivecast.planner.planning.driver import PlannerConfig, RulePlanner
from drivecast.worldmodel.concepts.loading import CONCEPTS_FILE, CONCEPTS_KIND, TaughtConcept, load_concepts
from drivecast.worldmodel.concepts.relation_energy import RelationEnergy, RelationEnergyConfig
from drivecast.worldmodel.concepts.rules import BY_NAME
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState
from drivecast.worldmodel.storage.checkpoint import save_model

SMALL = RelationEnergyConfig(code_dims=4, hidden=12, relation_dims=6, outputs=4)
CARS = ((0.0, 0.0, 20.0), (35.0, 0.0, 20.0), (5.0, -4.0, 20.0), (-20.0, -4.0, 20.0))


def stretch(steps: int = 15) -> Trajectory:
    states = history_of(scene(*CARS), steps)
    nothing = torch.zeros(1, steps)
    goal = Goal(torch.tensor([25.0]), torch.tensor([-1]))
    return Trajectory(states, Controls(nothing, nothing), nothing[:, 0], Road.straight(3, start_m=-200.0), goal, 0.1)


def attending(trajectory: Trajectory, *agents: int) -> Trajectory:
    told = torch.zeros(1, 1, 4, dtype=torch.bool)
    told[0, 0, list(agents)] = True
    return replace(trajectory, goal=replace(trajectory.goal, attended=told))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return RelationEnergy(SMALL).eval().requires_grad_(False)


@pytest.fixture
def folder(tmp_path, model):
    save_model(tmp_path / CONCEPTS_FILE, model, CONCEPTS_KIND, SMALL)
    loaded = load_concepts(tmp_path)
    TaughtConcept("follow", torch.ones(4), 1, str(loaded.path), loaded.digest).write(tmp_path / "follow.json")
    return tmp_path


def test_a_concept_is_about_whom_the_goal_says(model):
    concept = Concept(model, torch.ones(4))
    told = [float(concept(attending(stretch(), agent))[0, 0]) for agent in (1, 2, 3)]
    assert len(set(told)) == 3


def test_without_being_told_it_is_about_whom_it_is_lowest_of(model):
    concept, trajectory = Concept(model, torch.ones(4)), stretch()
    told = {agent: float(concept(attending(trajectory, agent))[0, 0]) for agent in (1, 2, 3)}
    energy, about = concept.judged(trajectory.states, trajectory.road, 0.1)
    assert about[0].nonzero()[:, 0].tolist() == [min(told, key=told.get)]
    assert float(energy) == pytest.approx(min(told.values()))


def test_who_is_not_there_is_never_meant(model):
    concept, trajectory = Concept(model, torch.ones(4)), stretch()
    _, about = concept.judged(trajectory.states, trajectory.road, 0.1)
    valid = trajectory.states.valid.clone()
    valid[..., about[0]] = False
    _, other = concept.judged(replace(trajectory.states, valid=valid), trajectory.road, 0.1)
    assert bool(other.any())
    assert not bool((about & other).any())


def test_a_concept_about_two_attends_to_two(model):
    _, about = Concept(model, torch.ones(4), attends_to=2).judged(stretch().states, stretch().road, 0.1)
    assert int(about.sum()) == 2


def test_the_gradient_reaches_the_ego_s_positions(model):
    trajectory = stretch()
    position = trajectory.states.position_m.clone().requires_grad_(True)
    states = replace(trajectory.states, position_m=position)
    Concept(model, torch.ones(4))(replace(attending(trajectory, 1), states=states)).sum().backward()
    assert float(position.grad[0, :, 0].abs().sum()) > 0


def test_a_single_step_says_nothing(model):
    assert Concept(model, torch.ones(4))(stretch(1)) is None


def test_concepts_add_to_the_sum_by_their_names_and_weights(folder):
    file = folder / "follow.json"
    terms = concept_terms((str(file), f"{file}=0.5"))
    assert [(term.name, term.weight) for term in terms] == [("concept follow", 1.0), ("concept 2 follow", 0.5)]
    told = torch.zeros(1, 2, 4, dtype=torch.bool)
    told[..., 1] = True
    trajectory = replace(stretch(), goal=replace(stretch().goal, attended=told))
    costs = Energy(EnergyConfig(), terms).terms(trajectory)
    torch.testing.assert_close(costs["concept follow"], 2 * costs["concept 2 follow"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nothing.json", "no such file"),
        ("follow.json=heavy", "FILE=WEIGHT"),
        ("follow.json=-1", "FILE=WEIGHT"),
        ("concepts.safetensors", "not readable as a concept"),
    ],
)
def test_what_is_no_concept_is_refused_in_one_line(folder, text, says):
    with pytest.raises(InputError, match=says) as refused:
        concept_terms((str(folder / text),))
    assert "\n" not in str(refused.value)


def test_a_concept_of_another_energy_is_refused(folder):
    torch.manual_seed(1)
    save_model(folder / CONCEPTS_FILE, RelationEnergy(SMALL), CONCEPTS_KIND, SMALL)
    with pytest.raises(InputError, match="trained anew since it was taught"):
        concept_terms((str(folder / "follow.json"),))
    (folder / CONCEPTS_FILE).unlink()
    with pytest.raises(InputError, match="is gone"):
        concept_terms((str(folder / "follow.json"),))


def planner(*rules: str, weight: float = 3.0, **config) -> RulePlanner:
    terms = [ConceptTerm(name, ConceptByRule(BY_NAME[name], n), weight) for n, name in enumerate(rules)]
    return RulePlanner(True, PlannerConfig(spread=False, **config), concepts=terms)


def drive(driver: RulePlanner, *cars: tuple[float, float, float], seconds: float = 8.0, attended=None) -> TrafficState:
    goal = Goal(torch.tensor([28.0]), torch.tensor([-1]), attended)
    return driven_among_the_steady(driver, scene(*cars), Road.straight(3, start_m=-500.0), goal, seconds)


def test_a_planner_told_to_stay_beside_a_slower_car_does_so():
    cars = ((0.0, 0.0, 25.0), (12.0, -4.0, 20.0), (120.0, -8.0, 20.0))
    attended = torch.tensor([[[False, True, False]]])
    by_concept, alone = (
        drive(driver, *cars, attended=told)
        for driver, told in (
            (planner("left-of-level", decide_every_s=1.0), attended),
            (planner(decide_every_s=1.0), None),
        )
    )
    ahead = [float(states.position_m[0, -1, 0, 0] - states.position_m[0, -1, 1, 0]) for states in (by_concept, alone)]
    assert abs(ahead[0]) < 8.0
    assert ahead[1] > 20.0


def test_a_planner_finds_out_whom_it_is_about_and_stays_with_them():
    driver = planner("follow-2")
    drive(driver, (0.0, 0.0, 20.0), (50.0, 0.0, 20.0), (8.0, -4.0, 20.0), seconds=1.5)
    assert driver.attended[0].tolist() == [[False, True, False]]


def test_two_concepts_may_be_about_different_cars():
    driver = planner("follow-2", "left-of-level")
    drive(driver, (0.0, 0.0, 20.0), (50.0, 0.0, 20.0), (2.0, -4.0, 20.0), seconds=1.5)
    assert driver.attended[0].tolist() == [[False, True, False], [False, False, True]]


def test_whom_it_is_about_is_imagined_however_far():
    cars = ((0.0, 0.0, 20.0), *((15.0 + 10.0 * n, -4.0, 20.0) for n in range(4)), (90.0, 0.0, 20.0))
    attended = torch.zeros(1, 1, 6, dtype=torch.bool)
    attended[0, 0, 5] = True
    driver = planner("follow-2", max_agents=4)
    drive(driver, *cars, seconds=0.3, attended=attended)
    assert driver.attended[0, 0].nonzero()[:, 0].tolist() == [5]
    assert driver.found.stretches[0].states.valid.shape[2] == 4


def test_without_concepts_a_planner_offers_what_it_did():
    assert planner().search.config.slower_mps == ()
    assert planner("follow-2").search.config.slower_mps != ()
