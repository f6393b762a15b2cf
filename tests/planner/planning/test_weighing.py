"""The plans that were weighed, as they are shown."""

import torch
from test_search import decided
from traffic_scenes import scene

from drivecast.planner.planning.weighing import MOST_PLANS, weighed
from drivecast.worldmodel.scene.traffic import TrafficState


def test_the_chosen_plan_comes_first_and_the_parts_of_each_sum_to_its_energy(model):
    both = TrafficState.cat(
        [scene((0, -4, 25), (30, -4, 15), (25, 0, 15)), scene((0, 0, 20), (80, 0, 18), (-20, -4, 24))]
    )
    planner, _ = decided(model, both)
    shown = weighed(planner.found, 2, 0.1, ago=0)
    assert 2 < shown.energy.shape[1] <= MOST_PLANS
    torch.testing.assert_close(shown.lanes[:, 0, 0], planner.chosen_lane)
    there = ~shown.energy.isnan()
    assert (shown.energy.diff(dim=1)[there[:, 1:]] >= 0).all()
    torch.testing.assert_close(sum(shown.cost.values())[there], shown.energy[there])


def test_paths_lead_from_the_ego_to_the_lanes_that_are_steered_for(model):
    planner, _ = decided(model, scene((0, -4, 25), (30, -4, 15), (25, 0, 15)))
    shown = weighed(planner.found, 1, 0.1, ago=0)
    path, across = shown.path_m[0], shown.path_m[0, :, -1, 1]
    assert shown.every == 5
    assert path.shape[1] == 12  # of 6 s
    assert ((path[:, 0, 0] > 5) & (path[:, 0, 0] < 20)).all()
    stays = (shown.lanes[0] == 1).all(1)
    assert (across[stays] + 4).abs().max() < 0.1
    right = (shown.lanes[0] == 2).all(1)
    assert right.any()
    assert (across[right] + 8).abs().max() < 0.3
