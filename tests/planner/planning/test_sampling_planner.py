"""Planning by samples: the updates of CEM and MPPI, and what they do to a plan."""

from __future__ import annotations

import pytest
import torch
from test_search import goal_of, one_plan, world_of
from traffic_scenes import scene

from drivecast.planner.planning.driver import PlannerConfig, SamplingPlanner
from drivecast.planner.planning.sampling import Sampling, SamplingConfig, cem_update, mppi_update
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.road import Road


def test_cem_goes_on_from_the_best_samples_of_each_plan():
    samples = torch.tensor([[[0.0], [1.0], [3.0], [9.0]], [[5.0], [6.0], [7.0], [8.0]]])
    mean, std = cem_update(samples, torch.tensor([[4.0, 1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0]]), elites=2)
    assert mean.flatten().tolist() == [2.0, 5.5]
    torch.testing.assert_close(std.flatten(), torch.tensor([2.0, 0.5]).sqrt())


def test_mppi_moves_its_mean_as_pytorch_mppi_does():
    mppi = pytest.importorskip("pytorch_mppi")
    temperature, horizon, dt_s, std = 0.5, 10, 0.2, 0.7

    def dynamics(state, control):
        return torch.stack([state[:, 0] + dt_s * state[:, 1], state[:, 1] + dt_s * control[:, 0]], 1)

    def running_cost(state, control):
        return state[:, 0] ** 2 + 0.1 * state[:, 1] ** 2

    torch.manual_seed(0)
    before = torch.linspace(-1, 1, horizon)[:, None]
    theirs = mppi.MPPI(
        dynamics, running_cost, 2, torch.tensor([[std**2]]), 200, horizon, lambda_=temperature, U_init=before.clone()
    )
    start = torch.tensor([2.0, -1.0])
    theirs.command(start, shift_nominal_trajectory=False)
    state, cost = start.expand(200, 2), torch.zeros(200)
    for step in range(horizon):
        state = dynamics(state, before[step] + theirs.noise[:, step])
        cost = cost + running_cost(state, None)
    ours = mppi_update(before[None], theirs.noise[None], torch.full((1, horizon, 1), std), cost[None], temperature)
    assert (theirs.U - before).abs().max() > 0.1
    torch.testing.assert_close(ours[0], theirs.U, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", ["cem", "mppi"])
def test_samples_lower_the_cost_of_a_plan_alike_in_any_batch(model, method):
    def sampling() -> Sampling:
        return Sampling(SamplingConfig(method), SamplingPlanner(model, PlannerConfig()).search)

    road, present = Road.straight(2, start_m=-1000.0), scene((0, 0.3, 25), (40, 0, 18))
    *_, (added, gain) = sampling().pass_by_pass(
        world_of(model, present, road), goal_of(present), one_plan(), torch.tensor([[0]])
    )
    assert gain.item() > 0.01
    assert 0 < added.abs().max() <= SamplingConfig().most_mps2
    two = present[torch.tensor([0, 0])]
    both = one_plan()[torch.tensor([0, 0])]
    many = world_of(model, two, road[torch.tensor([0, 0])]), goal_of(two), both, torch.tensor([[0], [0]])
    again = sampling()
    *_, (_, gains) = again.pass_by_pass(*many)
    torch.testing.assert_close(gains, gain.expand(2))
    *_, (_, other) = again.pass_by_pass(*many)
    assert not torch.equal(gains, other)  # each decision draws anew


def test_impossible_settings_are_refused():
    with pytest.raises(InputError, match="elites"):
        SamplingConfig(elites=1)
    with pytest.raises(InputError, match=r"sampling.temperature: expected more than 0"):
        SamplingConfig(temperature=0.0)
