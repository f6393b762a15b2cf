"""Proposals can be driven; the planner that judges them keeps clear, gets on, and lowers costs by gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from traffic_scenes import driven_among_the_steady, history_of, scene

from drivecast.planner.costs.readout import CostReadout, CostReadoutConfig, load_readout, save_readout
from drivecast.planner.manoeuvres.manoeuvre import LawConfig
from drivecast.planner.planning.plan_cost import Situation
from drivecast.planner.planning.proposal_planner import ProposalPlanner, ProposalPlannerConfig
from drivecast.planner.planning.proposals import Plans, ProposalConfig, driven_ego, proposed
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.loading import load_world_model
from drivecast.worldmodel.joint_embedding.network import JointEmbedding, JointEmbeddingConfig
from drivecast.worldmodel.scene.contact import ego_separation_m
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Goal, TrafficState

ROAD = Road.straight(3, start_m=-300.0, length_m=2000.0)  # lanes at y = 0, -4, -8
FREE = ((0.0, -4.0, 20.0), (900.0, -4.0, 20.0))  # the other is out of sight


def goal(desired_mps: float = 25.0, batch: int = 1) -> Goal:
    return Goal(torch.full((batch,), desired_mps), torch.full((batch,), -1))


def proposals(present: TrafficState, config: ProposalConfig | None = None) -> Plans:
    road = ROAD[torch.zeros(len(present.valid), dtype=torch.long)]
    bound = road.project(present.position_m[:, :1]).lane[:, 0]
    before = history_of(present, 2)[:, 0]
    wanted = goal(batch=len(bound))
    return proposed(present, before, road, wanted, bound, config or ProposalConfig(), LawConfig(), 0.1)


def situation(present: TrafficState) -> Situation:
    return Situation(history_of(present, 20), ROAD[torch.zeros(len(present.valid), dtype=torch.long)], goal())


@pytest.fixture(scope="module")
def model():
    return load_world_model("pretrained:highway")


@pytest.fixture(scope="module")
def embedded():
    """A planner by a joint embedding and a readout with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        joint = JointEmbedding(JointEmbeddingConfig(dims=16, hidden=32)).eval().requires_grad_(False)
        readout = CostReadout(CostReadoutConfig(16)).eval().requires_grad_(False)
    return ProposalPlanner(joint, readout)


# ---- proposals ----


def test_all_lanes_are_proposed_now_and_later_and_full_braking_once():
    plans = proposals(scene(*FREE))
    lanes, counts = plans.lane.unique(return_counts=True)
    assert lanes.tolist() == [0, 1, 2]
    speeds = len(ProposalConfig().faster_mps) + 1
    assert counts.tolist() == [2 * speeds, speeds + 1, 2 * speeds]
    assert (plans.acceleration_mps2[:, :5] < -6.0).all(1).sum() >= 1


def test_no_lane_is_proposed_beyond_the_edge_nor_into_somebody():
    assert proposals(scene((0.0, 0.0, 20.0), FREE[1])).lane.unique().tolist() == [0, 1]
    beside = scene((0.0, -4.0, 20.0), (1.0, 0.0, 20.0))
    assert proposals(beside).lane.unique().tolist() == [1, 2]


def test_a_plan_is_what_the_bicycle_does_under_its_controls():
    present = scene(*FREE, batch=2)
    plans = proposals(present)
    again = driven_ego(present[plans.episode, 0], plans.controls, 0.1)
    torch.testing.assert_close(again.position_m, plans.states.position_m)
    torch.testing.assert_close(again.speed_mps, plans.states.speed_mps)


def test_plans_end_on_the_lane_that_they_lead_to():
    plans = proposals(scene(*FREE))
    fast = plans.states.speed_mps[:, -1] > 10.0
    torch.testing.assert_close(plans.states.position_m[fast, -1, 1], -4.0 * plans.lane[fast], atol=0.6, rtol=0.0)


def test_episodes_do_not_depend_on_each_other():
    one, two = scene(*FREE), scene((0.0, 0.0, 12.0), FREE[1])
    both = proposals(TrafficState.cat([one, two]))
    for number, alone in enumerate((one, two)):
        torch.testing.assert_close(both[both.episode == number].states.position_m, proposals(alone).states.position_m)


@pytest.mark.parametrize("wrong", [{"horizon_s": 0.0}, {"faster_mps": ()}, {"later_s": ()}])
def test_impossible_proposals_are_refused(wrong):
    with pytest.raises(InputError, match="proposals"):
        ProposalConfig(**wrong)


# ---- the planner ----


def drive(planner: ProposalPlanner, *vehicles, seconds: float = 8.0) -> TrafficState:
    with torch.no_grad():
        return driven_among_the_steady(planner, scene(*vehicles), ROAD, goal(), seconds)


def test_it_stops_behind_a_standing_queue(model):
    walls = [(90.0, y, 0.0) for y in (0.0, -4.0, -8.0)]
    states = drive(ProposalPlanner(model), (0.0, -4.0, 20.0), *walls, seconds=9.0)
    assert ego_separation_m(states).amin() > 0.0
    assert states.speed_mps[0, -1, 0] < 2.0


def test_it_overtakes_on_an_empty_lane(model):
    states = drive(ProposalPlanner(model), (0.0, -4.0, 20.0), (35.0, -4.0, 12.0), seconds=9.0)
    assert ego_separation_m(states).amin() > 0.0
    assert states.position_m[0, -1, 0, 0] > states.position_m[0, -1, 1, 0]


def test_gradients_never_make_a_plan_worse(model):
    planner, present = ProposalPlanner(model), scene((0.0, -4.0, 20.0), (30.0, -4.0, 15.0))
    planner.reset(present, ROAD, goal())
    bound, where = torch.tensor([1]), situation(present)
    plans = proposals(present)
    begun = planner.cost.begun(where)
    with torch.no_grad():
        cost = planner.judged(where, begun, plans, bound)
        refined, lowered = planner.refined(where, begun, plans, cost, bound)
        again = planner.judged(where, begun, refined, bound)
    assert (lowered <= cost).all()
    assert (lowered < cost - 1e-3).any()
    torch.testing.assert_close(again, lowered, atol=1e-4, rtol=1e-4)


def test_costs_by_embeddings_have_the_gradient_of_finite_differences(embedded):
    present = scene((0.0, -4.0, 20.0), (30.0, -4.0, 15.0))
    double = ProposalPlanner(embedded.cost.model.double(), embedded.cost.readout.double())
    where = situation(scene((0.0, -4.0, 20.0), (30.0, -4.0, 15.0), dtype=torch.float64))
    where = replace(where, road=ROAD.map(lambda v: v.double() if v.is_floating_point() else v)[torch.tensor([0])])
    where = replace(where, goal=Goal(torch.tensor([25.0], dtype=torch.float64), torch.tensor([-1])))
    plans = proposals(present)[torch.tensor([3])]
    begun, ego = double.cost.begun(where), where.history[:, -1, 0]

    def cost(acceleration: torch.Tensor) -> torch.Tensor:
        steering = torch.zeros_like(acceleration)
        controls = replace(plans.controls, acceleration_mps2=acceleration, steering_rad=steering)
        states = driven_ego(ego, controls, 0.1)
        return double.cost(where, begun, Plans(plans.episode, plans.lane, acceleration, steering, states))

    try:
        given = torch.full_like(plans.acceleration_mps2, 0.3).double().requires_grad_()
        assert torch.autograd.gradcheck(cost, (given,), eps=1e-5, atol=1e-4)
    finally:
        embedded.cost.model.float()
        embedded.cost.readout.float()


def test_what_depends_on_nobody_else_costs_the_same_by_either_model(model, embedded):
    alone, where = scene(*FREE), situation(scene(*FREE))
    plans = proposals(alone)
    found = []
    for planner in (ProposalPlanner(model), embedded):
        with torch.no_grad():
            found.append(planner.cost.terms(where, planner.cost.begun(where), plans))
    for name in ("speed", "lane", "off_road", "comfort"):
        torch.testing.assert_close(found[0][name], found[1][name], atol=2e-3, rtol=1e-3)


def test_it_says_what_it_is_about_to_drive(embedded):
    present = scene((0.0, -4.0, 20.0), (30.0, -4.0, 15.0))
    planner = embedded
    planner.reset(present, ROAD, goal())
    history = history_of(present, 20)
    planner.act(history, ROAD, goal())
    imagined = planner.imagine(history, ROAD, goal(), steps=30)
    assert imagined.plan_m.shape == (1, 30, 2)
    assert imagined.futures_m.shape[1] == 0
    assert {"speed", "proximity"} <= imagined.cost.keys()
    assert (imagined.plan_m[0, 0] - present.position_m[0, 0]).norm() < 2.5


def test_a_joint_embedding_without_its_readout_is_refused(embedded):
    with pytest.raises(ValueError, match="readout"):
        ProposalPlanner(embedded.cost.model)


@pytest.mark.parametrize("wrong", [{"decide_every_s": 0.0}, {"refined": -1}, {"knots": 1}, {"steps_mps2": ()}])
def test_impossible_planners_are_refused(wrong):
    with pytest.raises(InputError, match="planner"):
        ProposalPlannerConfig(**wrong)


# ---- the readout's file ----


def test_a_readout_is_read_back_and_refused_beside_other_weights(tmp_path, embedded):
    model, readout = embedded.cost.model, embedded.cost.readout
    with pytest.raises(InputError, match="finish its training"):
        load_readout(tmp_path, model)
    save_readout(tmp_path, readout, model, {})
    seen = torch.randn(3, 16)
    assert torch.equal(load_readout(tmp_path, model).raw(seen), readout.raw(seen))
    with pytest.raises(InputError, match="other weights"):
        load_readout(tmp_path, JointEmbedding(model.config))
