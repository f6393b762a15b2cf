"""Claims about the world model's energy and its free energies."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from traffic_scenes import history_of, platoon_store, scene

from drivecast.worldmodel.energy.latent_rollout import stretches
from drivecast.worldmodel.energy.model_energy import ModelEnergy
from drivecast.worldmodel.energy.reconstruction_scale import ReconstructionScale, landmarks
from drivecast.worldmodel.forecaster.forecast import forecast
from drivecast.worldmodel.forecaster.loading import load_world_model
from drivecast.worldmodel.forecaster.model import WorldModel, WorldModelConfig
from drivecast.worldmodel.recordings.window import Window
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState
from drivecast.worldmodel.training.trainer import WorldModelTrainer, WorldModelTrainingConfig

ROAD = Road.straight(3)
PAST = history_of(scene((0, -4, 20), (20, -4, 18), (5, 0, 22), (-20, -8, 15)), 5)


def model(seed: int = 0, **config) -> WorldModel:
    """A model whose output layer is not zero, as after training."""
    torch.manual_seed(seed)
    lasting = {"latent_process": "autoregressive", "decide_steps": 2}
    settings = {"hidden": 16, "latent_dims": 4, "latent_hold_steps": 6, **lasting, **config}
    made = WorldModel(WorldModelConfig(**settings)).eval().requires_grad_(False)
    torch.nn.init.normal_(made.decoder_out.weight, std=0.5)
    return made


def driven(net: WorldModel, past: TrafficState = PAST, steps: int = 12, seed: int = 3) -> TrafficState:
    """A future that the model itself has sampled."""
    drawn = torch.Generator().manual_seed(seed)
    return forecast(net, net.observe(past, ROAD), ROAD, steps, sample=True, generator=drawn)


def random_latents(net: WorldModel, steps: int, agents: int, seed: int = 1) -> torch.Tensor:
    shape = (1, stretches(net, steps), agents, net.config.latent_dims)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_future_costs_its_squared_errors_in_scales_and_its_latents_by_the_second():
    net = model()
    with torch.no_grad():
        net.decoder_out.weight.zero_()  # everybody goes straight on, whatever the latent
    scale = ReconstructionScale(torch.linspace(0.2, 1.0, 5), torch.full((5,), 0.2))
    still = forecast(net, net.observe(PAST, ROAD), ROAD, 10)
    future = replace(still, position_m=still.position_m + torch.tensor([0.05, 0.02]))
    latents = random_latents(net, 10, 4)
    share = net.persistence.sigmoid()
    first, second = latents[0, 0], latents[0, 1]
    code = first.square().sum(-1) / 2 + ((second - share * first).square() / (1 - share**2)).sum(-1) / 2
    errors = sum((0.05 / sigma) ** 2 + 0.1**2 for sigma in (0.2, 0.4, 0.6, 0.8, 1.0)) / 2
    found = ModelEnergy(net, scale).energy(PAST, ROAD, future, latents)
    torch.testing.assert_close(found[0], (code + errors) / 1.0, rtol=2e-3, atol=0)


def test_a_wild_error_costs_in_proportion_to_its_size():
    net, future = model(), driven(model())
    energy = ModelEnergy(net)
    latents = random_latents(net, 12, 4)
    costs = [
        energy.energy(PAST, ROAD, replace(future, position_m=future.position_m + away), latents)
        for away in (100.0, 200.0, 300.0)
    ]
    torch.testing.assert_close(costs[2] - costs[1], costs[1] - costs[0], rtol=0.02, atol=0.0)


def test_moments_that_are_not_seen_do_not_count_and_longer_futures_are_no_dearer():
    net, future = model(), driven(model())
    latents = torch.zeros(1, 2, 4, 4)
    energy = ModelEnergy(net)
    gone = future.valid.clone()
    gone[:, 6:, 1] = False  # after the first landmark
    gone[:, :, 2] = False
    wild = future.position_m.masked_fill(~gone[..., None], 1e4)
    found = energy.energy(PAST, ROAD, replace(future, position_m=wild, valid=gone), latents)
    short = energy.energy(PAST, ROAD, future[:, :6], latents[:, :1])
    whole = energy.energy(PAST, ROAD, future, latents)
    torch.testing.assert_close(found[:, 1], short[:, 1])
    torch.testing.assert_close(found[:, [0, 3]], whole[:, [0, 3]])
    assert found[0, 2] == 0.0


def test_the_gradient_reaches_the_future_and_the_latents_and_is_that_of_finite_differences():
    net = model().double()
    past = PAST.map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)
    road = ROAD.map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)
    future = forecast(net, net.observe(past, road), road, 12)
    energy = ModelEnergy(net)

    def cost(away: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        return energy.energy(past, road, replace(future, position_m=future.position_m + away), latents).sum()

    away = torch.full((1, 12, 4, 2), 0.03, dtype=torch.float64, requires_grad=True)
    latents = random_latents(net, 12, 4).double().requires_grad_()
    gradients = torch.autograd.grad(cost(away, latents), (away, latents))
    step = 1e-5
    for place, gradient in enumerate(gradients):
        way = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        ways = (way, 0.0) if place == 0 else (0.0, way)
        above, below = (
            cost(away.detach() + size * ways[0], latents.detach() + size * ways[1]) for size in (step, -step)
        )
        torch.testing.assert_close((gradient * way).sum(), (above - below) / (2 * step), rtol=1e-3, atol=1e-6)


def test_the_best_latents_cost_less_than_none_and_than_the_posterior_s():
    net = model()
    future = driven(net)
    energy = ModelEnergy(net)
    found = energy.best_latents(PAST, ROAD, future)
    posterior = energy.posterior_latents(PAST, ROAD, future)
    assert found.latents.shape == posterior.mean.shape == (1, 2, 4, 4)
    for others in (torch.zeros_like(found.latents), posterior.mean):
        assert bool((found.energy < energy.energy(PAST, ROAD, future, others) - 1e-3).all())
    again = energy.energy(PAST, ROAD, future, found.latents)
    torch.testing.assert_close(again, found.energy, rtol=0.1, atol=0.1)


def test_the_gradient_of_a_free_energy_reaches_the_future():
    net = model()
    energy, future = ModelEnergy(net), driven(net)
    for beta in (None, 1.0):
        position = future.position_m.clone().requires_grad_()
        asked = replace(future, position_m=position)
        drawn = torch.Generator().manual_seed(0)
        energy.free_energy(PAST, ROAD, asked, beta, samples=8, generator=drawn).sum().backward()
        assert position.grad is not None
        assert bool((position.grad[:, 5].abs().sum(-1) > 0).all()), beta


def test_the_marginal_free_energy_is_the_integral_and_goes_to_the_minimum_as_beta_grows():
    """One vehicle, one stretch, one latent: the integral can be done on a grid."""
    net = model(latent_dims=1)
    past = PAST[:, :, :1]
    future = driven(net, past, steps=6)
    energy = ModelEnergy(net)
    grid = torch.linspace(-7, 7, 2801)
    many = torch.zeros(len(grid), dtype=torch.long)
    at_grid = energy.energy(past[many], ROAD[many], future[many], grid.view(-1, 1, 1, 1))[:, 0]
    lowest = energy.free_energy(past, ROAD, future, steps=60)
    torch.testing.assert_close(lowest.squeeze(), at_grid.min(), rtol=1e-2, atol=1e-2)
    gaps = []
    for beta in (0.5, 2.0, 20.0, 200.0):
        integral = -(torch.logsumexp(-beta * at_grid, 0) + (grid[1] - grid[0]).log()) / beta
        drawn = torch.Generator().manual_seed(1)
        found = energy.free_energy(past, ROAD, future, beta, samples=20_000, generator=drawn)
        torch.testing.assert_close(found.squeeze(), integral, rtol=0.02, atol=0.02)
        gaps.append(abs(float(found - lowest)))
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 0.02


def test_a_known_vehicle_moves_as_it_did_and_costs_nothing():
    net = model()
    future = driven(net)
    who = torch.tensor([[False, True, True, True]])
    latents = random_latents(net, 12, 4)
    alone = ModelEnergy(net).energy(PAST, ROAD, future, latents, who)
    others = latents.clone()
    others[:, :, 1:] = 0.0
    torch.testing.assert_close(alone, ModelEnergy(net).energy(PAST, ROAD, future, others, who))
    assert alone[0, 0] > 0
    assert alone[0, 1:].tolist() == [0.0, 0.0, 0.0]


def test_a_model_without_latents_has_an_energy_too():
    torch.manual_seed(0)
    net = WorldModel(WorldModelConfig(hidden=16, latent_dims=0)).eval().requires_grad_(False)
    future = replace(driven(net), position_m=driven(net).position_m + 1.0)
    energy = ModelEnergy(net)
    found = energy.free_energy(PAST, ROAD, future)
    torch.testing.assert_close(found, energy.free_energy(PAST, ROAD, future, beta=1.0, samples=2))
    assert bool((found > 0).all())


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[WorldModel, Window]:
    """A model that was trained for seconds, and windows that it has not seen."""
    folder = tmp_path_factory.mktemp("energy")
    store = platoon_store(folder / "store")
    config = WorldModelTrainingConfig(
        steps=120,
        batch=8,
        max_agents=8,
        scored_agents=6,
        history_steps=5,
        horizon_steps=20,
        first_horizon_steps=5,
        validate_every=120,
        validation_windows=6,
        checkpoint_every=120,
        learning_rate=1e-2,
    )
    small = WorldModelConfig(hidden=24, latent_dims=4, latent_hold_steps=6)
    made = WorldModelTrainer(small, config, [store], folder / "model", 0)
    made.train(lambda step, values: None)
    frames = store.frames("test", 11, 20)[::10]
    return load_world_model(made.optimisation.best_model.path), store.window(frames, 11, 20, 16)


def test_recorded_futures_cost_less_than_corrupted_ones(trained):
    net, window = trained
    scale = ReconstructionScale.measured(net, [(window.history, window.road, window.future)])
    assert bool((scale.along_m.diff() >= 0).all()), "errors grow with the time ahead"
    energy, future = ModelEnergy(net, scale), window.future
    recorded = energy.free_energy(window.history, window.road, future)
    now = window.present.position_m[:, None]
    sideways = torch.arange(1, 21)[:, None, None] * torch.tensor([0.0, 0.2])
    for away in (0.3 * (future.position_m - now), -0.3 * (future.position_m - now), sideways):
        corrupted = energy.free_energy(
            window.history, window.road, replace(future, position_m=future.position_m + away)
        )
        assert float((recorded < corrupted).double().mean()) > 0.95


def test_scales_go_on_growing_beyond_what_was_measured():
    scale = ReconstructionScale(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.1, 0.1, 0.1]))
    along, left = scale.at(5, torch.zeros(()))
    torch.testing.assert_close(along, torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5]))
    torch.testing.assert_close(left, torch.full((5,), 0.1))


def test_step_by_step_it_adds_up_to_the_energy_under_the_posterior_s_mean():
    net, future = model(), driven(model(), steps=15)  # two stretches and a half
    energy = ModelEnergy(net)
    everybody_else = torch.tensor([[False, True, True, True]])
    for who in (None, everybody_else):
        means = energy.posterior_latents(PAST, ROAD, future, who).mean
        whole = energy.energy(PAST, ROAD, future, means, who)
        steps = energy.over_time(PAST, ROAD, future, who)
        assert steps.shape == (1, 15, 4)
        seconds = len(landmarks(15, 0.1)) * 0.2  # E counts whole landmarks
        torch.testing.assert_close(steps.sum(1) * 0.1, whole * seconds)
    assert bool((steps[:, :, 1:] == 0).all())
