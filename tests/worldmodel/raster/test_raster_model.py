"""The raster predictor learns how cars move in pictures, listens to latent and ego, and resumes to the last bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from traffic_scenes import platoon_store

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.raster.clips import Clip, Seen
from drivecast.worldmodel.raster.diagnostics import diagnose, edges
from drivecast.worldmodel.raster.loading import RASTER_FILE, is_raster_model, load_raster_model
from drivecast.worldmodel.raster.network import RasterConfig, RasterModel
from drivecast.worldmodel.raster.objective import RasterObjectiveConfig, loss_of, squared_error
from drivecast.worldmodel.raster.trainer import RasterTrainer, RasterTrainingConfig
from drivecast.worldmodel.raster.view import Picture

SMALL = RasterConfig(
    picture=Picture(rows=32, columns=16, behind_m=12.0), context=4, hidden=8, latent_dims=4, hold_steps=6
)
BRIEF = RasterTrainingConfig(
    steps=8,
    batch=4,
    max_agents=6,
    horizon_steps=6,
    first_horizon_steps=2,
    validate_every=4,
    validation_clips=8,
    checkpoint_every=4,
)
OBJECTIVE = RasterObjectiveConfig()


def network(config: RasterConfig = SMALL, trained: bool = True) -> RasterModel:
    """Of random weights; those of the last layer, too, which an untrained model has at zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = RasterModel(config)
        if trained:
            torch.nn.init.normal_(model.up[-1].weight, std=0.1)
        return model


def clips(batch: int = 16, config: RasterConfig = SMALL, steps: int = 6) -> tuple[Seen, Clip]:
    """Blocks that move on by a pixel or stop, by a coin that no past tells."""
    picture, generator = config.picture, torch.Generator().manual_seed(3)
    moves = torch.rand(batch, generator=generator) < 0.5
    rows = torch.arange(picture.rows)

    def block(at: torch.Tensor) -> torch.Tensor:
        inside = ((rows - at[..., None]).abs() < 2).float()  # (batch, time, row)
        columns = ((torch.arange(picture.columns) - 8).abs() < 2).float()
        return inside[..., None] * columns

    past = torch.full((batch, config.context), 8.0)
    coming = 8.0 + moves[:, None] * torch.arange(1, steps + 1)
    nothing = torch.zeros(batch, picture.rows, picture.columns)
    seen = Seen(block(past), nothing, nothing)
    return seen, Clip(
        block(coming), nothing[:, None].expand(-1, steps, -1, -1), nothing[:, None].expand(-1, steps, -1, -1)
    )


def test_untrained_it_says_that_nothing_changes():
    seen, future = clips()
    predicted = network(trained=False).unroll(seen, future.ego)
    torch.testing.assert_close(predicted.others, seen.others[:, -1:].expand_as(future.others))


def test_a_latent_holds_for_a_stretch_of_future():
    model, (seen, future) = network(), clips(2, steps=6)
    ego = future.ego.repeat(1, 2, 1, 1)
    latents = model.draw_latents(2, 12, torch.Generator().manual_seed(1), seen.road)
    assert latents.shape == (2, 2, 4)
    other = latents.clone()
    other[:, 1] += 1.0
    one, two = model.unroll(seen, ego, latents).others, model.unroll(seen, ego, other).others
    torch.testing.assert_close(one[:, :6], two[:, :6])
    assert float((one[:, 6:] - two[:, 6:]).detach().abs().max()) > 1e-4


def test_the_next_picture_answers_to_where_the_ego_goes():
    model, (seen, future) = network(), clips(1)
    ego = future.ego[:, 0].clone().requires_grad_()
    (model.step(seen, ego).others[:, -1]).sum().backward()
    assert float(ego.grad.abs().sum()) > 0.0


def test_what_a_coin_decides_is_blurred_without_a_latent_and_sharp_with_it():
    config = replace(SMALL, feature_dropout=0.0)
    model, (seen, future) = network(config, trained=False), clips(32, config)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    noise = torch.Generator().manual_seed(0)
    objective = replace(OBJECTIVE, information=0.001)
    for _ in range(150):
        optimizer.zero_grad()
        loss_of(model, seen, future, 6, objective, noise)["loss"].backward()
        optimizer.step()
    told = diagnose(model, seen, future, objective.road, 0)
    assert told["reconstruction"] < 0.5 * told["forecast"] < 0.5 * told["standing_still"]
    assert told["latent_gap"] > told["reconstruction"]
    posterior = model.posterior(seen, future).mean[:, None]
    known = edges(model.unroll(seen, future.ego, posterior).others[:, -1]).mean()
    blurred = edges(model.unroll(seen, future.ego).others[:, -1]).mean()
    assert blurred < 0.8 * known


def test_edges_of_a_smeared_block_are_half_as_many():
    picture = torch.zeros(40, 20)
    picture[10:15, 8:12] = 1.0
    smeared = picture.clone()
    smeared[15:20, 8:12] = 1.0
    assert float(edges(smeared / 2) / edges(picture)) == pytest.approx(0.39, abs=0.05)


def test_the_error_of_a_missed_block_is_its_area():
    _, future = clips(1)
    empty = replace(future, others=torch.zeros_like(future.others))
    torch.testing.assert_close(squared_error(empty, future, 1.0), torch.full((1, 6), 9.0))


def test_a_future_shorter_than_a_latents_stretch_is_refused():
    seen, future = clips()
    with pytest.raises(ValueError, match="expected a future of 6 steps, got 5"):
        loss_of(network(), seen, future.frames(0, 5), 5, OBJECTIVE, torch.Generator())


def test_masks_of_the_decoder_have_a_mean_of_one_and_change_the_picture():
    model, (seen, future) = network(), clips(2)
    masks = model.dropout_masks(2000, torch.Generator().manual_seed(0), seen.road)
    assert float(masks.mean()) == pytest.approx(1.0, abs=0.01)
    assert masks.unique().tolist() == pytest.approx([0.0, 1 / 0.9])
    plain, masked = model.step(seen, future.ego[:, 0]), model.step(seen, future.ego[:, 0], masks=masks[:2])
    assert float((plain.others - masked.others).detach().abs().max()) > 1e-4


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return platoon_store(tmp_path_factory.mktemp("raster") / "store")


def trainer(store, output: Path, config: RasterTrainingConfig = BRIEF) -> RasterTrainer:
    return RasterTrainer(SMALL, config, [store], output)


def test_resuming_is_exact_to_the_last_bit(store, tmp_path):
    whole, halves = trainer(store, tmp_path / "whole"), trainer(store, tmp_path / "halves")
    whole.train(lambda *_: None)

    class StopError(Exception):
        pass

    def stop(step: int, values) -> None:
        if step == 6:
            raise StopError

    with pytest.raises(StopError):
        halves.train(lambda *_: None, stop)
    again = trainer(store, tmp_path / "halves")
    assert again.resume() == 4
    again.train(lambda *_: None)
    for name, values in whole.network.state_dict().items():
        assert torch.equal(values, again.network.state_dict()[name]), name


def test_another_training_is_not_resumed(store, tmp_path):
    first = trainer(store, tmp_path)
    first.optimisation.save_state()
    with pytest.raises(InputError, match="belongs to a run with other settings"):
        trainer(store, tmp_path, replace(BRIEF, batch=5)).resume()


def test_the_horizon_grows():
    config = RasterTrainingConfig(steps=100, first_horizon_steps=4, horizon_steps=20, grow_share=0.5)
    assert [config.horizon_at(step) for step in (0, 25, 50, 99)] == [4, 12, 20, 20]


def test_what_was_saved_is_loaded_and_frozen(store, tmp_path):
    path = trainer(store, tmp_path).train(lambda *_: None)
    assert path.name == RASTER_FILE
    assert is_raster_model(tmp_path)
    model = load_raster_model(tmp_path)
    assert model.config == SMALL
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not is_raster_model(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: RasterConfig(context=1), "raster.model.context: expected at least 2, got 1"),
        (lambda: RasterConfig(feature_dropout=1.0), "raster.model.feature_dropout: expected 0 to below 1"),
        (
            lambda: RasterTrainingConfig(first_horizon_steps=30),
            "first_horizon_steps: expected at most horizon_steps, 20",
        ),
        (lambda: RasterObjectiveConfig(latent_dropout=1.5), "latent_dropout: expected at most 1, got 1.5"),
        (lambda: RasterObjectiveConfig(information=-1.0), "information: expected at least 0, got -1"),
    ],
)
def test_values_out_of_range_are_named(make, said):
    with pytest.raises(InputError, match=said):
        make()


def test_a_training_goes_on_from_other_weights(store, tmp_path):
    first = network()
    again = RasterTrainer(SMALL, BRIEF, [store], tmp_path, start_from=first)
    for name, values in first.state_dict().items():
        assert torch.equal(values, again.network.state_dict()[name]), name
    again.optimisation.save_state()
    with pytest.raises(InputError, match="belongs to a run with other settings"):
        trainer(store, tmp_path).resume()


def test_a_horizon_beyond_the_latents_stretch_is_refused(store, tmp_path):
    with pytest.raises(InputError, match=r"horizon_steps: expected at most raster\.model\.hold_steps, 6"):
        trainer(store, tmp_path, replace(BRIEF, horizon_steps=7))
    free = replace(SMALL, latent_dims=0)
    assert RasterTrainer(free, replace(BRIEF, horizon_steps=7), [store], tmp_path).config.horizon_steps == 7
