"""Recorded traffic: what is replayed, what is driven, and how an episode ends."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from recorded_scenes import Track, straight_scene, straight_store

from drivecast.envs.recorded.config import RecordedTrafficConfig
from drivecast.envs.recorded.traffic import RecordedTraffic
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.traffic import Controls

LONE = Track(x_m=20, speed_mps=10, last=80)


def traffic(*tracks: Track, frames: int = 120, **config) -> RecordedTraffic:
    return RecordedTraffic({"made": straight_scene(tracks, frames)}, RecordedTrafficConfig(**config))


def seed_of(world: RecordedTraffic, vehicle_id: int) -> int:
    """The seed that drives that vehicle."""
    for seed in range(world.count):
        if world.reset([seed]).task[0]["vehicle_id"] == vehicle_id:
            return seed
    raise AssertionError(f"vehicle {vehicle_id} is never driven")


def controls(acceleration_mps2: float = 0.0, steering_rad: float = 0.0, batch: int = 1) -> Controls:
    return Controls(torch.full((batch,), acceleration_mps2), torch.full((batch,), steering_rad))


def drive(world: RecordedTraffic, acceleration_mps2: float | None, steering_rad: float = 0.0, most: int = 300):
    """Step one episode to its end with the same controls (None: the human); the last step and their number."""
    for number in range(1, most + 1):
        step = world.step(None if acceleration_mps2 is None else controls(acceleration_mps2, steering_rad))
        if bool(step.ended):
            return step, number
    raise AssertionError(f"no end within {most} steps")


def test_each_seed_drives_another_vehicle_and_the_order_is_fixed():
    tracks = [Track(x_m=20 + 30 * i, speed_mps=10, last=80) for i in range(7)]
    first, second = traffic(*tracks), traffic(*tracks)
    drawn = [task["vehicle_id"] for task in first.reset(range(7)).task]
    assert sorted(drawn) == list(range(1, 8))
    assert drawn != sorted(drawn)
    assert [task["vehicle_id"] for task in second.reset(range(7, 14)).task] == drawn


def test_start_has_a_second_of_history_with_the_ego_first():
    world = traffic(Track(x_m=60, speed_mps=10, first=15, last=110), LONE)
    start = world.reset([seed_of(world, 1)])
    assert start.history.valid.shape[:2] == (1, 11)
    assert start.history.valid[0, :, 0].all()
    assert start.history.position_m[0, :, 0, 0].tolist() == pytest.approx([60 + i for i in range(11)])
    assert start.history.position_m[0, -1, 1, 0].item() == pytest.approx(20 + 25)  # the other one, at the same moment


def test_replayed_human_completes_with_its_recorded_motion():
    world = traffic(LONE)
    world.reset([0])
    step, number = drive(world, None)
    assert bool(step.completed)
    assert number == 70  # 7 s from the hand-over to the end of the track
    assert step.state.position_m[0, 0].tolist() == pytest.approx([100.0, 0.0])
    assert step.progress.item() == pytest.approx(1.0)


def test_a_vehicle_cut_by_the_recordings_end_has_slack():
    world = traffic(replace(LONE, last=None), frames=101)
    world.reset([0])
    _, number = drive(world, None)
    assert number == 70  # to where the human was 2 s before the end, 10 s; hand-over was at 1 s


def test_a_slower_ego_still_completes_and_a_standing_one_runs_out_of_time():
    world = traffic(LONE, frames=300)
    world.reset([0])
    step, number = drive(world, -0.5)  # 10 m/s to 5 m/s over the span
    assert bool(step.completed)
    assert number > 70
    world.reset([0])
    step, number = drive(world, -8.0)
    assert bool(step.timed_out)
    assert number == 140  # twice the human's 7 s
    assert step.progress.item() < 0.2


def test_running_into_the_leader_is_a_contact_that_names_it():
    world = traffic(
        Track(x_m=20, speed_mps=20, last=90), Track(x_m=60, speed_mps=10), Track(x_m=60, speed_mps=10, lane=1)
    )
    world.reset([seed_of(world, 1)])
    step, number = drive(world, 0.0)
    assert bool(step.collided)
    assert not bool(step.completed)
    assert step.state.position_m[0, int(step.hit), 1].item() == 0.0  # the one in its own lane
    assert (
        number == 26
    )  # 40 m apart at the start, less 10 m until the hand-over, less 5 m of car, at 1 m a step; 0.05 m


def test_off_road_is_a_metre_beyond_the_outermost_lane():
    world = traffic(LONE)
    world.reset([0])
    step, _ = drive(world, 0.0, 0.2)
    assert bool(step.off_road)
    assert 3.0 < step.state.position_m[0, 0, 1].item() < 4.0


def test_an_ended_episode_is_frozen_while_others_go_on():
    world = traffic(LONE, Track(x_m=200, speed_mps=10, last=100))
    seeds = [seed_of(world, 1), seed_of(world, 2)]
    world.reset(seeds)
    ends = torch.zeros(2)
    for _ in range(120):
        step = world.step(controls(batch=2))
        ends += step.ended
        if bool(step.ended[0]):
            frozen = step.state[0]
    assert ends.tolist() == [1, 1]
    assert torch.equal(step.state.position_m[0], frozen.position_m)
    assert not step.ended.any()


def test_batched_episodes_equal_single_ones():
    tracks = [Track(x_m=20 + 15 * i, speed_mps=8 + i, lane=i % 2, first=3 * i, last=90 + i) for i in range(5)]
    world = traffic(*tracks)
    seeds = list(range(world.count))
    world.reset(seeds)
    together = [world.step(controls(-0.3, 0.01, len(seeds))) for _ in range(60)]
    for seed in seeds:
        world.reset([seed])
        for both in together:
            alone = world.step(controls(-0.3, 0.01))
            assert torch.equal(alone.state.position_m[0, 0], both.state.position_m[seed, 0])
            for event in ("collided", "off_road", "completed", "timed_out"):
                assert bool(getattr(alone, event)) == bool(getattr(both, event)[seed])
            count = alone.state.valid.shape[1]
            assert torch.equal(alone.state.valid[0], both.state.valid[seed, :count])


def test_a_vehicle_that_appears_on_top_of_the_ego_is_left_out():
    # the ego brakes; a new track begins where it stands, as where two recorded scenes were joined
    joined = Track(x_m=35, speed_mps=0.0, first=60, last=110)
    world = traffic(LONE, joined, frames=300)
    world.reset([seed_of(world, 1)])
    step, _ = drive(world, -8.0)
    assert bool(step.timed_out)
    assert not step.state.valid[0, 1:].any()


def test_a_follower_does_not_react_to_a_braking_ego():
    world = traffic(LONE, Track(x_m=0, speed_mps=10))
    world.reset([seed_of(world, 1)])
    step, _ = drive(world, -4.0)
    assert bool(step.collided)


def test_recorded_controls_are_reported_for_the_human():
    world = traffic(LONE)
    world.reset([0])
    step = world.step(None)
    assert step.controls.acceleration_mps2.item() == pytest.approx(0.0, abs=1e-4)
    assert step.controls.steering_rad.item() == pytest.approx(0.0, abs=1e-6)


def test_controls_are_held_within_limits():
    world = traffic(LONE)
    world.reset([0])
    step = world.step(controls(50.0, 3.0))
    assert step.controls.acceleration_mps2.item() == pytest.approx(8.0)
    assert step.controls.steering_rad.item() == pytest.approx(0.7)


def test_short_tracks_are_not_driven_and_none_left_is_an_error():
    assert traffic(LONE, replace(LONE, last=25)).count == 1
    with pytest.raises(InputError, match="min_span_s"):
        traffic(replace(LONE, last=25))


def test_store_and_split_are_opened_and_an_unknown_split_is_refused(tmp_path):
    store = straight_store(tmp_path / "store", [LONE, Track(x_m=150, speed_mps=12)], recordings=2)
    world = RecordedTraffic.open(store, "test")
    assert world.count == 4
    assert {task["recording"] for task in world.reset(range(4)).task} == {"straight-0", "straight-1"}
    with pytest.raises(InputError, match="expected a split"):
        RecordedTraffic.open(store, "tset")
    with pytest.raises(InputError, match="at least one recording"):
        RecordedTraffic.open(store, "val")


def test_recorded_humans_complete_on_real_traffic(ngsim_data, tmp_path):
    from drivecast.worldmodel.recordings.store_writer import write_store
    from drivecast.worldmodel.recordings.tidy import read_tidy

    recordings, splits = read_tidy(ngsim_data / "us101")
    write_store(tmp_path / "us101", recordings, splits)
    world = RecordedTraffic.open(tmp_path / "us101", "test")
    assert world.count == 134
    world.reset(range(world.count))
    completed = torch.zeros(world.count, dtype=torch.bool)
    failed = completed.clone()
    for _ in range(120):
        step = world.step(None)
        completed |= step.completed
        failed |= step.collided | step.off_road | step.timed_out
    assert completed.float().mean() >= 0.998
    assert not failed.any()
