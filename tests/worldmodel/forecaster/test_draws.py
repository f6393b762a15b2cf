"""Claims about the latents of a rollout, and about when a model looks and decides."""

from dataclasses import asdict, replace

import pytest
import torch
from traffic_scenes import history_of, scene

from drivecast.worldmodel.forecaster.draws import LatentDraws
from drivecast.worldmodel.forecaster.forecast import forecast
from drivecast.worldmodel.forecaster.loading import load_world_model
from drivecast.worldmodel.forecaster.model import MODEL_KIND, WorldModel, WorldModelConfig
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.storage.checkpoint import save_model

ROAD = Road.straight(3)
PRESENT = scene((0, -4, 20), (20, -4, 18), (5, 0, 22))


def model(**config) -> WorldModel:
    torch.manual_seed(0)
    made = WorldModel(WorldModelConfig(hidden=16, latent_dims=3, **config)).eval().requires_grad_(False)
    torch.nn.init.normal_(made.decoder_out.weight, std=0.5)
    return made


def drawn(net: WorldModel, stretches: int, rows: int = 4_000) -> torch.Tensor:
    """Latents `(stretch, row, latent)` of many rollouts."""
    memory = net.observe(history_of(PRESENT, 3), ROAD)[torch.zeros(rows, dtype=torch.long)]
    draws = LatentDraws(net, True, torch.Generator().manual_seed(0))
    hold = net.config.latent_hold_steps
    return torch.stack([draws.at(step * hold, memory) for step in range(stretches)])[:, :, 0]


def test_each_latent_is_standard_normal_and_remembers_its_own_share_of_the_last():
    net = model(latent_process="autoregressive")
    net.persistence.copy_(torch.logit(torch.tensor([0.05, 0.6, 0.95])))
    latents = drawn(net, 4)
    assert latents.mean().abs() < 0.02
    torch.testing.assert_close(latents.std(1), torch.ones(4, 3), atol=0.05, rtol=0)
    for lag in (1, 3):
        correlation = (latents[lag] * latents[0]).mean(0)
        torch.testing.assert_close(correlation, torch.tensor([0.05, 0.6, 0.95]) ** lag, atol=0.05, rtol=0)


def test_independent_latents_remember_nothing():
    latents = drawn(model(latent_process="independent"), 2)
    assert (latents[1] * latents[0]).mean(0).abs().max() < 0.05


def test_the_likeliest_latents_are_zero():
    net = model(latent_process="autoregressive")
    memory = net.observe(history_of(PRESENT, 3), ROAD)
    draws = LatentDraws(net, False)
    assert not any(draws.at(step, memory).any() for step in range(25))


def test_the_posterior_that_finds_nothing_is_the_prior():
    """It speaks in units of the prior's spread, so that no information costs nothing."""
    net = model(latent_process="autoregressive")
    for parameter in net.posterior_net.parameters():
        parameter.zero_()
    memory, last = net.observe(history_of(PRESENT, 3), ROAD), torch.randn(1, 3, 3)
    prior, posterior = net.prior(memory, last), net.posterior(memory, history_of(PRESENT, 10), last)
    torch.testing.assert_close(posterior.mean, prior.mean)
    torch.testing.assert_close(posterior.log_variance, prior.log_variance, atol=1e-5, rtol=0)


def test_everyone_decides_and_looks_around_each_decide_steps():
    net = model(decide_steps=2)
    memory = net.observe(history_of(PRESENT, 5), ROAD)
    latent, decided, looked = torch.zeros(1, 3, 3), [], []
    for _ in range(6):
        memory = net.step(memory, latent, ROAD)
        decided.append(memory.acceleration_mps2)
        looked.append(memory.embedded)
    for first in (0, 2, 4):
        assert torch.equal(decided[first], decided[first + 1])
        assert not torch.equal(looked[first], looked[first + 1])
    assert not torch.equal(decided[1], decided[2])
    assert torch.equal(looked[1], looked[2])


def test_known_vehicles_move_at_every_step_also_between_two_looks():
    net = model(decide_steps=2)
    future = history_of(scene((31, -5, 3), (0, 0, 0), (0, 0, 0)), 5)
    who = torch.tensor([[True, False, False]])
    out = forecast(net, net.observe(history_of(PRESENT, 5), ROAD), ROAD, 5, future, who)
    torch.testing.assert_close(out.position_m[:, :, 0], future.position_m[:, :, 0])


@pytest.mark.parametrize("steps", [1, 2, 5, 6])
def test_the_present_is_always_looked_at(steps):
    net = model(decide_steps=2)
    history = history_of(PRESENT, steps)
    memory = net.observe(history, ROAD)
    torch.testing.assert_close(memory.seen.position_m, history.position_m[:, -1])
    assert memory.since == 0


def test_a_model_from_before_there_was_a_choice_forecasts_as_it_did(tmp_path):
    net = model(latent_process="independent", decide_steps=1)
    config = {key: value for key, value in asdict(net.config).items() if key not in ("latent_process", "decide_steps")}
    save_model(tmp_path / "old.safetensors", net, MODEL_KIND, config)
    loaded = load_world_model(tmp_path / "old.safetensors")
    assert loaded.config == net.config
    futures = [forecast(one, one.observe(history_of(PRESENT, 5), ROAD), ROAD, 7) for one in (net, loaded)]
    assert torch.equal(futures[0].position_m, futures[1].position_m)


def test_the_temperature_widens_what_is_drawn_and_leaves_the_mean():
    for process in ("independent", "autoregressive"):
        torch.manual_seed(0)
        config = WorldModelConfig(hidden=8, latent_dims=4, latent_process=process, latent_hold_steps=1)
        cold = WorldModel(config).requires_grad_(False)
        warm = WorldModel(replace(config, temperature=2.0)).requires_grad_(False)
        warm.load_state_dict(cold.state_dict())
        memory = cold.observe(history_of(scene((0, 0, 20)), 3), Road.straight(1))
        for sample in (True, False):
            drawn = [LatentDraws(net, sample, torch.Generator().manual_seed(0)) for net in (cold, warm)]
            for step in range(3):
                one, two = (each.at(step, memory) for each in drawn)
                torch.testing.assert_close(two, 2.0 * one)
