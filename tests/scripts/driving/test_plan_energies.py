"""Energies of plans as the ego's future."""

from __future__ import annotations

import pytest
import torch

from drivecast.scripts.driving.candidate_plans import CandidatePlansConfig, candidate_plans
from drivecast.scripts.driving.plan_energies import energies_of_plans, surroundings_of_plans
from drivecast.worldmodel.energy_methods.coordinates import FutureCoordinates
from drivecast.worldmodel.energy_methods.gaussian import GaussianEnergy


@pytest.fixture(scope="module")
def plans():
    return candidate_plans(CandidatePlansConfig(scenes=2, plans=36, horizon_s=2.0, settling_s=(4.0, 4.0)))


def coordinates() -> FutureCoordinates:
    """Meters, as they are."""
    return FutureCoordinates(torch.zeros(20), torch.eye(20), torch.eye(20))


def test_the_vector_of_a_plan_is_where_it_leaves_constant_velocity(plans):
    past = surroundings_of_plans(plans, 20, answering=False)
    found = energies_of_plans(GaussianEnergy(), coordinates(), plans, past)
    now = plans.history[:, -1, 0]
    time_s = 0.2 * torch.arange(1, 11)[:, None]
    straight = now.position_m[:, None, None] + now.velocity_mps[:, None, None] * time_s
    expected = (plans.ego.position_m[:, :, 1::2] - straight).square().sum((-1, -2)) / 2
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=1e-3)


def test_others_go_straight_on_or_answer(plans):
    straight, answering = (surroundings_of_plans(plans, 20, answering) for answering in (False, True))
    rows = plans.cost.shape[1]
    assert torch.equal(straight.other_path_m[0], straight.other_path_m[rows - 1])
    assert not torch.equal(answering.other_path_m[:rows], straight.other_path_m[:rows])
    steps = straight.other_path_m[:, 1:] - straight.other_path_m[:, :-1]
    torch.testing.assert_close(steps[:, 0], steps[:, -1], atol=1e-3, rtol=1e-3)
