"""Claims about imagined rollouts and the uncertainty measured on the way."""

from dataclasses import replace

import pytest
import torch
from traffic_scenes import history_of, scene

from drivecast.planner.imagination.rollout import imagine
from drivecast.worldmodel.energy.uncertainty import UncertaintyConfig, UncertaintyScale
from drivecast.worldmodel.forecaster.model import WorldModel, WorldModelConfig
from drivecast.worldmodel.scene.kinematics import drive
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls, Goal

ROAD = Road.straight(3)
PRESENT = scene((0, -4, 20), (14, -4, 18), (5, 0, 22), (-12, -4, 21))
GOAL = Goal(torch.tensor([25.0]), torch.tensor([-1]))


@pytest.fixture
def model() -> WorldModel:
    torch.manual_seed(0)
    made = WorldModel(WorldModelConfig(hidden=16, latent_dims=4, latent_hold_steps=4)).eval().requires_grad_(False)
    torch.nn.init.normal_(made.decoder_out.weight, std=0.5)
    return made


def unroll(model, acceleration, steering=None, steps=12, **settings):
    dtype = acceleration.dtype
    state, road, goal = (
        record.map(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)
        for record in (PRESENT, ROAD, GOAL)
    )
    history = history_of(state, 4)
    steering = torch.zeros_like(acceleration) if steering is None else steering

    def control(step, scene, before):
        return Controls(acceleration[step : step + 1], steering[step : step + 1])

    memory = model.observe(history, road)
    generator = torch.Generator().manual_seed(3)
    return imagine(model, memory, history[:, -2], road, goal, control, steps, generator, **settings)


def test_the_ego_follows_its_bicycle_exactly(model):
    trajectory, _ = unroll(model, torch.full((12,), 1.0))
    assert trajectory.states.speed_mps[0, -1, 0].item() == pytest.approx(20 + 1.2, abs=1e-4)
    state = PRESENT
    for _ in range(12):
        state = state.with_ego(drive(state[:, 0], Controls(torch.ones(1), torch.zeros(1)), 0.1))
    torch.testing.assert_close(trajectory.states.position_m[:, -1, 0], state.position_m[:, 0])


def test_gradient_through_model_and_kinematics_matches_finite_differences(model):
    model = model.double()
    acceleration = torch.linspace(-1, 1, 6).double().requires_grad_()
    steering = torch.full((6,), 0.01).double().requires_grad_()

    def outcome(a, s):
        states = unroll(model, a, s, steps=6)[0].states
        return states.position_m[:, -1], states.speed_mps[:, -1]

    assert torch.autograd.gradcheck(outcome, (acceleration, steering), atol=1e-6)


@pytest.mark.parametrize("listen", [True, False])
def test_others_listen_decides_whether_the_ego_is_rewarded_for_pushing_them(model, listen):
    acceleration = torch.zeros(12, requires_grad=True)
    trajectory, _ = unroll(model, acceleration, others_listen=listen)
    position = trajectory.states.position_m
    (through_others,) = torch.autograd.grad(position[:, :, 1:].sum(), acceleration, retain_graph=True)
    (through_ego,) = torch.autograd.grad(position[:, :, 0].sum(), acceleration)
    assert bool((through_others.abs() > 0).any()) is listen
    assert (through_ego[:-1] > 0).all()


def test_cutting_the_gradient_changes_no_value(model):
    cut, whole = (unroll(model, torch.ones(12), others_listen=listen)[0] for listen in (False, True))
    torch.testing.assert_close(cut.states.position_m, whole.states.position_m)


def test_samples_come_from_the_prior_and_the_mean_needs_no_noise(model):
    sampled = [unroll(model, torch.zeros(12), sample=True)[0].states.position_m for _ in range(2)]
    mean = unroll(model, torch.zeros(12), sample=False)[0].states.position_m
    torch.testing.assert_close(sampled[0], sampled[1], rtol=0, atol=0)
    assert (sampled[0] - mean)[:, :, 1:].abs().max() > 1e-4


def test_uncertainty_is_measured_at_its_interval_and_costs_only_beyond_the_hinge(model):
    config = UncertaintyConfig(masks=6, every_steps=5, hinge=1.0)
    trajectory, raw = unroll(model, torch.zeros(12), uncertainty=config)
    assert raw is not None
    assert raw.shape == (1, 3)
    assert (raw > 0).all()
    assert trajectory.uncertainty is None
    known = UncertaintyScale(raw[0].clone(), torch.ones(3))
    unknown = UncertaintyScale(raw[0] - 3.0, torch.ones(3))
    for scale, expected in ((known, 0.0), (unknown, 2.0)):
        trajectory, _ = unroll(model, torch.zeros(12), uncertainty=config, scale=scale)
        assert trajectory.uncertainty is not None
        assert trajectory.uncertainty.shape == (1, 12)
        torch.testing.assert_close(trajectory.uncertainty, torch.full((1, 12), expected))


def test_the_first_measure_knows_what_the_first_controls_have_done(model):
    config = UncertaintyConfig(masks=6, every_steps=1)
    raws = [unroll(model, torch.full((12,), acceleration), uncertainty=config)[1] for acceleration in (0.0, -6.0)]
    assert (raws[0] - raws[1]).abs()[:, 0].min() > 1e-9


def test_uncertainty_has_a_gradient_in_the_ego_s_controls(model):
    acceleration = torch.zeros(12, requires_grad=True)
    _, raw = unroll(model, acceleration, uncertainty=UncertaintyConfig(masks=6, every_steps=4))
    assert raw is not None
    raw.sum().backward()
    assert acceleration.grad is not None
    assert acceleration.grad.abs().sum() > 0


def test_scale_standardises_to_mean_zero_and_spread_one():
    raw = torch.rand(200, 4, generator=torch.Generator().manual_seed(0)) * 3 + 5
    scale = UncertaintyScale.measured(raw)
    standard = (raw - scale.mean) / scale.spread
    torch.testing.assert_close(standard.mean(0), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(scale.cost(raw, 1.0), (standard - 1.0).clamp_min(0.0))


def test_a_missing_vehicle_stays_missing(model):
    global PRESENT
    kept, PRESENT = PRESENT, replace(PRESENT, valid=torch.tensor([[True, True, True, False]]))
    try:
        assert not unroll(model, torch.zeros(12))[0].states.valid[:, :, 3].any()
    finally:
        PRESENT = kept
