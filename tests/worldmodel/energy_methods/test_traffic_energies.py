"""What the energies of vehicles' futures see, and in which coordinates."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from traffic_scenes import platoon_store

from drivecast.worldmodel.energy_methods.coordinates import FutureCoordinates, displacement_m
from drivecast.worldmodel.energy_methods.method import Examples
from drivecast.worldmodel.energy_methods.methods import METHODS
from drivecast.worldmodel.energy_methods.recorded_examples import (
    own_path_m,
    recorded_examples,
    recorded_paths,
    recorded_rows,
    window_of,
)
from drivecast.worldmodel.energy_methods.surroundings import OTHERS, surroundings_of
from drivecast.worldmodel.energy_methods.training import MethodTrainingConfig, train
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import TrafficState

HORIZON_S = 2.0


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> WindowStore:
    return platoon_store(tmp_path_factory.mktemp("platoons") / "store")


@pytest.fixture(scope="module")
def examples(store) -> tuple[Examples, FutureCoordinates]:
    return recorded_examples(store, "train", HORIZON_S, 300, 0, None)


def energies_of(method, past, future):
    return method.energy(method.look(past), future[:, None])[:, 0].detach()


def turned(state: TrafficState, angle_rad: torch.Tensor, shift_m: torch.Tensor) -> TrafficState:
    return replace(
        state, position_m=state.position_m @ rotation(angle_rad).T + shift_m, heading_rad=state.heading_rad + angle_rad
    )


def rotation(angle_rad: torch.Tensor) -> torch.Tensor:
    cos, sin = angle_rad.cos(), angle_rad.sin()
    return torch.stack([torch.stack([cos, -sin]), torch.stack([sin, cos])])


def test_coordinates_are_standardised_and_have_an_inverse(examples):
    data, coordinates = examples
    assert coordinates.dims == 20
    path = coordinates.path_m(data.future[:, None], data.past)[:, 0]
    torch.testing.assert_close(coordinates.vector(path, data.past), data.future, atol=2e-3, rtol=1e-3)
    off = torch.cov(data.future.T) - torch.eye(coordinates.dims)
    assert float(data.future.mean(0).abs().max()) < 1e-3
    assert float((off - off.diagonal().diag()).abs().max()) < 1e-2
    assert float(off.diagonal().max()) < 1e-2  # less where nothing varies
    assert float(off.diagonal().min()) > -1.001


def test_displacement_is_against_going_on_at_the_same_velocity(examples, store):
    rows = recorded_rows(store, "test", HORIZON_S, 20, 0)
    past, path = recorded_paths(store, rows, HORIZON_S)
    window = window_of(store, rows, HORIZON_S)
    displacement = displacement_m(path, past)
    now = window.present
    straight = now.position_m[:, 0] + HORIZON_S * now.velocity_mps[:, 0]
    expected = window.future.position_m[:, -1, 0] - straight  # of a road along x
    torch.testing.assert_close(displacement[:, -1], expected, atol=2e-3, rtol=1e-3)


def test_surroundings_are_in_the_frame_of_the_lane_and_back(store):
    rows = recorded_rows(store, "test", HORIZON_S, 20, 0)
    past, path = recorded_paths(store, rows, HORIZON_S)
    window = window_of(store, rows, HORIZON_S)
    torch.testing.assert_close(past.to_world(path), window.future.position_m[:, 1::2, 0], atol=1e-3, rtol=1e-5)


def test_edges_are_those_of_the_road():
    state = TrafficState(
        position_m=torch.tensor([[[50.0, -4.5]]]),
        heading_rad=torch.zeros(1, 1),
        speed_mps=torch.full((1, 1), 10.0),
        length_m=torch.full((1, 1), 5.0),
        width_m=torch.full((1, 1), 2.0),
        valid=torch.ones(1, 1, dtype=torch.bool),
    )
    history = state.map(lambda values: values[:, None].expand(-1, 21, *values.shape[1:]))
    past = surroundings_of(history, history[:, :20], Road.straight(3), 0.1)
    assert past.edge_m.tolist() == [[6.5, 5.5]]
    assert past.other_valid.shape == (1, OTHERS)
    assert not bool(past.other_valid.any())


@pytest.mark.parametrize("kind", METHODS, ids=lambda kind: kind.name)
def test_energies_stay_where_the_world_is_turned_and_shifted(kind, store):
    rows = recorded_rows(store, "test", HORIZON_S, 12, 0)
    window = window_of(store, rows, HORIZON_S)
    angle, shift = torch.tensor(0.7), torch.tensor([30.0, -80.0])
    road = replace(window.road, centre_m=window.road.centre_m @ rotation(angle).T + shift)
    worlds = [
        (window.history, window.future, window.road),
        (turned(window.history, angle, shift), turned(window.future, angle, shift), road),
    ]
    metres = FutureCoordinates(torch.zeros(20), torch.eye(20), torch.eye(20))
    method = kind.seeded(metres, kind.values[1], 0)
    found = []
    for history, future, on in worlds:
        past = surroundings_of(history, future, on, store.dt_s)
        vector = metres.vector(own_path_m(future, past, store.dt_s), past)
        found.append(energies_of(method, past, vector))
    torch.testing.assert_close(found[0], found[1], atol=0.02, rtol=0.02)


def test_the_energy_sees_whom_the_future_meets_and_nobody_who_is_not_there(examples):
    data, coordinates = examples
    method = METHODS[0].seeded(coordinates, 0.5, 0)
    rows = data.past.other_valid.any(1).nonzero()[:30, 0]
    past, future = data.past[rows], data.future[rows]
    before = energies_of(method, past, future)
    there = past.other_valid[:, None, :, None]
    moved = replace(past, other_path_m=torch.where(there, past.other_path_m + 6.0, past.other_path_m))
    assert float((energies_of(method, moved, future) - before).abs().min()) > 1e-6
    elsewhere = replace(past, other_path_m=torch.where(there, past.other_path_m, past.other_path_m + 6.0))
    torch.testing.assert_close(energies_of(method, elsewhere, future), before)
    order = torch.randperm(OTHERS, generator=torch.Generator().manual_seed(1))
    shuffled = replace(
        past,
        other=past.other[:, order],
        other_valid=past.other_valid[:, order],
        other_path_m=past.other_path_m[:, :, order],
        size_m=past.size_m[:, order],
    )
    torch.testing.assert_close(energies_of(method, shuffled, future), before, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", METHODS, ids=lambda kind: kind.name)
def test_every_method_trains_on_traffic_and_reaches_all_its_weights(kind, examples):
    data, coordinates = examples
    method = kind.seeded(coordinates, kind.values[1], 0)
    before = {name: value.clone() for name, value in method.named_parameters()}
    how = train(method, data, MethodTrainingConfig(steps=3, batch=16), seed=0)
    assert not how.diverged
    still = {name for name, value in method.named_parameters() if torch.equal(before[name], value)}
    assert still <= {"network.judge.2.bias"}  # a constant
    assert all(not value.requires_grad for value in method.parameters())


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_generator_alone(examples):
    coordinates = examples[1]
    state = torch.random.get_rng_state()
    one, again, other = (METHODS[0].seeded(coordinates, 0.5, seed) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), state)
    weights = [torch.cat([value.flatten() for value in method.parameters()]) for method in (one, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_too_long_futures_are_refused(store):
    with pytest.raises(InputError, match="ask for shorter futures"):
        recorded_rows(store, "test", 60.0, 10, 0)
