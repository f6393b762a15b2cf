"""Claims about training a policy through the model, on problems whose best answer is known."""

import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from traffic_scenes import history_of, platoon_store, scene

from drivecast.planner.costs.energy import EnergyConfig, EnergyWeights
from drivecast.planner.imagination.imagined_rollouts import ImaginedRollouts
from drivecast.planner.imagination.starts import StartConfig, StartSampler
from drivecast.planner.policy.driver import load_driver
from drivecast.planner.policy.lane_choice import LaneChoiceConfig
from drivecast.planner.policy.network import Policy, PolicyConfig
from drivecast.planner.policy.training import POLICY_KIND, PolicyTrainer, PolicyTrainingConfig
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.model import MODEL_KIND, WorldModel, WorldModelConfig
from drivecast.worldmodel.scene.lane_neighbours import nearest_indices, pick_agents
from drivecast.worldmodel.scene.neighbours import find_neighbours
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Goal, TrafficState
from drivecast.worldmodel.storage.checkpoint import load_model, save_model

SHORT = PolicyTrainingConfig(
    steps=6,
    batch=6,
    horizon_steps=10,
    validate_every=3,
    validation_rollouts=8,
    checkpoint_every=3,
    starts=StartConfig(history_steps=4, max_agents=6),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return platoon_store(tmp_path_factory.mktemp("platoons") / "store")


def world_model() -> WorldModel:
    """Forecasts constant velocity: what is learned here is the policy's doing."""
    torch.manual_seed(0)
    return WorldModel(WorldModelConfig(hidden=16, latent_dims=4))


def trainer(store, output: Path, config=SHORT, model=None) -> PolicyTrainer:
    rollouts = ImaginedRollouts(model or world_model(), [store], config)
    return PolicyTrainer(rollouts, PolicyConfig(hidden=32), config, output)


def test_resume_is_bit_exact(store, tmp_path):
    whole = trainer(store, tmp_path / "whole")
    whole.train(lambda step, values: None)
    trainer(store, tmp_path / "halves", replace(SHORT, steps=6)).optimisation.save_state()

    class StoppedError(Exception):
        pass

    def stop_at_five(step, _values):
        if step == 5:
            raise StoppedError

    first = trainer(store, tmp_path / "halves")
    first.resume()
    with pytest.raises(StoppedError):
        first.train(lambda step, values: None, stop_at_five)
    second = trainer(store, tmp_path / "halves")
    assert second.resume() == 3
    second.train(lambda step, values: None)
    for name, weights in whole.network.state_dict().items():
        assert torch.equal(weights, second.network.state_dict()[name]), name


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_training_that_is_asked_to_end_keeps_every_step_and_goes_on_bit_exactly(store, tmp_path, monkeypatch, number):
    config = replace(SHORT, checkpoint_every=100)
    whole = trainer(store, tmp_path / "whole", config)
    best = whole.train(lambda step, values: None)

    def stopped(*_):
        raise KeyboardInterrupt

    before = signal.signal(number, stopped)
    first = trainer(store, tmp_path / "halves", config)
    try:
        with pytest.raises(KeyboardInterrupt):  # in the midst of the third step, which is also validated
            first.train(lambda step, values: None, lambda step, _: step == 3 and os.kill(os.getpid(), number))
        assert signal.getsignal(number) is stopped
    finally:
        signal.signal(number, before)
    second = trainer(store, tmp_path / "halves", config)
    assert second.resume() == 3
    again = second.train(lambda step, values: None)
    for name, weights in whole.network.state_dict().items():
        assert torch.equal(weights, second.network.state_dict()[name]), name
    kept, other = load_model(best, POLICY_KIND), load_model(again, POLICY_KIND)
    assert kept.extra == other.extra
    assert all(torch.equal(weights, other.state[name]) for name, weights in kept.state.items())


def test_asked_a_second_time_a_training_ends_at_once(store, tmp_path):
    impatient = trainer(store, tmp_path, replace(SHORT, checkpoint_every=100))

    def twice(step, _):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        impatient.train(lambda step, values: None, twice)
    assert impatient.optimisation.saved_at is None


def test_the_world_model_is_not_trained(store, tmp_path):
    model = world_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer(store, tmp_path, model=model).train(lambda step, values: None)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())


def test_with_only_a_speed_cost_the_policy_drives_at_the_desired_speed(store, tmp_path):
    weights = EnergyWeights(proximity=0.0, lane=0.1, off_road=0.0, speed=1.0, comfort=0.0, uncertainty=0.0)
    config = replace(
        SHORT,
        steps=60,
        batch=16,
        horizon_steps=12,
        learning_rate=1e-2,
        validate_every=60,
        starts=replace(SHORT.starts, desired_speed_mps=(5.0, 30.0)),
        use_uncertainty=False,
        energy=EnergyConfig(weights),
        lane_choice=LaneChoiceConfig(enabled=False),
    )
    path = trainer(store, tmp_path, config).train(lambda step, values: None)
    driver = load_driver(path)
    goal = Goal(torch.tensor([28.0, 10.0]), torch.tensor([-1, -1]))
    history = history_of(scene((0, -4, 20), (500, -4, 20), batch=2), 3)
    controls = driver.act(history, Road.straight(3, batch=2), goal)
    assert controls.acceleration_mps2[0] > 0.5, "too slow: accelerate"
    assert controls.acceleration_mps2[1] < -0.5, "too fast: brake"


def test_with_a_proximity_cost_the_policy_brakes_behind_a_standing_car(store, tmp_path):
    weights = EnergyWeights(proximity=4.0, lane=0.1, off_road=0.0, speed=0.5, comfort=0.0, uncertainty=0.0)
    config = replace(
        SHORT,
        steps=80,
        batch=24,
        horizon_steps=15,
        learning_rate=1e-2,
        validate_every=80,
        use_uncertainty=False,
        energy=EnergyConfig(weights),
        lane_choice=LaneChoiceConfig(enabled=False),
    )
    trained = trainer(store, tmp_path, config)
    driver = load_driver(trained.train(lambda step, values: None))
    road, goal = Road.straight(3), Goal(torch.tensor([25.0]), torch.tensor([-1]))
    near = driver.act(history_of(scene((0, -4, 18), (20, -4, 10)), 3), road, goal)
    free = driver.act(history_of(scene((0, -4, 18), (300, -4, 18)), 3), road, goal)
    assert near.acceleration_mps2 < -2.0
    assert free.acceleration_mps2 > -0.5


@pytest.mark.parametrize(
    "variant",
    [{"use_uncertainty": False}, {"sample_latent": False}, {"others_listen": False}],
    ids=["no uncertainty", "likeliest latent", "others do not listen"],
)
def test_variants_train(store, tmp_path, variant):
    values: dict[str, float] = {}
    trainer(store, tmp_path, replace(SHORT, steps=2, **variant)).train(lambda step, new: values.update(new))
    assert math.isfinite(values["val/energy"])
    assert ("val/uncertainty" in values) is variant.get("use_uncertainty", True)


def test_a_deterministic_world_model_trains_a_policy(store, tmp_path):
    model = WorldModel(WorldModelConfig(hidden=16, latent_dims=0))
    trainer(store, tmp_path, replace(SHORT, steps=2), model).train(lambda step, values: None)


def test_an_energy_that_is_not_finite_stops_and_keeps_the_checkpoint(store, tmp_path):
    broken = trainer(store, tmp_path)
    broken.optimisation.save_state()
    with torch.no_grad():
        next(iter(broken.network.parameters())).fill_(math.nan)
    with pytest.raises(FloatingPointError, match="step 0"):
        broken.train(lambda step, values: None)
    assert broken.optimisation.state_path.is_file()


def forced(policy: Policy, forward: float, sideways: float) -> None:
    """The same answer to everything: `forward` and `sideways` before they are bounded."""
    with torch.no_grad():
        policy.net[-1].weight.zero_()
        policy.net[-1].bias.copy_(torch.tensor([forward, sideways]))


@pytest.mark.parametrize(
    ("forward", "sideways", "share"),
    [
        (0.0, 0.0, 0.0),
        (-50.0, 0.0, 1.0),  # full braking
        (50.0, 0.0, 1.0),
        (0.0, 50.0, 1.0),
        (0.0, -3.2, 1.0),  # bounded to 0.954 of the limit
        (0.0, 2.9, 0.0),  # 0.945
        (-2.9, -2.9, 0.0),
        (3.2, 0.0, 1.0),
    ],
)
def test_controls_beyond_95_percent_of_their_limit_are_saturated(store, tmp_path, forward, sideways, share):
    trained = trainer(store, tmp_path, replace(SHORT, use_uncertainty=False))
    forced(trained.network, forward, sideways)
    validation, _ = trained._validate()
    assert validation["saturated_share"] == pytest.approx(share)


def test_a_policy_that_collapsed_into_full_braking_is_told_once_after_a_quarter_of_the_training(store, tmp_path):
    lines: list[str] = []
    shares: dict[int, float] = {}
    config = replace(SHORT, steps=8, validate_every=1, use_uncertainty=False)
    collapsed = trainer(store, tmp_path, config)
    collapsed.warn = lines.append
    forced(collapsed.network, -50.0, 0.0)
    collapsed.train(lambda step, values: shares.update({step: values.get("val/saturated_share", -1.0)}))
    assert shares == {step: 1.0 for step in range(1, 9)}
    assert len(lines) == 1
    assert "at step 2, 100% of the rollouts'" in lines[0]
    assert "--training.learning-rate" in lines[0]
    assert "\n" not in lines[0]


def test_a_policy_that_drives_is_not_said_to_have_collapsed(store, tmp_path):
    lines: list[str] = []
    driving = trainer(store, tmp_path, replace(SHORT, validate_every=1))
    driving.warn = lines.append
    driving.train(lambda step, values: None)
    assert lines == []


def test_starts_are_interactive_and_leave_room_to_brake(store):
    config = StartConfig(
        history_steps=6, max_agents=8, pulled_share=1.0, interacting_share=1.0, desired_speed_mps=(30.0, 32.0)
    )
    drawn = StartSampler([store], "train", config, 0.1).draw(64, torch.Generator().manual_seed(0))
    starts = drawn[0]
    now = starts.history[:, -1]
    found = find_neighbours(now, starts.road.project(now.position_m), watchers=1)
    present, gap = found.present[:, 0, 0], found.gap_m[:, 0, 0]
    assert (present & (gap < 60)).float().mean() > 0.9
    closing = found.closing_mps[:, 0, 0].clamp_min(0.0)
    fits = closing**2 / (2 * 5.0) <= (gap - 1.9).clamp_min(0.0) + 0.5
    unpulled = closing < 4.0  # as recorded
    assert (fits | unpulled | ~present).all()
    assert now.speed_mps[:, 0].max() > 25.0, "egos are pulled towards the desired speed"
    moved = (starts.history.position_m[:, 1:, 0] - starts.history.position_m[:, :-1, 0]).norm(dim=-1) / 0.1
    torch.testing.assert_close(moved, starts.history.speed_mps[:, 1:, 0], atol=0.6, rtol=0.05)


def test_an_untrained_policy_keeps_its_speed_and_heading():
    torch.manual_seed(0)
    policy = Policy(PolicyConfig())
    state = scene((0, -4, 20), (20, -4, 10))
    controls = policy(state, state, Road.straight(3), Goal(torch.tensor([25.0]), torch.tensor([-1])))
    assert controls.acceleration_mps2.item() == 0.0
    assert controls.steering_rad.item() == 0.0


@pytest.mark.parametrize("sees_markings", [False, True])
def test_on_its_way_to_a_lane_the_steering_does_not_jump_at_the_marking(sees_markings):
    torch.manual_seed(0)
    policy = Policy(PolicyConfig(sees_markings=sees_markings))
    torch.nn.init.normal_(policy.net[-1].weight, std=0.3)
    goal = Goal(torch.tensor([25.0]), torch.tensor([1]))  # at y = -4; beside both lanes there is another one
    steering = []
    for y in (-6.001, -5.999):
        state = scene((0, y, 20), (40, -4, 20), (-60, -4, 20))
        steering.append(float(policy(state, state, Road.straight(4), goal).steering_rad.detach()))
    jump = abs(steering[1] - steering[0])
    assert jump > 1e-4 if sees_markings else jump < 1e-4


def test_controls_stay_within_the_limits():
    torch.manual_seed(0)
    policy = Policy(PolicyConfig())
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter, std=20.0)
    for speed in (0.0, 5.0, 30.0):
        state = scene((0, -4, speed), (20, -4, 10))
        controls = policy(state, state, Road.straight(3), Goal(torch.tensor([25.0]), torch.tensor([-1])))
        assert -6.0 <= controls.acceleration_mps2.item() <= 3.0
        assert abs(controls.steering_rad.item()) < 0.6


def test_nearest_agents_keeps_the_ego_first_and_drops_the_far():
    state = scene((0, 0, 1), (50, 0, 2), (10, 0, 3), (-200, 0, 4))
    history = history_of(state, 2)
    kept = pick_agents(history, nearest_indices(history[:, -1], 2))
    assert kept.speed_mps[0, -1].tolist() == [1.0, 3.0, 2.0]


def driver_with_lanes(tmp_path: Path, world: bool = True):
    """A policy that steers to the goal's lane by hand-set weights would be opaque: an untrained one goes straight."""
    torch.manual_seed(0)
    extra = {"energy": {}, "lane_choice": {"every_steps": 1, "horizon_steps": 20}}
    save_model(tmp_path / "policy.safetensors", Policy(PolicyConfig()), "policy", PolicyConfig(), extra)
    if world:
        save_model(
            tmp_path / "world-model.safetensors", world_model(), MODEL_KIND, WorldModelConfig(hidden=16, latent_dims=4)
        )
    return load_driver(tmp_path)


def test_a_policy_without_its_world_model_says_what_is_missing(tmp_path):
    with pytest.raises(InputError, match=r"world-model\.safetensors"):
        driver_with_lanes(tmp_path, world=False)


def test_lane_choice_keeps_the_lane_where_nothing_is_gained_and_never_leaves_the_road(tmp_path):
    driver = driver_with_lanes(tmp_path)
    road, goal = Road.straight(3), Goal(torch.tensor([25.0]), torch.tensor([-1]))
    for lane, y in ((0, 0.0), (1, -4.0), (2, -8.0)):
        history = history_of(scene((0, y, 20), (200, y, 20)), 3)
        driver.reset(history[:, -1], road, goal)
        assert driver._goal(history, road, goal).lane.tolist() == [lane]


def test_a_goal_that_names_a_lane_is_obeyed(tmp_path):
    driver = driver_with_lanes(tmp_path)
    road, goal = Road.straight(3), Goal(torch.tensor([25.0]), torch.tensor([2]))
    history = history_of(scene((0, 0, 20), (200, 0, 20)), 3)
    driver.reset(history[:, -1], road, goal)
    assert driver._goal(history, road, goal).lane.tolist() == [2]


def test_showing_what_is_imagined_does_not_change_the_drive(tmp_path):
    driver = driver_with_lanes(tmp_path)
    road, goal = Road.straight(3), Goal(torch.tensor([25.0]), torch.tensor([-1]))
    history = history_of(scene((0, -4, 20), (20, -4, 18), (5, 0, 22)), 3)
    driver.reset(history[:, -1], road, goal)
    before = driver._choose_lane(history, road, goal), driver._noise().get_state()
    driver.imagine(history, road, goal, samples=4, steps=15)
    after = driver._choose_lane(history, road, goal), driver._noise().get_state()
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_a_drive_does_not_depend_on_the_other_episodes_of_the_batch(tmp_path):
    driver = driver_with_lanes(tmp_path)
    road, goal = Road.straight(3, batch=3), Goal(torch.full((3,), 25.0), torch.full((3,), -1))
    torch.nn.init.normal_(driver.world_model.decoder_out.weight, std=0.3)
    scenes = [scene((0, y, 20), (20, y, 12), (15, -4, 22)) for y in (0.0, -4.0, -8.0)]
    history = history_of(TrafficState.cat(scenes), 3)

    def imagined(rows):
        return driver.imagine(history[rows], road[rows], goal[rows], samples=3, steps=12).futures_m

    torch.testing.assert_close(imagined([0, 1, 2])[1], imagined([1])[0])
    assert (imagined([1])[0, 0] - imagined([1])[0, 1]).abs().max() > 1e-3, "samples differ"


def test_what_is_imagined_has_the_shapes_of_a_replay(tmp_path):
    driver = driver_with_lanes(tmp_path)
    road, goal = Road.straight(3), Goal(torch.tensor([25.0]), torch.tensor([-1]))
    history = history_of(scene((0, -4, 20), (20, -4, 18), (5, 0, 22)), 3)
    driver.reset(history[:, -1], road, goal)
    shown = driver.imagine(history, road, goal, samples=4, steps=15)
    assert shown.plan_m.shape == (1, 15, 2)
    assert shown.futures_m.shape == (1, 4, 15, 3, 2)
    assert {"proximity", "speed", "lane"} <= shown.cost.keys()
    torch.testing.assert_close(shown.plan_m[0, -1], torch.tensor([30.0, -4.0]))
