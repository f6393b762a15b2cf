"""Claims about the latent: its divergence, its free information, its dropout."""

import pytest
import torch
from torch.distributions import Normal
from torch.distributions import kl_divergence as reference_kl
from traffic_scenes import history_of, scene

from drivecast.worldmodel.forecaster.draws import LatentDraws
from drivecast.worldmodel.forecaster.latent import DiagonalNormal, drop_latent, kl_divergence, with_free_bits
from drivecast.worldmodel.forecaster.model import WorldModel, WorldModelConfig
from drivecast.worldmodel.scene.road import Road


def normal(*shape: int, seed: int = 0) -> DiagonalNormal:
    return DiagonalNormal.of_parameters(
        torch.randn(*shape[:-1], 2 * shape[-1], generator=torch.Generator().manual_seed(seed))
    )


def test_divergence_is_that_of_torch_distributions():
    left, right = normal(5, 3), normal(5, 3, seed=1)
    expected = reference_kl(
        Normal(left.mean, (left.log_variance / 2).exp()), Normal(right.mean, (right.log_variance / 2).exp())
    )
    torch.testing.assert_close(kl_divergence(left, right), expected)


def test_log_variance_is_bounded_before_sampling():
    wild = DiagonalNormal.of_parameters(torch.tensor([0.0, 1e6]))
    assert wild.log_variance.item() <= 2.0
    assert wild.sample(torch.Generator().manual_seed(0)).abs().item() < 20.0


def test_zero_parameters_give_the_standard_normal():
    standard = DiagonalNormal.of_parameters(torch.zeros(2))
    torch.testing.assert_close(standard.log_variance, torch.zeros(1), atol=0.02, rtol=0.0)


def test_free_bits_floor_each_dimension_and_leave_it_no_gradient():
    kl = torch.tensor([[0.01, 2.0], [0.03, 4.0]], requires_grad=True)
    total = with_free_bits(kl, torch.ones(2), 0.1)
    total.backward()
    assert total.item() == pytest.approx(0.1 + 3.0)
    assert kl.grad is not None
    assert kl.grad[:, 0].tolist() == [0.0, 0.0]
    assert kl.grad[:, 1].tolist() == [0.5, 0.5]


def test_uncounted_samples_do_not_touch_the_divergence():
    kl = torch.tensor([[1.0], [100.0]])
    assert with_free_bits(kl, torch.tensor([1.0, 0.0]), 0.0).item() == 1.0


@pytest.mark.parametrize("variant", ["zero", "prior"])
def test_latent_dropout_strikes_single_vehicles_at_its_rate(variant):
    latent = torch.full((40, 50, 3), 7.0)
    dropped = drop_latent(latent, normal(40, 50, 3), 0.3, variant, torch.Generator().manual_seed(0))
    struck = (dropped != 7.0).all(-1)
    assert 0.25 < struck.float().mean().item() < 0.35
    assert (struck.any(1) & ~struck.all(1)).all(), "every batch row has struck and spared vehicles"
    assert not ((dropped != 7.0).any(-1) & ~struck).any(), "a vehicle's latent is dropped as a whole"
    if variant == "zero":
        assert (dropped[struck] == 0.0).all()
    else:
        assert dropped[struck].std() > 0.3


def test_no_dropout_returns_the_latent_itself():
    latent = torch.randn(4, 3)
    assert drop_latent(latent, normal(4, 3), 0.0, "zero", None) is latent


def test_a_row_with_a_generator_of_its_own_draws_the_same_among_others():
    def generators(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    among, alone = normal(3, 4, 2), normal(3, 4, 2)
    alone = DiagonalNormal(alone.mean[1:2], alone.log_variance[1:2])
    assert torch.equal(among.sample(generators(7, 8, 9))[1], alone.sample(generators(8))[0])
    assert not torch.equal(among.sample(generators(7, 7, 7))[0], among.sample(generators(9, 8, 7))[0])


def test_a_vehicle_that_begins_has_a_latent_of_its_own_and_nobody_else_notices():
    model = WorldModel(WorldModelConfig(hidden=8, latent_dims=2))
    memory = model.observe(
        history_of(scene((0.0, 0.0, 10.0), (30.0, 0.0, 10.0), batch=3), 3), Road.straight(2, batch=3)
    )

    def drawn(begins: bool) -> tuple[torch.Tensor, torch.Tensor]:
        draws = LatentDraws(model, True, [torch.Generator().manual_seed(seed) for seed in range(3)])
        now = draws.at(0, memory)
        if begins:
            now = draws.begin(torch.tensor([1]), torch.tensor([0]), memory)
        assert torch.equal(draws.at(1, memory), now)
        return now, draws.at(model.config.latent_hold_steps, memory)

    with torch.no_grad():
        (before, after), (with_new, later) = drawn(False), drawn(True)
    changed = (before != with_new).any(-1)
    assert changed.tolist() == [[False, False], [True, False], [False, False]]
    assert torch.equal(after[[0, 2]], later[[0, 2]])
