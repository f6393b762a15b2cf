"""Claims about the cost terms: where they vanish, where they rise, what their gradient does."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from traffic_scenes import history_of, scene

from drivecast.planner.costs import terms as costs
from drivecast.planner.costs.energy import Energy, EnergyConfig, EnergyWeights, Term
from drivecast.planner.costs.likelihood import Unlikely
from drivecast.planner.costs.terms import ProximityConfig
from drivecast.planner.costs.trajectory import Trajectory
from drivecast.worldmodel.energy.model_energy import ModelEnergy
from drivecast.worldmodel.forecaster.model import WorldModel, WorldModelConfig
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls, Goal, TrafficState

ROAD = Road.straight(3)
PROXIMITY = ProximityConfig()


def still(state: TrafficState, desired: float = 20.0, lane: int = -1, steps: int = 1) -> Trajectory:
    """A trajectory of `steps` equal states `(1, agent)`, without controls."""
    dtype = state.speed_mps.dtype
    states = state.map(lambda tensor: tensor[:, None].expand(-1, steps, *tensor.shape[1:]))
    zeros = torch.zeros(1, steps, dtype=dtype)
    goal = Goal(torch.tensor([desired], dtype=dtype), torch.tensor([lane]))
    road = ROAD.map(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)
    return Trajectory(states, Controls(zeros, zeros), zeros[:, 0], road, goal, 0.1)


def proximity(*vehicles: tuple[float, float, float]) -> float:
    return costs.proximity(still(scene(*vehicles)), PROXIMITY).item()


EGO = (0.0, -4.0, 20.0)


def test_an_empty_road_costs_no_proximity():
    assert proximity(EGO, (200, -4, 20), (0, -8, 20), (30, 0, 20)) == 0.0


def test_proximity_rises_as_the_gap_closes_and_as_the_closing_speed_grows():
    gaps = [proximity(EGO, (gap + 5.0, -4, 20)) for gap in (18, 12, 6, 1)]
    assert gaps == sorted(gaps)
    assert gaps[0] < gaps[-1]
    speeds = [proximity(EGO, (25, -4, leader)) for leader in (20, 15, 10, 0)]
    assert speeds == sorted(speeds)
    assert speeds[0] < speeds[-1]


def test_a_longer_leader_is_nearer():
    short, long = scene(EGO, (18, -4, 18)), scene(EGO, (18, -4, 18))
    long.length_m[:, 1] = 12.0
    assert costs.proximity(still(long), PROXIMITY) > costs.proximity(still(short), PROXIMITY)


def test_a_follower_costs_less_than_a_leader_as_near():
    assert 0 < proximity(EGO, (-10, -4, 20)) < proximity(EGO, (10, -4, 20))


def imposed(*vehicles: tuple[float, float, float]) -> float:
    return costs.imposed(still(scene(*vehicles))).item()


def test_who_comes_from_behind_faster_is_asked_to_brake():
    """closing² / (2 (gap - closing 1 s - 2 m)), over 2 m/s², squared."""
    assert imposed(EGO, (-25, -4, 24)) == pytest.approx((16 / (2 * (20 - 4 - 2)) / 2) ** 2, rel=1e-4)
    assert imposed(EGO, (-25, -4, 20)) == 0.0  # follows at the same speed, however near
    assert imposed(EGO, (25, -4, 10)) == 0.0  # a leader asks nothing of it
    assert imposed(EGO, (-25, 0, 24)) == 0.0  # passes on the next lane
    assert 0 < imposed(EGO, (-25, -2.2, 24)) < imposed(EGO, (-25, -4, 24))
    assert imposed(EGO, (-6, -4, 40)) == pytest.approx(16.0)  # no room: as much as anybody can brake


def test_going_faster_asks_less_braking():
    state = scene(EGO, (-25, -4, 24))
    state.speed_mps.requires_grad_()
    costs.imposed(still(state)).sum().backward()
    assert state.speed_mps.grad[0, 0] < 0


def test_proximity_fades_out_sideways():
    beside = [proximity(EGO, (8, -4 + left, 15)) for left in (0.0, 1.0, 2.0, 2.9, 3.1)]
    assert beside == sorted(beside, reverse=True)
    assert beside[-2] > 0
    assert beside[-1] == 0.0


def test_padding_is_no_obstacle():
    state = scene(EGO, (8, -4, 15))
    state = replace(state, valid=torch.tensor([[True, False]]))
    assert costs.proximity(still(state), PROXIMITY).item() == 0.0


def test_proximity_reaches_the_ego_s_own_motion():
    """The original detached the states here: its proximity could not push the ego's position."""
    state = scene(EGO, (12, -4, 15))
    position = state.position_m.clone().requires_grad_()
    speed = state.speed_mps.clone().requires_grad_()
    costs.proximity(still(replace(state, position_m=position, speed_mps=speed)), PROXIMITY).sum().backward()
    assert position.grad is not None
    assert speed.grad is not None
    assert position.grad[0, 0, 0] > 0, "further ahead costs more"
    assert speed.grad[0, 0] > 0, "faster costs more"
    assert position.grad[0, 1, 0] < 0, "a leader further ahead costs less"


def test_lane_cost_is_zero_on_the_centre_and_one_at_the_marking():
    assert costs.lane(still(scene((0, -4, 20)))).item() == 0.0
    assert costs.lane(still(scene((0, -2.001, 20)))).item() == pytest.approx(1.0, abs=0.01)
    assert costs.lane(still(scene((0, -4, 20)), lane=1)).item() == 0.0
    assert costs.lane(still(scene((0, -4, 20)), lane=0)).item() == pytest.approx(3.0)


def test_off_road_starts_where_a_wheel_leaves_it():
    assert costs.off_road(still(scene((0, 0.9, 20)))).item() == 0.0
    assert costs.off_road(still(scene((0, 1.5, 20)))).item() == pytest.approx(0.5 + 0.25)
    assert costs.off_road(still(scene((0, -5.5, 20)))).item() == 0.0, "the marking between lanes is no edge"


def test_speed_cost_is_least_at_the_desired_speed():
    values = [costs.speed(still(scene((0, 0, speed)), desired=25.0)).item() for speed in (5, 15, 25, 35)]
    assert min(values) == values[2] == pytest.approx(0.0, abs=1e-6)
    assert values[1] == pytest.approx(values[3])


def test_comfort_counts_acceleration_jerk_and_sideways():
    trajectory = still(scene((0, 0, 20)), steps=2)
    braking = replace(trajectory, controls=Controls(torch.tensor([[-3.0, -3.0]]), torch.zeros(1, 2)))
    cost = costs.comfort(braking)[0]
    assert cost[0].item() == pytest.approx(1.0 + 9.0)
    assert cost[1].item() == pytest.approx(1.0)
    turning = replace(trajectory, controls=Controls(torch.zeros(1, 2), torch.tensor([[0.0, 0.05]])))
    assert costs.comfort(turning)[0, 1] > 0


def random_trajectory(seed: int, steps: int = 3) -> Trajectory:
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return (low + (high - low) * torch.rand(shape, generator=generator)).double()

    x = torch.stack([uniform(-3, 3, 1, steps), uniform(8, 14, 1, steps), uniform(-15, -9, 1, steps)], -1)
    y = torch.stack([uniform(-4.8, -4.2, 1, steps), uniform(-4.6, -3.6, 1, steps), uniform(-3, -2.2, 1, steps)], -1)
    ones = torch.ones_like(x)
    states = TrafficState(
        torch.stack([x, y], -1),
        uniform(-0.05, 0.05, 1, steps, 3),
        uniform(10, 20, 1, steps, 3),
        5 * ones,
        2 * ones,
        ones > 0,
    )
    controls = Controls(uniform(-2, 2, 1, steps), uniform(-0.05, 0.05, 1, steps))
    road = ROAD.map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)
    goal = Goal(torch.tensor([25.0]).double(), torch.tensor([-1]))
    return Trajectory(states, controls, uniform(-1, 1, 1), road, goal, 0.1)


TERMS = {
    "proximity": lambda trajectory: costs.proximity(trajectory, PROXIMITY),
    "lane": costs.lane,
    "off_road": costs.off_road,
    "speed": costs.speed,
    "comfort": costs.comfort,
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", TERMS)
def test_gradients_match_finite_differences(name, seed):
    given = random_trajectory(seed)
    inputs = [given.states.position_m, given.states.heading_rad, given.states.speed_mps]
    inputs += [given.controls.acceleration_mps2, given.controls.steering_rad]

    def cost(position, heading, speed, acceleration, steering):
        states = replace(given.states, position_m=position, heading_rad=heading, speed_mps=speed)
        return TERMS[name](replace(given, states=states, controls=Controls(acceleration, steering)))

    assert torch.autograd.gradcheck(cost, [value.clone().requires_grad_() for value in inputs])


def test_weights_are_applied_once_and_a_zero_weight_switches_a_term_off():
    trajectory = still(scene(EGO, (10, -4, 15)), desired=30.0)
    single = Energy(EnergyConfig(EnergyWeights(speed=1.0, lane=0.0))).terms(trajectory)
    double = Energy(EnergyConfig(EnergyWeights(speed=2.0, lane=0.0))).terms(trajectory)
    assert "lane" not in single
    torch.testing.assert_close(double["speed"], 2 * single["speed"])


def test_the_total_is_the_discounted_mean_of_the_terms():
    energy = Energy(EnergyConfig(discount=0.5))
    total = energy.total({"a": torch.tensor([[1.0, 2.0]]), "b": torch.tensor([[0.0, 4.0]])})
    assert total.item() == pytest.approx((1.0 + 0.5 * 6.0) / 1.5)


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match="speed"):
        EnergyWeights(speed=-1.0)


def test_in_contact_going_faster_never_looks_better():
    for gap in (2.0, -1.0, -3.0):
        costs_by_speed = [
            costs.proximity(still(scene((0.0, -4.0, speed), (gap + 5.0, -4, 15))), PROXIMITY).item()
            for speed in (15.0, 20.0, 25.0)
        ]
        assert costs_by_speed == sorted(costs_by_speed)
    assert proximity(EGO, (2.0, -4, 15)) > proximity(EGO, (4.0, -4, 15)) > proximity(EGO, (6.0, -4, 15))


def test_anything_that_scores_a_trajectory_joins_the_sum():
    trajectory = still(scene(EGO, (10, -4, 15)), steps=3)
    mine = Term("mine", lambda given: given.states.speed_mps[:, :, 0] / 10, 0.5)
    silent = Term("silent", lambda given: given.uncertainty, 1.0)
    energy = Energy(EnergyConfig(), [mine, silent])
    terms = energy.terms(trajectory)
    torch.testing.assert_close(terms["mine"], torch.full((1, 3), 1.0))
    assert "silent" not in terms
    without = Energy(EnergyConfig())
    added = energy.total(terms) - without.total(without.terms(trajectory))
    torch.testing.assert_close(added, torch.ones(1))


def test_a_score_of_another_shape_or_a_negative_weight_is_refused():
    trajectory = still(scene(EGO), steps=3)
    reduced = Term("reduced", lambda given: given.states.speed_mps[:, :, 0].mean(1), 1.0)
    with pytest.raises(ValueError, match=r"reduced: expected a cost \(batch, time\) of \(1, 3\), got \(1,\)"):
        Energy(EnergyConfig(), [reduced]).terms(trajectory)
    with pytest.raises(ValueError, match="mine"):
        Term("mine", lambda given: None, -1.0)


def test_the_model_s_energy_of_the_ego_scores_what_it_drives_and_passes_its_gradient():
    torch.manual_seed(0)
    model = WorldModel(WorldModelConfig(hidden=16, latent_process="autoregressive", decide_steps=2)).eval()
    unlikely = Unlikely(ModelEnergy(model.requires_grad_(False)))
    past = history_of(scene(EGO, (30, -4, 20)), 12)
    ahead = still(scene(EGO, (30, -4, 20)), steps=15)  # everybody stops dead
    assert unlikely(ahead) is None, "nobody can say without a past"
    time = 0.1 * torch.arange(1, 16)
    along = past.position_m[:, -1:] + torch.stack([20.0 * time, 0 * time], -1)[None, :, None]
    onwards = replace(ahead.states, position_m=along)
    calm, harsh = replace(ahead, states=onwards, past=past), replace(ahead, past=past)
    costs_of_both = [unlikely(each) for each in (calm, harsh)]
    assert costs_of_both[0].shape == (1, 15)
    assert (costs_of_both[1].mean() > 10 * costs_of_both[0].mean()).all(), "an untrained model goes straight on"
    position = onwards.position_m.clone().requires_grad_()
    unlikely(replace(calm, states=replace(onwards, position_m=position))).sum().backward()
    assert position.grad[:, :, 0].abs().sum() > 0
