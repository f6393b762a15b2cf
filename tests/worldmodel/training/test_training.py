"""Claims about training the world model, on platoons made for it."""

import errno
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from traffic_scenes import platoon_store

from drivecast import worldmodel
from drivecast.worldmodel.energy.reconstruction_scale import ReconstructionScale
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.evaluation.forecasts import ForecastEvaluationConfig, evaluate_forecasts
from drivecast.worldmodel.forecaster.loading import load_world_model
from drivecast.worldmodel.forecaster.model import MODEL_KIND, WorldModelConfig
from drivecast.worldmodel.forecaster.sampler import ModelSampler
from drivecast.worldmodel.storage.checkpoint import load_model, weights_digest
from drivecast.worldmodel.training.objective import ObjectiveConfig, loss_of_rollout
from drivecast.worldmodel.training.optimisation import learning_rate_share
from drivecast.worldmodel.training.trainer import WorldModelTrainer, WorldModelTrainingConfig

SMALL = WorldModelConfig(hidden=24, latent_dims=4, latent_hold_steps=6)
SHORT = WorldModelTrainingConfig(
    steps=8,
    batch=4,
    max_agents=8,
    scored_agents=6,
    history_steps=5,
    horizon_steps=10,
    first_horizon_steps=5,
    validate_every=4,
    validation_windows=6,
    checkpoint_every=4,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return platoon_store(tmp_path_factory.mktemp("platoons") / "store")


def trainer(store, output: Path, config=SHORT, model=SMALL, seed=0) -> WorldModelTrainer:
    return WorldModelTrainer(model, config, [store], output, seed)


def test_resume_is_bit_exact(store, tmp_path):
    whole = trainer(store, tmp_path / "whole")
    logs: dict[str, list] = {"whole": [], "halves": []}
    whole.train(lambda step, values: logs["whole"].append((step, dict(values))))
    first = trainer(store, tmp_path / "halves")

    class StoppedError(Exception):
        pass

    def stop_at_six(step, _values):
        if step == 6:  # two steps after the last checkpoint: they are done again
            raise StoppedError

    with pytest.raises(StoppedError):
        first.train(lambda step, values: logs["halves"].append((step, dict(values))), stop_at_six)
    second = trainer(store, tmp_path / "halves")
    assert second.resume() == 4
    second.train(lambda step, values: logs["halves"].append((step, dict(values))))
    for name, weights in whole.network.state_dict().items():
        assert torch.equal(weights, second.network.state_dict()[name]), name
    assert logs["whole"][-1] == logs["halves"][-1]
    best = [load_world_model(tmp_path / part / "world-model.safetensors").state_dict() for part in ("whole", "halves")]
    assert all(torch.equal(best[0][name], best[1][name]) for name in best[0])


def test_resuming_another_run_s_state_is_refused(store, tmp_path):
    trainer(store, tmp_path).optimisation.save_state()
    with pytest.raises(InputError, match="other settings"):
        trainer(store, tmp_path, replace(SHORT, batch=5)).resume()


def test_training_beats_constant_velocity_on_platoons_it_has_not_seen(store, tmp_path):
    config = replace(SHORT, steps=120, batch=8, horizon_steps=20, learning_rate=1e-2, validate_every=120)
    trained = trainer(store, tmp_path, config)
    trained.train(lambda step, values: None)
    result = evaluate_forecasts(
        ModelSampler(load_world_model(trained.optimisation.best_model.path)),
        store,
        "test",
        ForecastEvaluationConfig(samples=3, stride=4),
    )
    assert result["rmse_m"][1] < 0.85 * result["constant_velocity_rmse_m"][1]
    assert result["min_fde_m"][1] <= result["fde_m"][1] * 1.5


def test_a_loss_that_is_not_finite_stops_with_step_and_frames_and_keeps_the_checkpoint(store, tmp_path):
    broken = trainer(store, tmp_path)
    broken.optimisation.save_state()
    with torch.no_grad():
        broken.network.decoder_in.weight.fill_(math.nan)
    with pytest.raises(FloatingPointError, match=r"step 0 on frames \[\d+"):
        broken.train(lambda step, values: None)
    assert broken.optimisation.state_path.is_file()


@pytest.mark.parametrize("full_at", ["training-state.pt", "world-model.safetensors"])
def test_a_full_disk_ends_training_in_one_line_that_names_the_last_checkpoint(store, tmp_path, monkeypatch, full_at):
    stopped = trainer(store, tmp_path, replace(SHORT, validate_every=2))
    write = Path.write_bytes

    def until_full(path, content):
        if full_at in path.name and stopped.optimisation.done_steps > 4:
            write(path, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", until_full)
    better = iter([3.0, 2.0, 1.0, 0.0])
    monkeypatch.setattr(stopped, "_validate", lambda: ({}, next(better)))
    with pytest.raises(InputError) as told:
        stopped.train(lambda step, values: None)
    state = stopped.optimisation.state_path
    assert "No space left on device" in str(told.value)
    assert f"the last good checkpoint is {state}, of step 4" in str(told.value)
    assert "\n" not in str(told.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["training-state.pt", "world-model.safetensors"]
    load_world_model(tmp_path)
    assert trainer(store, tmp_path, replace(SHORT, validate_every=2)).resume() == 4


def test_a_disk_that_is_full_from_the_start_is_told_too(store, tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"step 4 \(No space left on device\); no checkpoint was written yet"):
        trainer(store, tmp_path).train(lambda step, values: None)
    assert list(tmp_path.iterdir()) == []


def test_the_learning_rate_rises_to_its_peak_and_falls_to_a_fiftieth():
    for settings in ({}, {"warmup": 50, "falls_from": 0}):
        shares = [learning_rate_share(step, 1000, **settings) for step in range(1001)]
        top = shares.index(max(shares))
        assert shares[top] == pytest.approx(1.0, abs=0.01)
        assert shares[: top + 1] == sorted(shares[: top + 1])
        assert shares[top:] == sorted(shares[top:], reverse=True)
        assert shares[-1] == pytest.approx(0.02)


def test_the_weights_name_the_data_that_they_were_trained_on(store, tmp_path):
    path = trainer(store, tmp_path, replace(SHORT, steps=1)).train(lambda step, values: None)
    extra = load_model(path, "world-model").extra
    assert extra["data"] == [store.fingerprint]
    assert (extra["step"], extra["seed"]) == (1, 0)


def test_the_shuffled_latent_hurts_a_model_that_uses_it(store, tmp_path):
    values: dict[str, float] = {}
    config = replace(
        SHORT, steps=80, batch=8, learning_rate=1e-2, validate_every=80, objective=ObjectiveConfig(kl_weight=0.0)
    )
    trainer(store, tmp_path, config).train(lambda step, new: values.update(new))
    assert values["val/latent_gap"] > 0.0
    assert values["val/active_units"] >= 1


def test_a_strong_kl_weight_silences_the_latent(store, tmp_path):
    values: dict[str, float] = {}
    config = replace(
        SHORT,
        steps=60,
        learning_rate=1e-2,
        validate_every=60,
        kl_warmup_share=0.0,
        objective=ObjectiveConfig(kl_weight=100.0, free_nats=0.0),
    )
    trainer(store, tmp_path, config).train(lambda step, new: values.update(new))
    assert values["val/kl"] < 0.05
    assert values["val/active_units"] == 0


@pytest.mark.parametrize("variant", ["zero", "prior"])
@pytest.mark.parametrize("latent_dims", [0, 4])
def test_variants_train(store, tmp_path, variant, latent_dims):
    config = replace(SHORT, steps=4, objective=ObjectiveConfig(latent_dropout_variant=variant))
    model = replace(SMALL, latent_dims=latent_dims, prior="learned", latent_process="independent")
    path = trainer(store, tmp_path, config, model).train(lambda step, values: None)
    assert load_world_model(path).config.latent_dims == latent_dims


def test_a_training_goes_on_from_another_model_s_weights(store, tmp_path):
    first = trainer(store, tmp_path / "first")
    first.train(lambda *_: None)
    other = load_world_model(tmp_path / "first")
    second = WorldModelTrainer(other.config, SHORT, [store], tmp_path / "second", 5, start_from=other)
    for name, weights in other.state_dict().items():
        assert torch.equal(second.network.state_dict()[name], weights)
    second.train(lambda *_: None)
    assert load_model(tmp_path / "second", MODEL_KIND).extra["start_from"] == weights_digest(other)
    with pytest.raises(InputError, match="other settings"):
        trainer(store, tmp_path / "second", seed=5).resume()


def test_the_egos_of_eventful_windows_are_known(store, tmp_path, monkeypatch):
    config = replace(SHORT, batch=16, ego_known_share=0.25, eventful_share=0.25)
    known = []

    def noted(network, history, future, road, who, *given, **more):
        known.append(who[:, 0])
        return loss_of_rollout(network, history, future, road, who, *given, **more)

    monkeypatch.setattr("drivecast.worldmodel.training.trainer.loss_of_rollout", noted)
    made = trainer(store, tmp_path, config)
    made._step()
    (who,) = known
    assert who.tolist() == [False] * 12 + [True] * 4
    with pytest.raises(ValueError, match="eventful_share must lie in"):
        replace(SHORT, ego_known_share=0.25, eventful_share=0.5)


def test_a_trained_model_knows_its_usual_errors(store, tmp_path):
    config = replace(SHORT, validation_windows=24, calibrate=True)
    trainer(store, tmp_path, config).train(lambda *_: None)
    scale = worldmodel.load(tmp_path).scale
    assert not torch.equal(scale.along_m[:1], ReconstructionScale.standard().along_m[:1])
    assert bool((scale.along_m.diff() >= 0).all())
    # and keeps its temperature
    assert load_model(tmp_path, MODEL_KIND).config["temperature"] > 0
