"""What the planner's tests share."""

import pytest
import torch

from drivecast.worldmodel.forecaster.model import WorldModel, WorldModelConfig


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return WorldModel(WorldModelConfig(hidden=8, latent_dims=2)).eval().requires_grad_(False)
