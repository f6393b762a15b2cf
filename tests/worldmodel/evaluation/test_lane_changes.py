"""Claims about lane changes in futures."""

import torch

from drivecast.worldmodel.evaluation.lane_changes import lane_changes
from drivecast.worldmodel.scene.road import NO_LANE, Road


def test_a_vehicle_has_changed_lane_once_it_is_well_inside_another():
    road = Road.straight(3)
    across = torch.tensor([[0.0, -1.9, -2.1, -2.5, -4.0]])[..., None]  # markings at y = -2 and -6
    future = torch.stack([torch.arange(5.0).view(1, 5, 1) * 20, across], -1)  # (1, 5, 1, 2)
    present = torch.tensor([[[0.0, 0.0]]])
    changes = lane_changes(road, present, future, torch.ones(1, 5, 1, dtype=torch.bool))
    assert changes.judged.all()
    assert changes.lane[0, :, 0].tolist() == [NO_LANE, NO_LANE, NO_LANE, 1, 1]


def test_who_drives_on_a_marking_is_not_judged_and_what_is_not_seen_is_no_change():
    road = Road.straight(2)
    present = torch.tensor([[[0.0, -1.9], [0.0, 0.0]]])
    future = torch.tensor([[[[20.0, -4.0], [20.0, -4.0]]]])
    changes = lane_changes(road, present, future, torch.tensor([[[True, False]]]))
    assert changes.judged[0].tolist() == [False, True]
    assert changes.lane[0, 0, 1] == NO_LANE


def test_the_first_lane_counts_for_one_who_comes_back():
    road = Road.straight(3)
    future = torch.tensor([[[[20.0, -4.0]], [[40.0, -8.0]], [[60.0, 0.0]]]])
    changes = lane_changes(road, torch.zeros(1, 1, 2), future, torch.ones(1, 3, 1, dtype=torch.bool))
    assert changes.lane[0, :, 0].tolist() == [1, 1, 1]
