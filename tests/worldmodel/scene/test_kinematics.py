"""Claims about the bicycle and the unicycle."""

import math

import torch

from drivecast.worldmodel.scene.kinematics import (
    MAX_ACCELERATION_MPS2,
    MAX_BRAKING_MPS2,
    MAX_STEERING_RAD,
    bicycle_step,
    recorded_controls,
    unicycle_step,
    within_limits,
)
from drivecast.worldmodel.scene.traffic import Controls


def drive(steering: float, acceleration: float, steps: int, speed: float = 10.0):
    state = (torch.zeros(1, 2).double(), torch.zeros(1).double(), torch.full((1,), speed).double())
    track = [state]
    for _ in range(steps):
        state = bicycle_step(
            *state, torch.tensor([5.0]).double(), torch.tensor([acceleration]), torch.tensor([steering]), 0.1
        )
        track.append(state)
    return track


def test_left_steering_turns_left():
    position, heading, _ = drive(0.1, 0.0, 10)[-1]
    assert position[0, 1] > 0
    assert heading[0] > 0


def test_steady_steering_drives_a_circle_of_the_bicycle_s_radius():
    track = drive(0.2, 0.0, 400, speed=5.0)
    slip = math.atan(0.5 * math.tan(0.2))
    radius = 2.5 / math.sin(slip)
    points = torch.stack([state[0][0] for state in track])
    # a polygon of 0.5 m chords closes on the circle to within the chord's error
    spread = points.max(0).values - points.min(0).values
    torch.testing.assert_close(spread, torch.full((2,), 2 * radius).double(), rtol=0.01, atol=0.0)


def test_braking_stops_and_never_reverses():
    _, _, speed = drive(0.0, -6.0, 40)[-1]
    assert speed.item() == 0.0


def test_recorded_controls_undo_the_bicycle():
    track = drive(0.05, 1.5, 30)
    heading, speed = torch.cat([state[1] for state in track]), torch.cat([state[2] for state in track])
    acceleration, steering = recorded_controls(heading, speed, torch.tensor(5.0).double(), 0.1)
    torch.testing.assert_close(acceleration, torch.full_like(acceleration, 1.5))
    torch.testing.assert_close(steering, torch.full_like(steering, 0.05))


def test_recorded_controls_of_a_standing_car_do_not_steer():
    heading = torch.tensor([0.0, 0.3, -0.2])
    _, steering = recorded_controls(heading, torch.zeros(3), torch.tensor(5.0), 0.1)
    assert steering.tolist() == [0.0, 0.0]


def test_unicycle_at_constant_acceleration_covers_the_exact_distance():
    state = (torch.zeros(1, 2).double(), torch.zeros(1).double(), torch.tensor([8.0]).double())
    for _ in range(20):
        state = unicycle_step(*state, torch.tensor([1.0]).double(), torch.zeros(1).double(), 0.1)
    torch.testing.assert_close(state[0], torch.tensor([[8.0 * 2 + 0.5 * 4, 0.0]]).double())


def test_bicycle_gradients_match_finite_differences():
    inputs = [torch.zeros(2, 2), torch.tensor([0.1, -0.3]), torch.tensor([5.0, 20.0]), torch.tensor([4.0, 6.0])]
    inputs += [torch.tensor([1.0, -2.0]), torch.tensor([0.05, -0.1])]
    inputs = [value.double().requires_grad_() for value in inputs]
    assert torch.autograd.gradcheck(lambda *values: bicycle_step(*values, 0.1), inputs)


def test_controls_are_held_to_what_a_car_can_follow_and_never_brake_it_into_reverse():
    speed = torch.tensor([20.0, 20.0, 0.3, 0.0, -1.0], dtype=torch.float64)
    wished = Controls(torch.tensor([9.0, -20.0, -20.0, -1.0, -1.0]), torch.tensor([0.1, 2.0, -2.0, 0.0, 0.0]))
    held = within_limits(wished, speed, 0.1)
    expected = torch.tensor([MAX_ACCELERATION_MPS2, -MAX_BRAKING_MPS2, -3.0, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(held.acceleration_mps2, expected)
    assert held.steering_rad[1:3].tolist() == [MAX_STEERING_RAD, -MAX_STEERING_RAD]
