"""Claims about traffic that goes on from a moment: it is the simulator's, and the gradient through it is right."""

import pytest
import torch

from drivecast.envs.batched.moments import Branch, Moments
from drivecast.envs.batched.traffic import BatchedHighwayTraffic
from drivecast.envs.recording.moment_bank import MomentBank, MomentBankConfig
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.rules.driver_parameters import HIGHWAY_ENV, DriverParameters
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls

SMALL = MomentBankConfig(episodes=8, validation_episodes=4, duration_s=2.0, vehicles=(8, 12), lanes=(3, 4))
TINY = MomentBankConfig(episodes=2, validation_episodes=1, duration_s=1.0, vehicles=(5, 5), lanes=(2, 2))


@pytest.fixture(scope="module")
def bank() -> MomentBank:
    return MomentBank("highway-v0", SMALL, dtype=torch.float64)


def moments_of(traffic: BatchedHighwayTraffic) -> Moments:
    """The present of episodes that are being driven."""
    simulator = traffic.simulator
    road = Road.batch([traffic._road] * simulator.episodes)
    return Moments(simulator.scene, simulator.scene, HIGHWAY_ENV, simulator.lanes, road, 0, False, traffic.dt_s)


def controls(steps: int, batch: int) -> list[Controls]:
    generator = torch.Generator().manual_seed(5)
    forward, sideways = torch.randn(2, steps, batch, generator=generator)
    return [Controls(1.5 * a - 0.5, 0.01 * s) for a, s in zip(forward, sideways, strict=True)]


def driven(branch: Branch, acceleration: torch.Tensor, steering: torch.Tensor) -> list:
    return [branch.step(Controls(a, s)) for a, s in zip(acceleration, steering, strict=True)]


def test_a_branch_goes_on_as_the_closed_loop_does():
    traffic = BatchedHighwayTraffic("highway-v0", vehicles=15, density=1.5)
    traffic.reset(range(12))
    for control in controls(10, 12):
        traffic.step(control)
    moments = moments_of(traffic)
    branch = moments.branch(moments.history[:, -1, 0])
    lane_changes = 0
    for control in controls(40, 12):
        if traffic._ended.any():  # it freezes episodes that are over
            break
        before = traffic.simulator.scene.target_lane
        traffic.step(control)
        branch.step(control)
        for name in ("x_m", "y_m", "heading_rad", "speed_mps", "lane", "target_lane", "crashed"):
            ours, theirs = getattr(branch.scene, name), getattr(traffic.simulator.scene, name)
            assert torch.equal(ours[:, 1:], theirs[:, 1:]), name
            if name != "target_lane":  # an ego with continuous controls has none
                assert torch.equal(ours[:, 0], theirs[:, 0]), name
        lane_changes += int((traffic.simulator.scene.target_lane != before).sum())
    assert lane_changes > 5


def test_another_driver_would_be_noticed():
    traffic = BatchedHighwayTraffic("highway-v0", vehicles=15)
    traffic.reset(range(4))
    moments = moments_of(traffic)
    other = Moments(**{**vars(moments), "drivers": DriverParameters(time_gap_s=1.51)})
    branches = [each.branch(moments.history[:, -1, 0]) for each in (moments, other)]
    states = [branch.step(Controls(torch.zeros(4), torch.zeros(4))) for branch in branches]
    assert not torch.equal(states[0].speed_mps, states[1].speed_mps)


def test_whoever_becomes_the_ego_trades_places_and_takes_its_parameters_along(bank):
    moments, egos = bank._roads["train"][0]
    rows, agents = egos[:200].unbind(1)
    seen, given = moments[rows].seen_from(agents), moments[rows]
    everyone = torch.arange(len(rows))
    for name in ("x_m", "y_m", "speed_mps", "timer_s"):
        before, after = getattr(given.scene, name), getattr(seen.scene, name)
        assert torch.equal(after[:, 0], before[everyone, agents])
        assert torch.equal(after.sort(1).values, before.sort(1).values)
    assert torch.equal(seen.drivers.time_gap_s[:, 0], given.drivers.time_gap_s[everyone, agents])
    assert torch.equal(seen.drivers.time_gap_s[everyone, agents], given.drivers.time_gap_s[:, 0])
    assert not seen.scene.idm[:, 0].any()
    assert torch.equal(seen.scene.idm[:, 1:], seen.scene.vehicle[:, 1:]), "all the others drive by IDM"
    torch.testing.assert_close(seen.history.position_m[:, 1, 0, 0], given.scene.x_m[everyone, agents])


def test_the_past_of_a_moment_leads_to_it(bank):
    moments = bank.draw("train", 200, torch.Generator().manual_seed(0), one_road=True)[0]
    before, now = moments.history[:, 0], moments.history[:, 1]
    moved = (now.position_m - before.position_m).norm(dim=-1)
    expected = before.speed_mps.abs() * 0.1
    torch.testing.assert_close(moved[now.valid], expected[now.valid], atol=1e-6, rtol=0)


def test_the_gradient_is_that_of_finite_differences(bank):
    moments = bank.draw("train", 3, torch.Generator().manual_seed(1), one_road=True)[0]
    calm = moments.scene.but(timer_s=torch.zeros_like(moments.scene.timer_s))  # nobody thinks of changing lane
    moments = Moments(**{**vars(moments), "scene": calm})

    def outcome(acceleration, steering, speed):
        ego = moments.history[:, -1, 0]
        ego = type(ego)(**{**vars(ego), "speed_mps": ego.speed_mps + speed})
        states = driven(moments.branch(ego), acceleration, steering)
        last = states[-1]
        values = torch.cat([last.position_m, last.speed_mps[..., None], last.heading_rad[..., None]], -1)
        weights = torch.linspace(-1.0, 1.0, values[0].numel(), dtype=torch.float64).view(values[0].shape)
        return (values * weights * last.valid[..., None]).sum((1, 2))  # everybody's, weighted each in its own way

    acceleration = torch.full((7, 3), -0.7, dtype=torch.float64, requires_grad=True)
    steering = torch.full((7, 3), 0.004, dtype=torch.float64, requires_grad=True)
    speed = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(outcome, (acceleration, steering, speed), eps=1e-6, atol=1e-5)


def follower_gradient(bank: MomentBank, others_listen: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the others' and the ego's speeds after 2 s, in the ego's acceleration."""
    moments = bank.draw("train", 64, torch.Generator().manual_seed(2), one_road=True)[0]
    acceleration = torch.zeros(20, 64, dtype=torch.float64, requires_grad=True)
    branch = moments.branch(moments.history[:, -1, 0], others_listen)
    last = driven(branch, acceleration, torch.zeros_like(acceleration))[-1]
    own = torch.autograd.grad(last.speed_mps[:, 0].sum(), acceleration, retain_graph=True)[0]
    if not last.speed_mps[:, 1:].requires_grad:
        return torch.zeros_like(own), own
    others = torch.autograd.grad(last.speed_mps[:, 1:].sum(), acceleration, allow_unused=True)[0]
    return torch.zeros_like(own) if others is None else others, own


def test_others_answer_with_a_gradient_only_where_they_listen(bank):
    others, own = follower_gradient(bank, True)
    assert others.abs().max() > 0.02
    others_cut, own_cut = follower_gradient(bank, False)
    assert others_cut.abs().max() == 0.0
    torch.testing.assert_close(own_cut, own)


@pytest.mark.parametrize("pedal", [-8.0, 0.0, 6.0], ids=["to a stop", "coasting", "into whoever is ahead"])
def test_gradients_stay_finite_through_standstill_and_crashes(bank, pedal):
    moments = bank.draw("train", 200, torch.Generator().manual_seed(3), one_road=True)[0]
    acceleration = torch.full((45, 200), pedal, dtype=torch.float64, requires_grad=True)
    steering = torch.zeros_like(acceleration).requires_grad_()
    branch = moments.branch(moments.history[:, -1, 0])
    states = driven(branch, acceleration, steering)
    total = sum(state.position_m.sum() + state.speed_mps.sum() + state.heading_rad.sum() for state in states)
    for gradient in torch.autograd.grad(total, (acceleration, steering)):
        assert gradient.isfinite().all()
    if pedal > 0:
        assert branch.scene.crashed[:, 0].any()
    if pedal < 0:
        assert (states[-1].speed_mps[:, 0].abs() < 1e-6).any()


def test_the_same_seed_gives_the_same_traffic_and_another_one_other():
    def drawn(of: MomentBank) -> torch.Tensor:
        return of.draw("train", 50, torch.Generator().manual_seed(0), one_road=True)[0].history.position_m

    first, again, other = (drawn(MomentBank("highway-v0", TINY, seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_validation_is_on_every_road_and_no_ego_has_crashed(bank):
    drawn = bank.draw("val", 60, torch.Generator().manual_seed(0), one_road=False)
    assert len(drawn) == len(bank._roads["val"])
    assert sum(len(moments) for moments in drawn) == pytest.approx(60, abs=2)
    for moments in drawn:
        assert not moments.scene.crashed[:, 0].any()
        assert moments.scene.vehicle[:, 0].all()


def test_merges_have_moments_too_with_the_obstacle_at_the_ramps_end():
    bank = MomentBank("merge-v1", MomentBankConfig(episodes=3, validation_episodes=1, duration_s=1.0))
    moments = bank.draw("train", 8, torch.Generator().manual_seed(0), one_road=True)[0]
    branch = moments.branch(moments.history[:, -1, 0])
    state = branch.step(Controls(torch.zeros(8), torch.zeros(8)))
    assert state.valid[:, -1].all()
    assert (state.length_m[:, -1] == 2.0).all()
    assert torch.equal(state.position_m[:, -1], moments.history.position_m[:, -1, -1]), "it stands"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"episodes": 0}, "episodes: expected 1 or more, got 0"),
        ({"vehicles": (20, 10)}, "vehicles: expected"),
        ({"vehicles": (0, 10)}, "vehicles: expected"),
        ({"density": (0.0, 1.0)}, "density: expected"),
        ({"duration_s": 0.2}, "duration_s: expected"),
    ],
)
def test_traffic_that_cannot_be_is_refused(values, told):
    with pytest.raises(ValueError, match=told):
        MomentBankConfig(**values)


def test_an_unknown_environment_is_refused_with_one_line():
    with pytest.raises(InputError, match="environment: expected one of highway-v0"):
        MomentBank("roundabout-v1", SMALL)
