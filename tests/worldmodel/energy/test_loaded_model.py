"""Claims about a world model as its users have it."""

import pytest
import torch
from traffic_scenes import history_of, scene

from drivecast import worldmodel
from drivecast.worldmodel.energy.reconstruction_scale import ENERGY_SCALE, ReconstructionScale
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.model import MODEL_KIND, WorldModel, WorldModelConfig
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.storage.checkpoint import save_model

ROAD = Road.straight(3)
PRESENT = scene((0, -4, 20), (20, -4, 18), (5, 0, 22))


@pytest.fixture
def loaded(tmp_path):
    torch.manual_seed(0)
    net = WorldModel(WorldModelConfig(hidden=16, latent_dims=4))
    torch.nn.init.normal_(net.decoder_out.weight, std=0.5)
    save_model(tmp_path / "world-model.safetensors", net, MODEL_KIND, net.config)
    return worldmodel.load(tmp_path)


def test_futures_are_sampled_with_and_without_a_known_ego(loaded):
    history = history_of(PRESENT, 10)
    free = loaded.sample(history, ROAD, 3, 20, generator=torch.Generator().manual_seed(0))
    assert free.position_m.shape == (1, 3, 20, 3, 2)
    assert (free.position_m[0, 0] - free.position_m[0, 1]).abs().max() > 1e-3
    known = history_of(PRESENT, 20)
    given = loaded.sample(history, ROAD, 3, 20, known, torch.Generator().manual_seed(0))
    torch.testing.assert_close(given.position_m[0, :, :, 0], known.position_m[:, :, 0].expand(3, -1, -1))
    assert not torch.equal(given.position_m[0, 0, -1, 1], known.position_m[0, -1, 1])


def test_a_sampled_future_has_less_energy_than_an_impossible_one(loaded):
    history = history_of(PRESENT, 10)
    future = loaded.sample(history, ROAD, 1, 20).map(lambda tensor: tensor[:, 0])
    jumped = history_of(PRESENT, 20)
    jumped.position_m[:, 10:, :, 1] += 6.0
    assert bool((loaded.free_energy(history, ROAD, future) < loaded.free_energy(history, ROAD, jumped)).all())
    latents = torch.zeros(1, 2, 3, 4)
    assert loaded.energy(history, ROAD, future, latents).shape == (1, 3)
    assert torch.isfinite(loaded.free_energy(history, ROAD, future, beta=1.0)).all()


def test_energies_count_in_the_usual_errors_that_a_model_was_stored_with(loaded, tmp_path):
    history, future = history_of(PRESENT, 10), history_of(PRESENT, 20)
    wide = ReconstructionScale(loaded.scale.along_m * 10, loaded.scale.left_m * 10)
    stored = {ENERGY_SCALE: wide.as_json()}
    save_model(tmp_path / "wide" / "world-model.safetensors", loaded.model, MODEL_KIND, loaded.model.config, stored)
    other = worldmodel.load(tmp_path / "wide")
    torch.testing.assert_close(other.scale.along_m, wide.along_m)
    latents = torch.zeros(1, 2, 3, 4)
    energies = [each.energy(history, ROAD, future, latents) for each in (loaded, other)]
    assert bool((energies[1] < 0.5 * energies[0]).all())
    for broken in ({"along_m": [1.0]}, {"along_m": [1.0], "left_m": [-1.0]}, {"along_m": [], "left_m": []}, "wide"):
        with pytest.raises(InputError, match="energy_scale"):
            ReconstructionScale.of_json(broken)


def test_a_name_that_does_not_come_with_drivecast_is_refused_with_those_that_do():
    with pytest.raises(InputError, match=r"pretrained:mars: no such model comes with drivecast; it has"):
        worldmodel.load("pretrained:mars")
