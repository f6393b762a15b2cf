"""A joint embedding predicts, listens to the ego, and resumes; it collapses without the terms that prevent it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from moving_entities import moving
from traffic_scenes import platoon_store

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.joint_embedding.diagnostics import diagnose
from drivecast.worldmodel.joint_embedding.energy import PredictionEnergy
from drivecast.worldmodel.joint_embedding.frames import SceneFrames, frames_of, window_frames, with_another_way
from drivecast.worldmodel.joint_embedding.loading import is_joint_embedding, load_joint_embedding
from drivecast.worldmodel.joint_embedding.network import JointEmbedding, JointEmbeddingConfig, Known
from drivecast.worldmodel.joint_embedding.objective import (
    JointEmbeddingObjectiveConfig,
    covariance_of_others,
    effective_rank,
    loss_of,
    variance_shortfall,
)
from drivecast.worldmodel.joint_embedding.trainer import JointEmbeddingTrainer, JointEmbeddingTrainingConfig
from drivecast.worldmodel.scene.entities import FRAME_S
from drivecast.worldmodel.storage.checkpoint import save_model

SMALL = JointEmbeddingConfig(dims=16, hidden=32)
BRIEF = JointEmbeddingTrainingConfig(
    steps=30,
    batch=24,
    learning_rate=4e-3,
    max_agents=6,
    horizon_steps=20,
    validate_every=15,
    validation_windows=60,
    checkpoint_every=10,
)


def network(config: JointEmbeddingConfig = SMALL) -> JointEmbedding:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return JointEmbedding(config)


def scenes(batch: int = 32) -> SceneFrames:
    """Random scenes on a straight road."""
    generator = torch.Generator().manual_seed(3)
    found = []
    for _ in range(batch):
        draw = torch.rand(4, generator=generator).tolist()
        cars = (
            (0.0, 0.0, 15 + 10 * float(draw[0]), 0.0),
            (20 + 30 * float(draw[1]), 0.0, 12 + 12 * float(draw[2]), 0.0),
        )
        states, road = moving(*cars, (-30.0 + 60 * float(draw[3]), 4.0, 20.0, 4.0))
        found.append(frames_of(states, road, FRAME_S, 2))
    return SceneFrames.cat(found)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return platoon_store(tmp_path_factory.mktemp("platoons") / "store")


def trained(store, output: Path, config: JointEmbeddingTrainingConfig = BRIEF) -> JointEmbeddingTrainer:
    trainer = JointEmbeddingTrainer(SMALL, config, [store], output)
    trainer.resume()
    trainer.train(lambda *_: None)
    return trainer


# ---- the network ----


def test_an_embedding_knows_nothing_of_later_frames():
    frames, model = scenes(), network()
    torch.testing.assert_close(model.encode(frames)[:, :4], model.encode(frames.frames(0, 4)), atol=1e-5, rtol=1e-5)


def test_an_embedding_remembers_one_frame_and_the_context_more():
    frames, model = scenes(), network()
    short = model.observe(frames.frames(2, 2))
    whole = model.observe(frames.frames(0, 4))
    torch.testing.assert_close(short.embedding, whole.embedding, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(short.context, whole.context, atol=1e-3)


def test_unrolling_is_predicting_again_and_again():
    model = network(replace(SMALL, latent_dims=2))
    start, moves = Known(torch.randn(5, 16), torch.randn(5, 32)), torch.randn(5, 3, 4)
    latents, here = torch.randn(5, 3, 2), start
    for step in range(3):
        here = Known(model.predict(here, moves[:, step], latents[:, step]), start.context)
    torch.testing.assert_close(model.unroll(start, moves, latents)[:, -1], here.embedding)


# ---- the terms ----


def test_variance_falls_short_only_below_a_spread_of_one():
    drawn = torch.randn(20_000, 4, generator=torch.Generator().manual_seed(0))
    assert float(variance_shortfall(3.0 * drawn)) == 0.0
    assert float(variance_shortfall(0.25 * drawn)) == pytest.approx(0.75, abs=0.01)
    assert float(variance_shortfall(torch.ones(10, 4))) == pytest.approx(
        0.99, abs=0.001
    )  # sqrt(1e-4) of spread is left


def test_covariance_counts_what_dimensions_share():
    one = torch.randn(50_000, 1, generator=torch.Generator().manual_seed(0))
    other = torch.randn(50_000, 1, generator=torch.Generator().manual_seed(1))
    assert float(covariance_of_others(torch.cat([one, other], 1))) == pytest.approx(0.0, abs=1e-3)
    assert float(covariance_of_others(torch.cat([one, one], 1))) == pytest.approx(1.0, abs=0.03)


def test_effective_rank_counts_the_dimensions_that_are_filled():
    drawn = torch.randn(5000, 8, generator=torch.Generator().manual_seed(0))
    assert effective_rank(drawn) == pytest.approx(8.0, abs=0.05)
    assert effective_rank(drawn[:, :1].expand(-1, 8)) == pytest.approx(1.0, abs=0.01)
    assert effective_rank(torch.ones(50, 8)) == 1.0
    two = torch.cat([drawn[:, :2], torch.zeros(5000, 6)], 1)
    assert effective_rank(two) == pytest.approx(2.0, abs=0.02)


@pytest.mark.parametrize("name", ["prediction", "variance", "covariance", "similarity", "inverse_dynamics"])
def test_each_term_teaches_the_encoder(name: str):
    zero = dict.fromkeys(("prediction", "variance", "covariance", "similarity", "inverse_dynamics", "information"), 0.0)
    model = network()
    loss_of(model, scenes(), 3, JointEmbeddingObjectiveConfig(**{**zero, name: 1.0}))["loss"].backward()
    assert model.encoder[0].weight.grad.abs().max() > 0.0


def test_the_posterior_does_not_teach_the_encoder():
    model = network(replace(SMALL, latent_dims=2))
    zero = dict.fromkeys(("prediction", "variance", "covariance", "similarity", "inverse_dynamics"), 0.0)
    config = JointEmbeddingObjectiveConfig(**zero, information=1.0)
    loss_of(model, scenes(), 3, config, torch.Generator().manual_seed(0))["loss"].backward()
    assert model.encoder[0].weight.grad.abs().max() == 0.0
    assert model.posterior_net[0].weight.grad.abs().max() > 0.0


# ---- training ----


def told(trainer: JointEmbeddingTrainer) -> dict[str, float]:
    """What the best model is like on ways that the egos did not go: recorded ones hardly change in these platoons."""
    generator = torch.Generator().manual_seed(5)
    (window,) = trainer.validation_windows.draw(60, generator)
    other = with_another_way(window, 0.1, torch.ones(60).bool(), generator)
    frames, past = window_frames(other, 0.1, SMALL.stride)
    return diagnose(load_joint_embedding(trainer.output), frames, past, BRIEF.objective, seed=0)


@pytest.fixture(scope="module")
def learned(store, tmp_path_factory):
    return trained(store, tmp_path_factory.mktemp("learned"), replace(BRIEF, steps=150, validate_every=75))


def test_it_predicts_better_than_that_nothing_changes_and_listens_to_the_ego(learned):
    measures = told(learned)
    assert measures["unexplained"] < 0.7 * measures["standing_still"]
    assert measures["ego_gap"] > 0.01
    assert measures["effective_rank"] > 3.0


def test_without_variance_and_inverse_dynamics_it_collapses(store, tmp_path, learned):
    bare = replace(BRIEF.objective, variance=0.0, inverse_dynamics=0.0, covariance=0.0)
    collapsed = trained(store, tmp_path, replace(BRIEF, steps=150, validate_every=75, objective=bare))
    assert told(collapsed)["least_std"] < 0.1 * told(learned)["least_std"]


def test_resume_is_bit_exact(store, tmp_path):
    whole = trained(store, tmp_path / "whole")
    broken = JointEmbeddingTrainer(SMALL, BRIEF, [store], tmp_path / "broken")

    def stop(step: int, values) -> None:
        if step == 15:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        broken.train(lambda *_: None, stop)
    resumed = JointEmbeddingTrainer(SMALL, BRIEF, [store], tmp_path / "broken")
    assert resumed.resume() == 10
    resumed.train(lambda *_: None)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name


def test_other_settings_do_not_go_on_from_it(store, tmp_path):
    trained(store, tmp_path, replace(BRIEF, steps=10))
    other = JointEmbeddingTrainer(SMALL, replace(BRIEF, steps=10, batch=25), [store], tmp_path)
    with pytest.raises(InputError, match="other settings"):
        other.resume()


# ---- its file and its energy ----


def test_what_is_loaded_is_what_was_trained(learned):
    path = Path(learned.output)
    assert is_joint_embedding(path)
    loaded, frames = load_joint_embedding(path), scenes()
    assert loaded.config == SMALL
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert loaded.encode(frames).isfinite().all()


def test_a_model_of_another_kind_is_refused(tmp_path):
    save_model(tmp_path / "joint-embedding.safetensors", network(), "world-model", SMALL)
    with pytest.raises(InputError, match="joint-embedding"):
        load_joint_embedding(tmp_path)


def test_weights_of_another_architecture_are_refused(tmp_path):
    save_model(tmp_path / "joint-embedding.safetensors", network(), "joint-embedding", replace(SMALL, dims=8))
    with pytest.raises(InputError, match="train it again"):
        load_joint_embedding(tmp_path)


def test_the_energy_is_one_where_errors_are_usual_and_higher_where_a_frame_is_of_another_scene(learned):
    model, frames = load_joint_embedding(learned.output), scenes()
    energy = PredictionEnergy.measured(model, frames, 3)
    usual = energy.by_frame(frames, 3)
    assert float(usual.mean()) == pytest.approx(1.0, abs=0.01)
    seen = frames.seen.clone()
    seen[:, -1] = seen[:, -1].roll(1, 0)
    elsewhere = energy.by_frame(replace(frames, seen=seen), 3)
    torch.testing.assert_close(elsewhere[:, :-1], usual[:, :-1])
    assert (elsewhere[:, -1] > usual[:, -1]).float().mean() > 0.8


def test_the_energy_is_differentiable_in_the_scene(learned):
    model, frames = load_joint_embedding(learned.output), scenes(4)
    seen = frames.seen.clone().requires_grad_()
    PredictionEnergy.measured(model, frames, 3)(replace(frames, seen=seen), 3).sum().backward()
    assert seen.grad is not None
    assert seen.grad[:, -1].abs().max() > 0.0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (lambda: JointEmbeddingConfig(dims=1), "dims"),
        (lambda: JointEmbeddingConfig(dt_s=0.0), "dt_s"),
        (lambda: JointEmbeddingTrainingConfig(batch=1), "batch"),
        (lambda: JointEmbeddingTrainingConfig(other_ways_share=1.5), "other_ways_share"),
        (lambda: JointEmbeddingObjectiveConfig(variance=-1.0), "variance"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(config, message: str):
    with pytest.raises(InputError, match=message):
        config()
