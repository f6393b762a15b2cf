"""Worlds that planners drive in: what a gradient reaches in them."""

import pytest
import torch
from traffic_scenes import history_of, scene

from drivecast.planner.imagination.world import HeldWorld, ImaginedWorld
from drivecast.worldmodel.forecaster.draws import LatentDraws
from drivecast.worldmodel.forecaster.model import WorldModel, WorldModelConfig
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls

ROAD = Road.straight(3)


@pytest.fixture
def model() -> WorldModel:
    torch.manual_seed(0)
    made = WorldModel(WorldModelConfig(hidden=16, latent_dims=4)).eval().requires_grad_(False)
    torch.nn.init.normal_(made.decoder_out.weight, std=0.5)
    return made


def driven(kind, model, acceleration):
    history = history_of(scene((0, -4, 20), (14, -4, 18), (-12, -4, 21)), 4)
    world = kind(model, model.observe(history, ROAD), history[:, -2], ROAD, LatentDraws(model, False))
    for step in range(8):
        world.advance(Controls(acceleration[step : step + 1], torch.zeros(1)))
    return world.scene


def test_in_a_held_world_the_others_answer_and_only_the_ego_has_a_gradient(model):
    acceleration = torch.ones(8, requires_grad=True)
    held, felt = driven(HeldWorld, model, acceleration), driven(ImaginedWorld, model, acceleration)
    torch.testing.assert_close(held.position_m, felt.position_m)
    still = driven(HeldWorld, model, torch.zeros(8))
    assert (still.position_m[0, 2] - held.position_m[0, 2]).abs().max() > 1e-4  # the follower answers
    assert not torch.autograd.grad(felt.position_m[0, 2].sum(), acceleration, retain_graph=True)[0].eq(0).all()
    others = torch.autograd.grad(held.position_m[0, 1:].sum(), acceleration, retain_graph=True, allow_unused=True)[0]
    assert others is None or others.eq(0).all()
    ego, same = (torch.autograd.grad(s.position_m[0, 0, 0], acceleration)[0] for s in (held, felt))
    torch.testing.assert_close(ego, same)


def test_a_held_world_cannot_listen(model):
    with pytest.raises(ValueError, match="others_listen"):
        HeldWorld(model, None, None, ROAD, LatentDraws(model, False), others_listen=True)
