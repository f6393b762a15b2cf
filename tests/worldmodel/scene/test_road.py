"""Claims about where positions lie on lanes."""

import math

import torch

from drivecast.worldmodel.scene.road import NO_LANE, Road


def bend(radius: float = 50.0, open_ends: bool = True) -> Road:
    """A quarter circle to the left, counter-clockwise around (0, radius), of one 4 m lane."""
    angle = torch.linspace(0, math.pi / 2, 91)
    centre = torch.stack([radius * angle.sin(), radius - radius * angle.cos()], -1)
    lane = torch.tensor([[0]])
    flag = torch.tensor([[open_ends]])
    return Road(
        centre_m=centre[None, None],
        width_m=torch.full((1, 1, 91), 4.0),
        point_count=torch.tensor([[91]]),
        speed_limit_mps=torch.tensor([[30.0]]),
        left=lane - 1,
        right=lane - 1,
        open_start=flag,
        open_end=flag,
    )


def test_nearest_lane_and_side_on_a_straight_road():
    there = Road.straight(3).project(torch.tensor([[[10.0, 0.5], [10.0, -3.0], [10.0, -8.2]]]))
    assert there.lane.tolist() == [[0, 1, 2]]
    torch.testing.assert_close(there.across_m, torch.tensor([[0.5, 1.0, -0.2]]))


def test_left_neighbour_has_the_smaller_index_and_the_edges_have_none():
    road = Road.straight(3)
    lanes = torch.tensor([[0, 1, 2]])
    assert road.neighbour(lanes, "left").tolist() == [[NO_LANE, 0, 1]]
    assert road.neighbour(lanes, "right").tolist() == [[1, 2, NO_LANE]]


def test_along_a_bend_is_arc_length_and_across_is_the_distance_from_it():
    angle, radius = 0.7, 50.0
    inside = radius - 1.5  # nearer to the centre of a left bend is to the left
    point = torch.tensor([[[inside * math.sin(angle), radius - inside * math.cos(angle)]]])
    there = bend(radius).project(point)
    assert abs(there.along_m.item() - radius * angle) < 0.05
    assert abs(there.across_m.item() - 1.5) < 0.01
    assert abs(there.heading_rad.item() - angle) < 0.02


def test_an_open_lane_goes_straight_on_and_a_closed_one_ends():
    beyond = torch.tensor([[[50.0, 60.0]]])  # ten metres past the end of the bend, which points along +y
    assert bend(open_ends=True).off_road_m(beyond).item() == 0.0
    assert abs(bend(open_ends=False).off_road_m(beyond).item() - 10.0) < 0.1
    assert bend(open_ends=False).project(beyond).remaining_m.item() < 0.0


def test_off_road_starts_at_the_outer_edge():
    road = Road.straight(2)
    distance = road.off_road_m(torch.tensor([[[5.0, 1.9], [5.0, 2.5], [5.0, -5.9], [5.0, -7.0]]]))
    torch.testing.assert_close(distance, torch.tensor([[0.0, 0.5, 0.0, 1.0]]))


def test_a_padded_batch_projects_like_its_parts():
    straight, curved = Road.straight(3), bend()
    both = Road.batch([straight, curved])
    points = torch.tensor([[[20.0, -3.5], [4.0, 1.0]]])
    for number, road in enumerate((straight, curved)):
        alone, together = road.project(points), both.project(points.expand(2, -1, -1))
        for name in ("lane", "along_m", "across_m", "heading_rad", "width_m", "remaining_m"):
            torch.testing.assert_close(getattr(together, name)[number], getattr(alone, name)[0])


def test_projection_gradients_match_finite_differences():
    road = bend().map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)
    point = torch.tensor([[[20.3, 6.0], [45.0, 30.0]]]).double().requires_grad_()

    def across_and_along(position):
        there = road.project(position)
        return there.across_m, there.along_m

    assert torch.autograd.gradcheck(across_and_along, point)
