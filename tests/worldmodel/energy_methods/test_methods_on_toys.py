"""Every method on small problems whose answer is known."""

from __future__ import annotations

import importlib
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from energy_toys import (
    LINE_COVARIANCE,
    SmallEmbeddings,
    SmallEnergy,
    SmallLatent,
    line,
    moved_by_past,
    off_ring,
    ring,
)

from drivecast.worldmodel.energy_methods.contrastive_divergence import (
    ContrastiveDivergence,
    DivergenceConfig,
    PersistentDivergence,
    divergence,
)
from drivecast.worldmodel.energy_methods.contrasts import InfoNCE, Margin, NegativesConfig
from drivecast.worldmodel.energy_methods.joint_embedding import JointEmbedding, VICRegConfig
from drivecast.worldmodel.energy_methods.langevin import LangevinConfig, langevin
from drivecast.worldmodel.energy_methods.latent_variable import LatentConfig, LatentVariable
from drivecast.worldmodel.energy_methods.method import Examples
from drivecast.worldmodel.energy_methods.score_matching import DenoisingScoreMatching
from drivecast.worldmodel.energy_methods.training import MethodTrainingConfig, train
from drivecast.worldmodel.evaluation.auroc import auroc

STEPS = MethodTrainingConfig(steps=250, batch=64, learning_rate=1e-2)
LONGER = MethodTrainingConfig(steps=400, batch=128, learning_rate=1e-2)  # of what takes little
SAMPLER = LangevinConfig(steps=5, step_size=0.01)
DIVERGENCE = DivergenceConfig(SAMPLER, size_cost=0.001, chains=256)
MAKERS = {
    "InfoNCE": lambda: InfoNCE(SmallEnergy(), NegativesConfig(spread=0.7)),
    "margin": lambda: Margin(SmallEnergy(hidden=64), NegativesConfig(others=0, noised=1, spread=0.7), 1.0),
    "CD-10": lambda: ContrastiveDivergence(SmallEnergy(), DIVERGENCE),
    "persistent CD": lambda: PersistentDivergence(SmallEnergy(), DIVERGENCE),
    "denoising": lambda: DenoisingScoreMatching(SmallEnergy(), 0.3),
    "latent": lambda: LatentVariable(SmallLatent(), LatentConfig(dims=1, information_cost=0.5)),
    "VICReg": lambda: JointEmbedding(SmallEmbeddings(), VICRegConfig(dims=4)),
}
# of a ring nothing can be foreseen (VICReg), and a latent of one number goes through its middle
ON_A_RING = ("InfoNCE", "margin", "CD-10", "persistent CD", "denoising")


@pytest.fixture(scope="module")
def trained():
    """Each method on the ring; the latent one on a line."""
    found = {}
    for name in (*ON_A_RING, "latent"):
        found[name] = MAKERS[name]()
        data, config = line() if name == "latent" else ring(), LONGER if name == "margin" else STEPS
        how = train(found[name], data, config, seed=0)
        assert not how.diverged
    return found


@pytest.mark.parametrize("name", ON_A_RING)
def test_energy_is_lower_on_a_ring_than_off_it(name, trained):
    method, context = trained[name], torch.zeros(1, 1)
    on, off = ring(500, seed=5).future[None], off_ring()
    low, high = (method.energy(method.look(context), points)[0].detach() for points in (on, off))
    untrained = MAKERS[name]()
    before = auroc(*(untrained.energy(context, points)[0].detach() for points in (on, off)))
    assert auroc(low, high) > 0.95
    assert auroc(low, high) > before + 0.1


@pytest.mark.parametrize("name", ["InfoNCE", "denoising", "latent", "VICReg"])
def test_energy_says_which_future_goes_with_which_past(name):
    method = MAKERS[name]()
    data = moved_by_past()
    train(method, data, STEPS, seed=0)
    fresh = moved_by_past(300, seed=7)
    context = method.look(fresh.past)
    low = method.energy(context, fresh.future[:, None])[:, 0]
    high = method.energy(context, fresh.future.roll(1, 0)[:, None])[:, 0]
    assert float((high > low).double().mean()) > 0.85  # of two pasts that happen to be alike nobody can tell


def test_denoising_recovers_the_score_of_a_gaussian():
    """-grad E = -(y - 1) / (s² + spread²): the density blurred by the noise."""
    generator = torch.Generator().manual_seed(0)
    spread, scale = 0.4, torch.tensor([1.0, 0.5])
    data = Examples(torch.zeros(4000, 1), 1.0 + scale * torch.randn(4000, 2, generator=generator))
    method = DenoisingScoreMatching(SmallEnergy(), spread)
    train(method, data, MethodTrainingConfig(steps=400, batch=256, learning_rate=1e-2), seed=0)
    points = (1.0 + scale * torch.randn(300, 2, generator=generator))[None].requires_grad_(True)
    gradient = torch.autograd.grad(method.energy(torch.zeros(1, 1), points).sum(), points)[0][0]
    expected = (points[0].detach() - 1.0) / (scale.square() + spread**2)
    error = (gradient - expected).square().sum(-1).mean().sqrt() / expected.square().sum(-1).mean().sqrt()
    assert float(error) < 0.15


def test_samplers_of_contrastive_divergence_stay_near_the_data(trained):
    """Over many more steps than they were trained with; an energy that knows nothing lets them go."""
    start, context, far = ring(300, seed=9).future[:, None], torch.zeros(300, 1), {}
    untrained = MAKERS["CD-10"]()
    for name, method in (("CD-10", trained["CD-10"]), ("PCD", trained["persistent CD"]), ("nothing", untrained)):
        energy = partial(method.energy, context)
        reached = langevin(energy, start, LangevinConfig(60, 0.005), torch.Generator().manual_seed(1))
        far[name] = float((reached.norm(dim=-1) - 1.0).abs().mean())
    assert far["CD-10"] < 0.25
    assert far["PCD"] < 0.25
    assert far["nothing"] > 0.4


def test_langevin_steps_find_mean_and_spread_of_a_gaussian():
    wide = torch.tensor([1.0, 0.3])
    config = LangevinConfig(steps=250, step_size=0.03)
    start = torch.zeros(1, 3000, 2)
    found = langevin(lambda y: ((y - 2.0) / wide).square().sum(-1) / 2, start, config, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found[0].mean(0), torch.tensor([2.0, 2.0]), atol=0.06, rtol=0.0)
    torch.testing.assert_close(found[0].std(0), wide, atol=0.06, rtol=0.0)
    hot = langevin(
        lambda y: ((y - 2.0) / wide).square().sum(-1) / 2, start, config, torch.Generator().manual_seed(0), 4.0
    )
    assert float(hot[0].std(0)[0]) > 1.5


def test_f_inf_is_at_most_the_energy_under_any_latent(trained):
    method, context = trained["latent"], torch.zeros(50, 1)
    future = torch.cat([line(25, seed=3).future, off_ring(25)[0]])[:, None]
    lowest = method.energy(context, future)
    for value in torch.linspace(-3.0, 3.0, 121):
        latent = torch.full((50, 1, 1), float(value))
        assert bool((lowest <= method.energy_with(context, future, latent) + 0.05).all())
    assert bool((lowest <= method.energy_with(context, future, torch.zeros(50, 1, 1))).all())


def test_f_1_is_the_gaussian_density_that_a_linear_latent_model_has(trained):
    """Up to a constant, -log N(y; 0, covariance) of the data that it was trained on; and it is the integral."""
    method, context = trained["latent"], torch.zeros(60, 1)
    future = torch.cat([line(30, seed=4).future, 0.7 * torch.randn(30, 2, generator=torch.Generator().manual_seed(6))])
    found = method.free_energy(context, future[:, None], torch.Generator().manual_seed(0), samples=500)[:, 0]
    exact = (future @ torch.linalg.inv(LINE_COVARIANCE) * future).sum(-1) / 2
    assert float(torch.corrcoef(torch.stack([found, exact]))[0, 1]) > 0.95
    grid = torch.linspace(-6.0, 6.0, 1201)
    energies = torch.stack(
        [method.energy_with(context, future[:, None], torch.full((60, 1, 1), float(z))) for z in grid]
    )
    integral = -torch.logsumexp(-energies[..., 0], 0) - (grid[1] - grid[0]).log()
    assert float((found - integral).abs().median()) < 0.05


def test_divergence_is_the_difference_of_energies_and_pulls_them_apart():
    positive, negative = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([0.0, 1.0], requires_grad=True)
    divergence(positive, negative, 0.0).backward()
    assert positive.grad.tolist() == [0.5, 0.5]
    assert negative.grad.tolist() == [-0.5, -0.5]


# --- what gradients reach


def test_nothing_flows_back_through_samples():
    """The loss of CD has the gradient that it has with the same samples as constants."""
    data = ring(64)
    rows = torch.arange(64)
    method = ContrastiveDivergence(SmallEnergy(), DivergenceConfig(SAMPLER, size_cost=0.0))
    method.loss(data, rows, torch.Generator().manual_seed(2)).backward()
    gradient = [p.grad.clone() for p in method.parameters()]
    method.zero_grad()
    samples = method.sampled(data.past, data.future[:, None], torch.Generator().manual_seed(2))
    assert not samples.requires_grad
    energy = method.energy(data.past, torch.cat([data.future[:, None], samples], 1))
    (energy[:, 0].mean() - energy[:, 1].mean()).backward()
    for one, parameter in zip(gradient, method.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad)


def test_sampling_leaves_no_gradient_on_weights():
    method = MAKERS["CD-10"]()
    method.sampled(torch.zeros(4, 1), torch.zeros(4, 1, 2), torch.Generator().manual_seed(0))
    assert all(parameter.grad is None for parameter in method.parameters())


@pytest.mark.parametrize("name", MAKERS)
def test_losses_reach_all_weights_and_energies_the_future(name):
    method, data = MAKERS[name](), moved_by_past(64)
    method.loss(data, torch.arange(64), torch.Generator().manual_seed(0)).backward()
    silent = [key for key, value in method.named_parameters() if value.grad is None or not bool(value.grad.any())]
    allowed = [key for key in silent if key.endswith("bias")]  # a constant of an energy is the same for all
    assert silent == allowed
    assert len(silent) <= 1
    future = data.future[:, None].clone().requires_grad_(True)
    method.energy(method.look(data.past), future).sum().backward()
    assert bool((future.grad.abs().sum(-1) > 0).all())


def test_the_gradient_of_f_inf_is_that_at_the_best_latent(trained):
    """Against finite differences of the minimum: the latents move, and it does not matter (Danskin)."""
    latent = trained["latent"]
    method = LatentVariable(latent.networks.double(), LatentConfig(dims=1, search_steps=150, search_rate=0.05))
    context, future = torch.zeros(1, 1).double(), torch.tensor([[[0.9, 0.5]]]).double().requires_grad_(True)
    gradient = torch.autograd.grad(method.energy(context, future).sum(), future)[0]
    for axis in range(2):
        step = torch.zeros(1, 1, 2).double()
        step[..., axis] = 1e-3
        above, below = (method.energy(context, future.detach() + sign * step) for sign in (1, -1))
        assert float((above - below) / 2e-3) == pytest.approx(float(gradient[0, 0, axis]), rel=0.02, abs=0.02)
    latent.networks.float()


def test_vicreg_does_not_collapse_and_without_its_terms_it_does():
    spreads = []
    for covariance, invariance in ((0.04, 1.0), (0.0, 1e4)):
        method = JointEmbedding(SmallEmbeddings(), VICRegConfig(dims=4, invariance=invariance, covariance=covariance))
        train(method, moved_by_past(), MethodTrainingConfig(steps=200, batch=64, learning_rate=5e-3), seed=0)
        spreads.append(float(method.networks.embedded(moved_by_past(500, seed=3).future).std(0).mean()))
    assert spreads[0] > 0.7
    assert spreads[1] < 0.3 * spreads[0]


def test_the_negatives_are_others_and_noised_copies():
    config = NegativesConfig(others=3, noised=4, spread=0.01)
    future = torch.arange(5.0)[:, None].expand(5, 2)
    drawn = config.drawn(future, torch.Generator().manual_seed(0))
    assert drawn.shape == (5, 7, 2)
    assert not bool((drawn[:, :3] == future[:, None]).all(-1).any())
    assert float((drawn[:, 3:] - future[:, None]).abs().max()) < 0.06


def test_infonce_and_margin_on_energies_that_are_known():
    """Loss of InfoNCE: log(1 + negatives) of an energy that tells nothing; of the margin: the margin."""

    class Nothing(SmallEnergy):
        def forward(self, context, future):
            return super().forward(context, future) * 0.0

    data, rows = ring(64), torch.arange(64)
    negatives = NegativesConfig(others=3, noised=4)
    flat = InfoNCE(Nothing(), negatives).loss(data, rows, torch.Generator().manual_seed(0))
    assert float(flat.detach()) == pytest.approx(float(torch.tensor(8.0).log()))
    hinge = Margin(Nothing(), negatives, margin=0.7).loss(data, rows, torch.Generator().manual_seed(0))
    assert float(hinge.detach()) == pytest.approx(0.7)


def test_the_most_offending_of_many_random_negatives_collapses_the_energy():
    """Some of them lie lower than the data by chance: being the same everywhere costs the margin, and nothing less."""
    ranges = []
    for noised in (1, 6):
        method = Margin(SmallEnergy(), NegativesConfig(others=0, noised=noised, spread=0.7), margin=1.0)
        how = train(method, ring(), MethodTrainingConfig(steps=150, batch=64, learning_rate=1e-2), seed=0)
        energy = method.energy(torch.zeros(1, 1), torch.cat([ring(200, seed=5).future[None], off_ring(200)], 1))
        ranges.append(float(energy.std()))
    assert how.losses[-1] == pytest.approx(1.0, abs=0.02)
    assert ranges[0] > 0.5 > 0.1 > ranges[1]


def test_a_training_is_the_same_for_the_same_seed_and_stops_where_it_diverges():
    losses = [
        train(MAKERS["persistent CD"](), ring(200), MethodTrainingConfig(steps=5), seed=s).losses for s in (1, 1, 2)
    ]
    assert losses[0] == losses[1] != losses[2]
    broken = Examples(torch.zeros(10, 1), torch.full((10, 2), torch.nan))
    how = train(MAKERS["InfoNCE"](), broken, MethodTrainingConfig(steps=5), seed=0)
    assert how.diverged
    assert len(how.losses) == 1


# --- against torchebm


@pytest.fixture(scope="module")
def torchebm():
    pytest.importorskip("torchebm")
    names = {
        "core": ("BaseModel",),
        "losses.score_matching": ("DenoisingScoreMatching",),
        "losses.contrastive_divergence": ("ContrastiveDivergence",),
        "samplers.langevin_dynamics": ("LangevinDynamics",),
    }
    found = {}
    for module, classes in names.items():
        loaded = importlib.import_module(f"torchebm.{module}")
        found |= {each: getattr(loaded, each) for each in classes}
    return SimpleNamespace(**found)


def as_model(torchebm, network):
    """`network` as an energy of `(batch, dim)` of theirs."""

    class Model(torchebm.BaseModel):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, x, **kwargs):
            return self.network(torch.zeros(len(x), 1), x[:, None])[:, 0]

    return Model()


def test_denoising_is_that_of_torchebm_times_the_noise_squared(torchebm):
    data, network = ring(64), SmallEnergy()
    theirs = torchebm.DenoisingScoreMatching(as_model(torchebm, network), noise_scale=0.3)
    expected = theirs(data.future, generator=torch.Generator().manual_seed(4)) * 0.3**2
    own = DenoisingScoreMatching(network, 0.3).loss(data, torch.arange(64), torch.Generator().manual_seed(4))
    torch.testing.assert_close(own, expected)


def test_contrastive_divergence_and_its_sampler_are_those_of_torchebm(torchebm):
    data, network = ring(64), SmallEnergy()
    model = as_model(torchebm, network)
    sampler = torchebm.LangevinDynamics(model, step_size=0.02)
    theirs = torchebm.ContrastiveDivergence(model, sampler, k_steps=10, energy_reg_weight=0.01)
    expected, samples = theirs(data.future, generator=torch.Generator().manual_seed(5))
    config = DivergenceConfig(LangevinConfig(10, 0.02, clip=1e6), size_cost=0.01)
    method = ContrastiveDivergence(network, config)
    own = method.sampled(data.past, data.future[:, None], torch.Generator().manual_seed(5))
    torch.testing.assert_close(own[:, 0], samples)
    torch.testing.assert_close(method.loss(data, torch.arange(64), torch.Generator().manual_seed(5)), expected)
