"""`drivecast train-oracle`: its gradient, its training, what it leaves, and that it drives."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from drivecast.envs.recording.moment_bank import MomentBank, MomentBankConfig
from drivecast.planner.costs.energy import Energy, EnergyConfig
from drivecast.planner.imagination.simulated_rollouts import SimulatedRollouts
from drivecast.planner.imagination.starts import InteractionConfig
from drivecast.planner.policy.driver import PolicyDriver, load_driver
from drivecast.planner.policy.network import Policy, PolicyConfig
from drivecast.planner.policy.training import PolicyTrainer, RolloutTrainingConfig
from drivecast.scripts.command.cli import main
from drivecast.scripts.tracking.run import ConsoleRun
from drivecast.scripts.verbs.train_oracle import TrainOracleConfig, run
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.model import MODEL_KIND, WorldModel, WorldModelConfig
from drivecast.worldmodel.scene.traffic import Goal
from drivecast.worldmodel.storage.checkpoint import load_model, save_model

TRAFFIC = MomentBankConfig(episodes=6, validation_episodes=3, duration_s=1.5, vehicles=(8, 10), lanes=(3, 3))
SHORT = RolloutTrainingConfig(
    steps=6, batch=6, horizon_steps=4, validate_every=3, validation_rollouts=8, checkpoint_every=3
)
SMALL_POLICY = PolicyConfig(hidden=16)


@pytest.fixture(scope="module")
def bank() -> MomentBank:
    return MomentBank("highway-v0", TRAFFIC)


def trainer(bank, output, config=SHORT) -> PolicyTrainer:
    return PolicyTrainer(SimulatedRollouts(bank, config), SMALL_POLICY, config, output)


def test_the_energys_gradient_in_the_policys_weights_is_that_of_finite_differences():
    bank = MomentBank("highway-v0", TRAFFIC, dtype=torch.float64)
    rollouts, energy = SimulatedRollouts(bank, replace(SHORT, batch=12, horizon_steps=12)), Energy(EnergyConfig())
    torch.manual_seed(0)
    policy = Policy(SMALL_POLICY).double()
    torch.nn.init.normal_(policy.net[-1].weight, std=0.3)
    (starts,) = rollouts.draw(12, torch.Generator().manual_seed(1))
    noise = torch.Generator()

    def value() -> torch.Tensor:
        return energy.total(energy.terms(rollouts.unroll(policy, starts, noise))).mean()

    weights = list(policy.parameters())
    gradient = torch.autograd.grad(value(), weights)
    generator = torch.Generator().manual_seed(2)
    for _ in range(3):
        way = [torch.randn(each.shape, generator=generator, dtype=torch.float64) for each in weights]
        slope = sum((one * other).sum() for one, other in zip(gradient, way, strict=True))
        sides = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                for each, direction in zip(weights, way, strict=True):
                    each.add_(step * direction)
                sides.append(value())
                for each, direction in zip(weights, way, strict=True):
                    each.sub_(step * direction)
        difference = (sides[0] - sides[1]) / 2e-6
        assert slope.abs() > 1e-3
        torch.testing.assert_close(slope, difference, rtol=1e-4, atol=1e-7)


def test_starts_are_interactive_and_their_egos_disturbed(bank):
    rollouts = SimulatedRollouts(bank, SHORT)
    (starts,) = rollouts.draw(60, torch.Generator().manual_seed(0))
    given, now = starts.moments.history[:, -1], starts.history[:, -1]
    shifted = (now.position_m - given.position_m).norm(dim=-1)
    assert (shifted[:, 0] > 0.05).float().mean() > 0.8
    assert shifted[:, 1:].max() == 0.0, "the others stay where they are"
    assert (now.speed_mps[:, 0] != given.speed_mps[:, 0]).float().mean() > 0.2
    assert (starts.goal.lane >= 0).any()
    assert (starts.goal.lane < 0).any()
    # the rollout begins at the disturbed ego, not at the simulator's own
    trajectory = rollouts.unroll(Policy(SMALL_POLICY), starts, torch.Generator())
    expected = now.position_m[:, 0] + 0.1 * now.velocity_mps[:, 0]
    torch.testing.assert_close(trajectory.states.position_m[:, 0, 0], expected, atol=1e-3, rtol=0)


def test_resume_is_bit_exact(bank, tmp_path):
    whole = trainer(bank, tmp_path / "whole")
    whole.train(lambda step, values: None)

    class StoppedError(Exception):
        pass

    def stop_at_five(step, _values):
        if step == 5:
            raise StoppedError

    with pytest.raises(StoppedError):
        trainer(bank, tmp_path / "halves").train(lambda step, values: None, stop_at_five)
    second = trainer(bank, tmp_path / "halves")
    assert second.resume() == 3
    second.train(lambda step, values: None)
    for name, weights in whole.network.state_dict().items():
        assert torch.equal(weights, second.network.state_dict()[name]), name


def test_other_traffic_does_not_resume(bank, tmp_path):
    trainer(bank, tmp_path).optimisation.save_state()
    other = MomentBank("highway-v0", replace(TRAFFIC, density=(1.0, 1.5)))
    with pytest.raises(InputError, match="a run with other settings"):
        trainer(other, tmp_path).resume()


def test_a_short_training_lowers_the_validation_energy(bank, tmp_path):
    config = replace(
        SHORT,
        steps=12,
        batch=16,
        horizon_steps=20,
        learning_rate=0.1,
        validate_every=12,
        starts=InteractionConfig(candidates=1, heading_rad=0.1),
    )
    trained = trainer(bank, tmp_path, config)
    before, _ = trained._validate()
    after: dict[str, float] = {}
    trained.train(lambda step, values: after.update(values))
    assert after["val/energy"] < 0.7 * before["energy"]
    assert all(parameter.isfinite().all() for parameter in trained.network.parameters())


def small_world_model(folder):
    config = WorldModelConfig(hidden=16, latent_dims=2)
    save_model(folder / "world-model.safetensors", WorldModel(config), MODEL_KIND, config)
    return folder


@pytest.mark.parametrize("choosing", [False, True], ids=["keeps its lane", "chooses lanes by a world model"])
def test_it_leaves_a_driver(bank, tmp_path, choosing):
    console, output = ConsoleRun(), tmp_path / "oracle"
    (tmp_path / "model").mkdir()
    world_model = str(small_world_model(tmp_path / "model")) if choosing else ""
    config = TrainOracleConfig(
        output, world_model=world_model, policy=SMALL_POLICY, training=replace(SHORT, steps=3), traffic=TRAFFIC
    )
    run(config, console)
    assert console.models == [(output / "policy.safetensors", "oracle-policy")]
    assert (output / "training-curves.png").stat().st_size > 0
    stored = load_model(output, "policy")
    assert stored.extra["simulator"]["environment"] == "highway-v0"
    assert stored.extra["lane_choice"]["enabled"] is choosing
    driver = load_driver(output)
    assert isinstance(driver, PolicyDriver) is choosing
    moments = bank.draw("val", 4, torch.Generator().manual_seed(0), one_road=True)[0]
    goal = Goal(torch.full((4,), 25.0), torch.full((4,), -1))
    driver.reset(moments.history[:, -1], moments.road, goal)
    assert driver.act(moments.history, moments.road, goal).acceleration_mps2.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--environment", "roundabout-v0"], "environment: expected one of highway-v0"),
        (["--traffic.vehicles", "30", "10"], "vehicles: expected [least, greatest]"),
        (["--training.use_uncertainty", "true"], "training.use_uncertainty: unknown key"),
        (["--training.starts.history_steps", "5"], "training.starts.history_steps: unknown key"),
        (["--world_model", "nowhere"], "nowhere"),
        (["--seed", "-1"], "seed: expected 0 or more, got -1"),
        (["--policy.dt_s", "0.07"], "dt_s: expected a whole number of steps in a second"),
    ],
)
def test_nonsense_is_refused_with_one_line(arguments, told, tmp_path, capsys):
    output = tmp_path / "oracle"
    assert main(["train-oracle", "--output", str(output), "--tracking.enabled", "false", *arguments]) == 2
    told_user = capsys.readouterr().err.strip()
    assert told in told_user
    assert "\n" not in told_user
