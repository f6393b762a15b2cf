"""The temperature is found at which futures are as wide as the world."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from traffic_scenes import platoon_store

from drivecast.worldmodel.forecaster.forecast import forecast
from drivecast.worldmodel.forecaster.loading import load_world_model
from drivecast.worldmodel.forecaster.model import WorldModel, WorldModelConfig
from drivecast.worldmodel.recordings.sampling import WindowRequest, WindowSampler
from drivecast.worldmodel.training.calibration import TEMPERATURES, coverage_gaps, shrunk
from drivecast.worldmodel.training.trainer import WorldModelTrainer, WorldModelTrainingConfig

ARCHITECTURE = WorldModelConfig(hidden=16, latent_dims=4, latent_process="autoregressive", decide_steps=2)


@pytest.mark.parametrize("true_temperature", [0.8, 1.6])
def test_the_temperature_of_a_world_that_the_model_could_have_made_is_found(tmp_path: Path, true_temperature: float):
    torch.manual_seed(1)
    model = WorldModel(ARCHITECTURE).eval().requires_grad_(False)
    torch.nn.init.normal_(model.decoder_out.weight, std=0.5)
    store = platoon_store(tmp_path)
    windows = WindowSampler([store], "train", WindowRequest(10, 30, 16)).draw(48, torch.Generator().manual_seed(0))
    warm = WorldModel(replace(ARCHITECTURE, temperature=true_temperature)).eval().requires_grad_(False)
    warm.load_state_dict(model.state_dict())
    noise = torch.Generator().manual_seed(9)
    lived = [
        replace(
            window,
            future=forecast(
                warm, warm.observe(window.history, window.road), window.road, 30, sample=True, generator=noise
            ),
        )
        for window in windows
    ]
    gaps = coverage_gaps(model, lived, 16, "cpu", seed=3)
    assert min(gaps, key=lambda each: gaps[each]) == pytest.approx(true_temperature, abs=0.11)
    assert model.config == ARCHITECTURE


def test_training_ends_by_giving_the_best_model_its_temperature_and_does_so_again(tmp_path: Path):
    store = platoon_store(tmp_path / "data")
    config = WorldModelTrainingConfig(
        steps=4, batch=4, horizon_steps=20, validate_every=2, validation_windows=8, calibrate=True
    )

    def trained(calibrate: bool, output: Path) -> tuple[WorldModel, dict[str, float]]:
        said: dict[str, float] = {}
        settings = replace(config, calibrate=calibrate)
        trainer = WorldModelTrainer(ARCHITECTURE, settings, [store], output)
        trainer.resume()
        path = trainer.train(lambda _, values: said.update(values))
        return load_world_model(path), said

    plain, _ = trained(False, tmp_path / "plain")
    model, said = trained(True, tmp_path / "out")
    assert said["val/wanted_temperature"] in TEMPERATURES
    assert model.config.temperature == said["val/temperature"] == shrunk(said["val/wanted_temperature"])
    assert said["val/coverage_gap"] <= said["val/coverage_gap_at_1"]
    for name, weights in model.state_dict().items():
        torch.testing.assert_close(weights, plain.state_dict()[name])
    again, _ = trained(True, tmp_path / "out")
    assert again.config == model.config
