"""Claims about the forecaster itself."""

from dataclasses import replace

import pytest
import torch
from traffic_scenes import history_of, scene

from drivecast.worldmodel.forecaster.forecast import forecast, sampled_forecasts
from drivecast.worldmodel.forecaster.model import WorldModel, WorldModelConfig
from drivecast.worldmodel.scene.road import Road

ROAD = Road.straight(3)
PRESENT = scene((0, -4, 20), (20, -4, 18), (5, 0, 22), (-20, -8, 15))


def model(seed: int = 0, trained: bool = True, **config) -> WorldModel:
    """A model whose output layer is not zero, as after training."""
    torch.manual_seed(seed)
    made = WorldModel(WorldModelConfig(hidden=16, latent_dims=4, **config)).eval().requires_grad_(False)
    if trained:
        torch.nn.init.normal_(made.decoder_out.weight, std=0.5)
    return made


def test_an_untrained_model_forecasts_constant_velocity():
    net = model(trained=False)
    future = forecast(net, net.observe(history_of(PRESENT, 5), ROAD), ROAD, 10)
    torch.testing.assert_close(future.position_m[:, -1], PRESENT.position_m + PRESENT.velocity_mps)


def test_known_vehicles_are_taken_as_they_are():
    net = model()
    future = history_of(scene((31, -5, 3), (0, 0, 0), (0, 0, 0), (0, 0, 0)), 6)
    who = torch.tensor([[True, False, False, False]])
    out = forecast(net, net.observe(history_of(PRESENT, 5), ROAD), ROAD, 6, future, who, sample=True)
    torch.testing.assert_close(out.position_m[:, :, 0], future.position_m[:, :, 0])
    assert not torch.allclose(out.position_m[:, -1, 1], future.position_m[:, -1, 1])


def test_padding_vehicles_change_nothing():
    net = model()
    more = scene((0, -4, 20), (20, -4, 18), (5, 0, 22), (-20, -8, 15), (8, -4, 1))
    more = replace(more, valid=torch.tensor([[True, True, True, True, False]]))
    alone = forecast(net, net.observe(history_of(PRESENT, 5), ROAD), ROAD, 20)
    padded = forecast(net, net.observe(history_of(more, 5), ROAD), ROAD, 20)
    torch.testing.assert_close(padded.position_m[:, :, :4], alone.position_m)


def test_the_order_of_vehicles_does_not_matter():
    net = model()
    order = [2, 0, 3, 1]
    straight = forecast(net, net.observe(history_of(PRESENT, 5), ROAD), ROAD, 20)
    shuffled = forecast(net, net.observe(history_of(PRESENT[:, order], 5), ROAD), ROAD, 20)
    torch.testing.assert_close(shuffled.position_m, straight.position_m[:, :, order])


def test_a_scene_is_forecast_alike_wherever_it_stands():
    """Every vehicle sees the world in its own frame."""
    net = model()
    here = forecast(net, net.observe(history_of(PRESENT, 5), ROAD), ROAD, 20)
    moved = replace(PRESENT, position_m=PRESENT.position_m + torch.tensor([500.0, 0.0]))
    there = forecast(net, net.observe(history_of(moved, 5), ROAD), ROAD, 20)
    torch.testing.assert_close(there.position_m - torch.tensor([500.0, 0.0]), here.position_m, atol=2e-3, rtol=0.0)


def test_a_hidden_past_is_as_no_past():
    net = model()
    history = history_of(PRESENT, 8)
    hidden = replace(history, valid=history.valid & (torch.arange(8) >= 5)[None, :, None])
    torch.testing.assert_close(net.observe(hidden, ROAD).hidden, net.observe(history[:, 5:], ROAD).hidden)


def test_others_answer_to_the_ego_and_the_gradient_says_so():
    net = model()
    memory = net.observe(history_of(PRESENT, 5), ROAD)
    push = torch.zeros((), requires_grad=True)
    future = history_of(scene((0, -4, 20), (0, 0, 0), (0, 0, 0), (0, 0, 0)), 10)
    ego = replace(future, position_m=future.position_m + push * torch.tensor([1.0, 0.0]))
    who = torch.tensor([[True, False, False, False]])
    forecast(net, memory, ROAD, 10, ego, who).position_m[:, -1, 1:].sum().backward()
    assert push.grad is not None
    assert push.grad.abs() > 0


def test_samples_differ_and_the_same_seed_repeats_them():
    net = model()
    memory = net.observe(history_of(PRESENT, 5), ROAD)
    draws = [sampled_forecasts(net, memory, ROAD, 10, 3, generator=torch.Generator().manual_seed(1)) for _ in range(2)]
    torch.testing.assert_close(draws[0].position_m, draws[1].position_m, rtol=0, atol=0)
    assert (draws[0].position_m[:, 0] - draws[0].position_m[:, 1]).abs().max() > 1e-4


def test_a_latent_is_held_for_its_stretch():
    net = model(latent_hold_steps=6)
    drawn = []
    original = net.step
    net.step = lambda memory, latent, *rest: drawn.append(latent) or original(memory, latent, *rest)  # type: ignore[method-assign]
    forecast(net, net.observe(history_of(PRESENT, 3), ROAD), ROAD, 10, sample=True)
    assert all(drawn[step] is drawn[0] for step in range(6))
    assert not torch.equal(drawn[5], drawn[6])


@pytest.mark.parametrize("prior", ["standard", "learned"])
def test_prior_and_posterior_have_one_latent_per_vehicle(prior):
    net = model(prior=prior, latent_process="independent")
    memory = net.observe(history_of(PRESENT, 5), ROAD)
    assert net.prior(memory).mean.shape == net.posterior(memory, history_of(PRESENT, 10)).mean.shape == (1, 4, 4)


def test_the_deterministic_variant_has_no_latent():
    net = WorldModel(WorldModelConfig(hidden=16, latent_dims=0)).eval()
    memory = net.observe(history_of(PRESENT, 5), ROAD)
    one, two = (forecast(net, memory, ROAD, 10, sample=True) for _ in range(2))
    torch.testing.assert_close(one.position_m, two.position_m, rtol=0, atol=0)


def test_disagreement_is_zero_without_dropout_and_positive_with_it():
    for share, positive in ((0.0, False), (0.3, True)):
        net = model(feature_dropout=share)
        memory = net.observe(history_of(PRESENT, 5), ROAD)
        masks = net.dropout_masks(8, generator=torch.Generator().manual_seed(0))
        assert bool((net.uncertainty(memory, net.no_latent(memory), masks) > 1e-9).all()) is positive


@pytest.mark.parametrize("bad", [{"hidden": 0}, {"latent_dims": -1}, {"feature_dropout": 1.0}, {"dt_s": 0.0}])
def test_an_impossible_architecture_is_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        WorldModelConfig(**bad)
