"""Claims about the loss of the world model."""

from dataclasses import replace

import pytest
import torch
from traffic_scenes import history_of, scene

from drivecast.worldmodel.energy.scoring import fair_energy_score
from drivecast.worldmodel.forecaster.model import WorldModel, WorldModelConfig
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState
from drivecast.worldmodel.training.objective import (
    ObjectiveConfig,
    error_growth,
    loss_of_rollout,
    overlap_m2,
    sampled_energy_score,
)

ROAD = Road.straight(3)
PRESENT = scene((0, -4, 20), (20, -4, 18), (5, 0, 22), (-20, -8, 15))


def loss(score_samples: bool, **config):
    torch.manual_seed(0)
    net = WorldModel(WorldModelConfig(hidden=16, latent_dims=4))
    torch.nn.init.normal_(net.decoder_out.weight, std=0.5)
    batch = torch.zeros(2, dtype=torch.long)
    history, future = history_of(PRESENT, 5)[batch], history_of(PRESENT, 10)[batch]
    who = torch.zeros(2, 4, dtype=torch.bool)
    made = loss_of_rollout(
        net,
        history,
        future,
        ROAD[batch],
        who,
        ~who,
        ObjectiveConfig(**config),
        0.1,
        torch.Generator().manual_seed(1),
        score_samples=score_samples,
    )
    return net, made


def test_scored_samples_leave_what_the_posterior_makes_as_it_is():
    """They are rows of the same batch, and rows know nothing of each other."""
    alone, beside = loss(False)[1], loss(True)[1]
    torch.testing.assert_close(alone.reconstruction, beside.reconstruction)
    torch.testing.assert_close(alone.kl, beside.kl)
    assert float(alone.energy_score) == float(alone.likeliest) == 0.0
    assert float(beside.energy_score.detach()) > 0.0
    assert float(beside.likeliest.detach()) > 0.0


def test_the_energy_score_teaches_what_the_prior_draws():
    """How long a latent lasts changes nothing in one stretch's reconstruction; what the decoder makes of it does."""
    net, made = loss(True, samples=3)
    made.energy_score.backward()
    latent_weights = net.decoder_in.weight.grad[:, -4:]
    assert latent_weights.abs().max() > 0


def states(offset: torch.Tensor) -> TrafficState:
    """Two vehicles for 10 steps, moved forward by `offset (sample, batch, vehicle)` m at all of them."""
    many = history_of(scene((0, 0, 20), (40, -4, 20)), 10)
    moved = many.position_m.expand(*offset.shape[:2], -1, -1, -1).clone()
    moved[..., 0] += offset[:, :, None]
    shape = (*offset.shape[:2], 10, 2)
    rest = {name: getattr(many, name).expand(shape) for name in ("heading_rad", "speed_mps", "length_m", "width_m")}
    return TrafficState(moved, valid=torch.ones(shape, dtype=torch.bool), **rest)


@pytest.mark.parametrize("samples", [2, 3, 4, 5])
def test_it_is_the_fair_energy_score_of_vehicles_and_of_the_scene(samples):
    torch.manual_seed(samples)
    offset = torch.randn(samples, 3, 2)
    truth = states(torch.zeros(1, 3, 2))[0]
    counted = torch.ones(3, 10, 2, dtype=torch.bool)
    score = sampled_energy_score(states(offset), truth, counted, 0.1)
    # the same offset at both of its landmarks, 0.5 and 1 s
    growth = error_growth(torch.tensor([0.5, 1.0]))[:, 0]
    at_each = fair_energy_score(offset[..., None], torch.zeros(3, 2, 1)).mean() * (1 / growth).mean()
    both = offset[..., None] / growth
    vehicles = fair_energy_score(both, torch.zeros(3, 2, 2)).mean() / 2**0.5
    whole = fair_energy_score(both.flatten(2), torch.zeros(3, 4)).mean() / 4**0.5
    torch.testing.assert_close(score, (at_each + vehicles + whole) / 3, atol=2e-3, rtol=0)


def test_vehicles_that_do_not_count_do_not_matter():
    offset = torch.randn(2, 1, 2)
    truth, counted = states(torch.zeros(1, 1, 2))[0], torch.ones(1, 10, 2, dtype=torch.bool)
    counted[..., 1] = False
    other = offset.clone()
    other[..., 1] = 50.0
    scores = [sampled_energy_score(states(each), truth, counted, 0.1) for each in (offset, other)]
    assert torch.equal(scores[0], scores[1])


def test_overlap_is_the_area_of_parallel_boxes_that_both_are_in():
    one = scene((0, 0, 20), (4, 1, 20), (60, 0, 20))  # 5 x 2 m: 1 m and 1 m
    futures = one[None].map(lambda tensor: tensor[:, :, None])  # (sample, batch, moment, agent)
    counted = torch.ones(1, 3, dtype=torch.bool)
    assert float(overlap_m2(futures, counted)) == pytest.approx(2 * 1.0 / 3)
    counted[:, 1] = False
    assert float(overlap_m2(futures, counted)) == pytest.approx(1.0 / 2)
    gone = replace(futures, valid=torch.tensor([True, False, True]).view(1, 1, 1, 3))
    assert float(overlap_m2(gone, counted)) == 0.0
