"""Candidate plans with their true costs, and how estimates rank them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scipy import stats

from drivecast.scripts.driving.candidate_plans import CandidatePlansConfig, candidate_plans
from drivecast.scripts.driving.plan_ranking import (
    bootstrap_mean,
    cost_in,
    imagined_worlds,
    ranking,
    regret,
    rule_worlds,
    spearman,
)
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.model import WorldModel, WorldModelConfig
from drivecast.worldmodel.scene.contact import ego_contacts

CONFIG = CandidatePlansConfig(scenes=3, plans=40, horizon_s=3.0, settling_s=(6.0, 6.0), vehicles=15, density=1.5)


@pytest.fixture(scope="module")
def plans():
    return candidate_plans(CONFIG, seed=1)


def test_plans_are_driven_exactly_as_they_say_until_they_end(plans):
    steps = torch.arange(plans.controls.steering_rad.shape[-1])
    before_contact = steps < plans.contact_step[..., None]
    off = (plans.ego.position_m - plans.future.position_m[:, :, :, 0]).norm(dim=-1)
    assert bool(before_contact.any())
    assert float(off[before_contact].max()) < 0.01


def test_contacts_are_those_of_boxes_or_of_the_simulator(plans):
    ended = plans.ends_in_contact
    assert 0 < int(ended.sum()) < ended.numel()
    touching = ego_contacts(plans.future).any(-1)  # (scene, plan, time)
    assert not bool((touching & (torch.arange(touching.shape[-1]) < plans.contact_step[..., None])).any())
    assert bool((plans.terms["contact"][ended] >= CONFIG.contact_cost / 2).all())
    assert bool((plans.terms["contact"][~ended] == 0).all())


def test_true_costs_are_the_sum_of_their_terms_and_differ(plans):
    torch.testing.assert_close(sum(plans.terms.values()), plans.cost)
    assert all(len(costs.unique()) == CONFIG.plans for costs in plans.cost)


def test_others_answer_the_plan(plans):
    """The same car is elsewhere under another plan."""
    spread = plans.future.position_m[:, :, -1, 1:].std(1).amax()
    assert float(spread) > 0.5


def test_the_same_seed_gives_the_same_plans_and_another_one_others():
    short = replace(CONFIG, scenes=1, horizon_s=1.0, settling_s=(2.0, 2.0))
    one, again, other = (candidate_plans(short, seed) for seed in (1, 1, 2))
    assert torch.equal(one.cost, again.cost)
    assert not torch.equal(one.cost, other.cost)


def test_the_truth_ranks_perfectly_and_random_numbers_do_not(plans):
    perfect = ranking(plans.cost, plans)
    assert perfect.spearman.value == pytest.approx(1.0)
    assert perfect.regret.value == 0.0
    generator = torch.Generator().manual_seed(0)
    many = torch.rand(200, 64, generator=generator)
    chance = bootstrap_mean(spearman(torch.rand(200, 64, generator=generator), many))
    assert chance.low < 0.0 < chance.high
    assert chance.high - chance.low < 0.1


def test_spearman_is_that_of_scipy_with_ties():
    generator = torch.Generator().manual_seed(3)
    one, two = (torch.randint(6, (4, 20), generator=generator) for _ in range(2))
    expected = [stats.spearmanr(one[row], two[row]).statistic for row in range(4)]
    torch.testing.assert_close(spearman(one, two), torch.tensor(expected, dtype=torch.float64))


def test_regret_is_one_for_the_median_plan():
    true = torch.tensor([[0.0, 1.0, 4.0, 9.0, 16.0]])
    estimated = torch.tensor([[1.0, 1.0, 0.0, 1.0, 1.0]])
    assert regret(estimated, true).tolist() == [1.0]
    assert regret(true, true).tolist() == [0.0]


def test_bootstrap_covers_a_mean_about_as_often_as_it_says():
    generator = torch.Generator().manual_seed(4)
    covered = 0
    for trial in range(200):
        mean = bootstrap_mean(torch.randn(40, generator=generator), seed=trial)
        covered += mean.low < 0.0 < mean.high
    assert 0.88 <= covered / 200 <= 0.985


def test_worlds_rank_plans_and_a_model_that_saw_nothing_more_still_prices_the_ego(plans):
    holding = cost_in(rule_worlds(False, plans.dt_s), plans, CONFIG, 1)
    assert float(spearman(holding, plans.cost).mean()) > 0.7
    torch.manual_seed(0)
    model = WorldModel(WorldModelConfig(hidden=16)).eval().requires_grad_(False)
    imagined = cost_in(imagined_worlds(model, 2), plans, CONFIG, 2)
    assert imagined.shape == plans.cost.shape
    assert float(spearman(imagined, plans.cost).mean()) > 0.3
    assert torch.equal(imagined, cost_in(imagined_worlds(model, 2), plans, CONFIG, 2))


def test_too_few_plans_are_refused():
    with pytest.raises(InputError, match="plans: expected 34 or more, got 33"):
        CandidatePlansConfig(plans=33)
