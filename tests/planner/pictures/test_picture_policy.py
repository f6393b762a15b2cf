"""MPUR on pictures: the gradient reaches the policy through the predictor, and the trained policy drives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from traffic_scenes import history_of, platoon_store, scene

from drivecast.planner.costs.energy import Energy, EnergyConfig
from drivecast.planner.imagination.starts import Starts
from drivecast.planner.pictures.driver import PICTURE_POLICY_KIND, PictureDriver, load_picture_driver
from drivecast.planner.pictures.policy import PicturePolicy, PicturePolicyConfig
from drivecast.planner.pictures.rollouts import PictureRollouts
from drivecast.planner.policy.training import PolicyKind, PolicyTrainer, PolicyTrainingConfig
from drivecast.worldmodel.energy.uncertainty import UncertaintyConfig
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.loading import PICTURE_POLICY_FILE
from drivecast.worldmodel.raster.network import RasterConfig, RasterModel
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Goal
from drivecast.worldmodel.storage.checkpoint import save_model

ROAD = Road.straight(3)
MODEL = RasterConfig(hidden=8, latent_dims=4)
POLICY = PicturePolicyConfig(channels=4, hidden=16)
ON_PICTURES = PolicyKind(PicturePolicy, PICTURE_POLICY_KIND, PICTURE_POLICY_FILE)
UNCERTAINTY = UncertaintyConfig(masks=2, every_steps=2)


def settings(**changed) -> PolicyTrainingConfig:
    config = PolicyTrainingConfig(
        steps=4,
        batch=4,
        horizon_steps=4,
        others_listen=True,
        validate_every=2,
        validation_rollouts=4,
        checkpoint_every=2,
        uncertainty=UNCERTAINTY,
    )
    starts = replace(config.starts, max_agents=6, other_lane_share=0.0)
    return replace(config, **{"starts": starts, **changed})


def seeded(build, config, last: float):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = build(config)
        torch.nn.init.normal_((made.up[-1] if isinstance(made, RasterModel) else made.out).weight, std=last)
        return made


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return platoon_store(tmp_path_factory.mktemp("pictures") / "store")


@pytest.fixture(scope="module")
def rollouts(store) -> PictureRollouts:
    return PictureRollouts(seeded(RasterModel, MODEL, 0.02), [store], settings(), EnergyConfig())


def behind_a_leader(gap_m: float = 12.0, speed: float = 20.0) -> Starts:
    present = scene((100.0, -4.0, speed), (105.0 + gap_m, -4.0, 15.0))
    return Starts(history_of(present, 20), ROAD, Goal(torch.full((1,), 30.0), torch.full((1,), -1)))


def test_costs_send_their_gradient_through_pictures_into_the_policy(rollouts):
    policy = seeded(PicturePolicy, POLICY, 0.01)
    trajectory = rollouts.unroll(policy, behind_a_leader(), torch.Generator().manual_seed(0))
    assert trajectory.clip.others.requires_grad  # the others' pictures answer to the ego
    energy = Energy(EnergyConfig(), rollouts.more_terms(EnergyConfig().weights))
    terms = energy.terms(trajectory)
    assert {"proximity", "lane", "off_road", "speed", "comfort", "uncertainty"} <= set(terms)
    for name in ("proximity", "lane", "speed", "uncertainty"):
        policy.zero_grad()
        if name == "uncertainty" and float(terms[name].detach().sum()) == 0.0:
            continue
        terms[name].sum().backward(retain_graph=True)
        assert float(policy.out.weight.grad.abs().sum()) > 0.0, name
    assert all(parameter.grad is None for parameter in rollouts.model.parameters())


def test_others_that_do_not_listen_are_cut_off(store):
    deaf = PictureRollouts(seeded(RasterModel, MODEL, 0.02), [store], settings(others_listen=False), EnergyConfig())
    trajectory = deaf.unroll(seeded(PicturePolicy, POLICY, 0.01), behind_a_leader(), torch.Generator().manual_seed(0))
    assert not trajectory.clip.others.requires_grad
    assert trajectory.states.position_m.requires_grad


def test_descending_the_cost_of_nearness_brakes(rollouts):
    policy = seeded(PicturePolicy, POLICY, 0.001)
    energy = Energy(EnergyConfig(), rollouts.more_terms(EnergyConfig().weights))
    optimizer, noise = torch.optim.Adam(policy.parameters(), lr=1e-2), torch.Generator().manual_seed(0)
    for _ in range(15):
        optimizer.zero_grad()
        trajectory = rollouts.unroll(policy, behind_a_leader(8.0), noise)
        energy.terms(trajectory)["proximity"].sum().backward()
        optimizer.step()
    assert float(trajectory.controls.acceleration_mps2.detach().mean()) < -2.0


def test_a_driver_sees_what_the_policy_was_trained_on(rollouts):
    policy = seeded(PicturePolicy, POLICY, 0.3)
    start = behind_a_leader()
    first = rollouts.unroll(policy, start, torch.Generator().manual_seed(0)).controls[:, 0]
    driven = PictureDriver(policy, Energy(EnergyConfig())).act(start.history, start.road, start.goal)
    torch.testing.assert_close(driven.acceleration_mps2, first.acceleration_mps2.detach(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(driven.steering_rad, first.steering_rad.detach(), atol=1e-6, rtol=1e-4)
    assert abs(float(driven.acceleration_mps2)) > 1e-3


def test_an_untrained_policy_keeps_its_speed_and_heading():
    driver, start = PictureDriver(PicturePolicy(POLICY), Energy(EnergyConfig())), behind_a_leader()
    controls = driver.act(start.history[:, -1:], start.road, start.goal)  # of an episode that just begins
    assert float(controls.acceleration_mps2) == float(controls.steering_rad) == 0.0


def trained(rollouts: PictureRollouts, output: Path, **changed) -> PolicyTrainer:
    return PolicyTrainer(rollouts, POLICY, settings(**changed), output, kind=ON_PICTURES)


def test_training_resumes_exactly_and_leaves_a_driver(rollouts, tmp_path):
    whole, halves = trained(rollouts, tmp_path / "whole"), trained(rollouts, tmp_path / "halves")
    path = whole.train(lambda *_: None)

    def stop(step: int, values) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        halves.train(lambda *_: None, stop)
    again = trained(rollouts, tmp_path / "halves")
    assert again.resume() >= 2
    again.train(lambda *_: None)
    for name, values in whole.network.state_dict().items():
        assert torch.equal(values, again.network.state_dict()[name]), name
    driver = load_picture_driver(path.parent)
    assert driver.policy.config == POLICY


def test_a_lane_cannot_be_asked_of_it(store):
    config = settings(starts=replace(settings().starts, other_lane_share=0.3))
    with pytest.raises(InputError, match="can be told no lane; give 0"):
        PictureRollouts(RasterModel(MODEL), [store], config, EnergyConfig())


def test_weights_of_another_policy_are_refused_in_a_line(tmp_path):
    path = tmp_path / PICTURE_POLICY_FILE
    save_model(path, PicturePolicy(replace(POLICY, hidden=8)), PICTURE_POLICY_KIND, POLICY, {"energy": {}})
    with pytest.raises(InputError, match="weights do not fit this version's policy on pictures"):
        load_picture_driver(tmp_path)
