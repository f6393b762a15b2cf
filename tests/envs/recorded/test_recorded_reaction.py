"""Recorded traffic that yields or reacts: who is handed over, and that nobody drives through anybody."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from recorded_scenes import Track, straight_scene

from drivecast.envs.behaviour.fitted_drivers import FittedDrivers
from drivecast.envs.recorded.config import RecordedTrafficConfig
from drivecast.envs.recorded.paths import BEYOND_M, RecordedPaths
from drivecast.envs.recorded.reacting_vehicles import drivers_of
from drivecast.envs.recorded.reaction import needed_braking
from drivecast.envs.recorded.traffic import RecordedTraffic
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.contact import separation_m
from drivecast.worldmodel.scene.traffic import Controls

# Lateral paths are kept, and those of some neighbours are at places nearer to each other than the vehicles are wide:
# who arrives there beside another grazes it before it has fallen back. A quarter of a car's width is no passage.
GRAZE_M = 0.5
QUEUE = [Track(x_m=100 - 20 * i, speed_mps=12, last=90) for i in range(4)]  # the first one leads


def traffic(others: str, *tracks: Track, frames: int = 150, lanes: int = 2, scene=None) -> RecordedTraffic:
    return RecordedTraffic(
        {"made": scene or straight_scene(tracks, frames, lanes)}, RecordedTrafficConfig(others=others)
    )


def start(world: RecordedTraffic, vehicle_id: int) -> None:
    seeds = [s for s in range(world.count) if world.reset([s]).task[0]["vehicle_id"] == vehicle_id]
    world.reset(seeds)


def drive(world: RecordedTraffic, braking, steps: int = 100):
    """All steps up to the end; `braking(step)` in m/s², or None for the human."""
    done = []
    for number in range(steps):
        given = braking(number) if callable(braking) else braking
        done.append(world.step(None if given is None else Controls(torch.tensor([-given]), torch.tensor([0.0]))))
        if bool(done[-1].ended):
            break
    return done


def least_gap_m(state) -> float:
    """Of all pairs of vehicles but the ego's."""
    there = state.map(lambda tensor: tensor[0, 1:])
    gap = separation_m(there.map(lambda tensor: tensor[:, None]), there.map(lambda tensor: tensor[None]))
    apart = there.valid[:, None] & there.valid[None] & ~torch.eye(len(there.valid), dtype=torch.bool)
    return float(gap.masked_fill(~apart, torch.inf).min())


@pytest.mark.parametrize("human", [True, False])
def test_replay_is_to_the_last_bit_what_was_recorded(human):
    scene = straight_scene(QUEUE, 150)
    world = traffic("replay", scene=scene)
    start(world, 1)
    for number, step in enumerate(drive(world, None if human else 3.0), 11):
        others = sorted(step.state.position_m[0, 1:, 0][step.state.valid[0, 1:]].tolist())
        recorded = scene.states[number, 1:]
        assert others == sorted(recorded.position_m[:, 0][recorded.valid].tolist())


def test_a_human_ego_hands_nobody_over_and_sees_what_replay_shows():
    # the follower closes in with far more than comfortable braking, as recorded
    tracks = [Track(x_m=100, speed_mps=5, last=80), Track(x_m=60, speed_mps=14, last=35)]
    replay, yielding = traffic("replay", *tracks), traffic("yielding", *tracks)
    for world in (replay, yielding):
        start(world, 1)
    for one, other in zip(drive(replay, None), drive(yielding, None), strict=True):
        for name, values in one.state.__dict__.items():
            assert torch.equal(values, getattr(other.state, name)), name
        assert not other.collided.any()


@pytest.mark.parametrize("braking", [2.0, 5.0, 8.0])
@pytest.mark.parametrize("others", ["yielding", "reactive"])
def test_a_braking_ego_is_not_rear_ended_and_the_queue_behind_stays_in_one_piece(braking, others):
    world = traffic(others, *QUEUE)
    start(world, 1)
    steps = drive(world, braking)
    assert not any(bool(step.collided) for step in steps)
    assert min(least_gap_m(step.state) for step in steps) > 0.0


def test_the_same_braking_is_run_into_in_replay():
    world = traffic("replay", *QUEUE)
    start(world, 1)
    assert bool(drive(world, 5.0)[-1].collided)


def test_who_is_not_concerned_stays_recorded():
    aside = [Track(x_m=100 - 20 * i, speed_mps=12, lane=1, last=90) for i in range(3)]
    world = traffic("yielding", *QUEUE, *aside)
    start(world, 1)
    step = drive(world, 5.0, steps=40)[-1]
    on_side = step.state.position_m[0, :, 1] < -2
    expected = torch.tensor([100.0, 80.0, 60.0]) + 12 * 0.1 * 50
    assert step.state.position_m[0, on_side, 0].tolist() == pytest.approx(expected.tolist())


def test_the_handed_over_keep_their_recorded_lateral_path():
    scene = straight_scene([Track(x_m=100, speed_mps=12, last=90), Track(x_m=75, speed_mps=12, last=140)], 150)
    states = scene.states
    sway = 0.5 * torch.sin(states.position_m[:, 1, 0] / 10)
    position = states.position_m.clone()
    position[:, 1, 1] = sway
    world = traffic("yielding", scene=replace(scene, states=replace(states, position_m=position)))
    start(world, 1)
    for step in drive(world, 6.0, steps=60):
        x, y = step.state.position_m[0, 1].tolist()
        assert y == pytest.approx(0.5 * torch.tensor(x / 10).sin().item(), abs=0.03)
    assert world._reacting is not None
    assert bool(world._reacting.reacts[0, 1])
    assert step.state.speed_mps[0, 1].item() < 8.0


def test_reactive_vehicles_follow_their_leader_and_wait_for_one_another():
    # the leader stands: in the recording the others drive through it
    tracks = [Track(x_m=150, speed_mps=0.0), *[Track(x_m=20 + 22 * i, speed_mps=12) for i in range(4)]]
    ego = Track(x_m=20, speed_mps=10, lane=1)
    world = traffic("reactive", *tracks, ego)
    start(world, 6)
    steps = drive(world, 0.0, 110)
    assert min(least_gap_m(step.state) for step in steps) > 0.0
    assert steps[-1].state.speed_mps[0, 1:].max().item() < 4.0  # the last one still closes up
    assert int(steps[-1].state.valid[0, 1:].sum()) == 5


def test_a_lane_change_finds_a_gap_where_the_recording_had_one_and_traffic_does_not():
    # 2 changes in front of 3, which was further back; now 3 is beside it
    scene = straight_scene(
        [Track(x_m=20, speed_mps=10, lane=1), Track(x_m=40, speed_mps=10), Track(x_m=38, speed_mps=10, lane=1)], 150
    )
    states = scene.states
    position = states.position_m.clone()
    position[:, 1, 1] = -4 * torch.sigmoid((position[:, 1, 0] - 90) / 5)
    position[:, 2, 0] -= torch.linspace(0, 30, 150)
    speed = states.speed_mps.clone()
    speed[:, 2] -= 2.0
    moved = replace(states, position_m=position, speed_mps=speed)
    world = traffic("reactive", scene=replace(scene, states=moved))
    start(world, 1)
    steps = drive(world, 0.5, 100)
    assert min(least_gap_m(step.state) for step in steps) > -0.05


def test_who_finds_no_room_enters_later_behind():
    # a stopped column reaches to where another one comes in
    ego = Track(x_m=20, speed_mps=10, lane=1)
    world = traffic("reactive", ego, Track(x_m=42, speed_mps=0.0), Track(x_m=38, speed_mps=12, first=30))
    start(world, 1)
    steps = drive(world, 0.0, 80)
    assert not any(bool(step.state.valid[0, 2]) for step in steps)


def test_a_reactive_vehicle_leaves_at_the_end_of_its_path():
    ego = Track(x_m=20, speed_mps=8, lane=1)
    world = traffic("reactive", ego, Track(x_m=60, speed_mps=10, last=60))
    start(world, 1)
    steps = drive(world, 0.0, 110)
    assert bool(steps[30].state.valid[0, 1])
    assert not bool(steps[-1].state.valid[0, 1])
    furthest = max(float(step.state.position_m[0, 1, 0]) for step in steps if step.state.valid[0, 1])
    assert 118 < furthest <= 120.0


def test_batched_reactions_equal_single_ones():
    tracks = [Track(x_m=20 + 18 * i, speed_mps=8 + i % 3, lane=i % 2, first=2 * i, last=100 + i) for i in range(8)]
    for others in ("yielding", "reactive"):
        world = traffic(others, *tracks)
        seeds = list(range(world.count))
        world.reset(seeds)
        many = Controls(torch.full((len(seeds),), -1.5), torch.zeros(len(seeds)))
        together = [world.step(many) for _ in range(50)]
        for seed in seeds:
            world.reset([seed])
            for both in together:
                alone = world.step(many[:1])
                count = alone.state.valid.shape[1]
                assert torch.equal(alone.state.valid[0], both.state.valid[seed, :count])
                there = alone.state.valid[0]
                torch.testing.assert_close(alone.state.position_m[0][there], both.state.position_m[seed, :count][there])


def test_needed_braking_stops_behind_a_leader_that_stops():
    speed, leader, gap = torch.tensor([15.0]), torch.tensor([15.0]), torch.tensor([10.5])
    braking = needed_braking(speed, leader, torch.tensor([8.0]), gap)
    assert braking.item() == pytest.approx(15**2 / (2 * (10 + 15**2 / 16)))
    assert needed_braking(speed, leader, torch.tensor([0.0]), gap).item() == pytest.approx(0.0, abs=1e-2)
    closing = needed_braking(speed, torch.tensor([10.0]), torch.tensor([0.0]), gap)
    assert closing.item() == pytest.approx(5**2 / 20)
    assert needed_braking(speed, leader, torch.tensor([0.0]), torch.tensor([torch.inf])).item() == 0.0


def test_paths_go_on_only_where_the_recordings_end_cut_them():
    paths = RecordedPaths.of_scenes(
        [straight_scene([Track(x_m=0, speed_mps=10, last=50), Track(x_m=0, speed_mps=10)], 100)]
    )
    assert paths.length_m.tolist() == pytest.approx([50.0, 99.0 + BEYOND_M], abs=1e-2)
    beyond = paths.at(torch.tensor([1]), torch.tensor([150.0]))
    assert (beyond.x_m.item(), beyond.y_m.item()) == pytest.approx((150.0, 0.0), abs=1e-2)


def test_a_vehicles_parameters_do_not_depend_on_what_else_is_opened():
    scene = straight_scene(QUEUE, 100)
    fitted = FittedDrivers.named("fitted-us101")
    alone = drivers_of({"b": scene}, fitted, 0)
    among = drivers_of({"a": scene, "store/b": scene}, fitted, 0)
    assert torch.equal(alone.time_gap_s, among.time_gap_s[4:])
    assert not torch.equal(alone.time_gap_s, among.time_gap_s[:4])
    assert (alone.desired_speed_mps >= 12.0).all()


def test_an_unknown_mode_or_file_is_refused():
    with pytest.raises(InputError, match=r"recorded\.others: expected replay, yielding or reactive; got 'polite'"):
        traffic("polite", *QUEUE)
    with pytest.raises(InputError, match="cannot be read as parameters of IDM"):
        RecordedTraffic({"made": straight_scene(QUEUE, 150)}, RecordedTrafficConfig(others="reactive", idm="nowhere"))


@pytest.fixture(scope="module")
def us101(ngsim_data, tmp_path_factory):
    from drivecast.worldmodel.recordings.store_writer import write_store
    from drivecast.worldmodel.recordings.tidy import read_tidy

    folder = tmp_path_factory.mktemp("recorded") / "us101"
    recordings, splits = read_tidy(ngsim_data / "us101")
    write_store(folder, recordings, splits)
    return folder


def test_no_human_of_us101_is_hit_where_others_yield(us101):
    world = RecordedTraffic.open(us101, "test", RecordedTrafficConfig(others="yielding"))
    world.reset(range(world.count))
    completed = torch.zeros(world.count, dtype=torch.bool)
    for _ in range(120):
        step = world.step(None)
        completed |= step.completed
        assert not step.collided.any()
        running = ~world._over
        assert world._reacting is not None
        assert not world._reacting.reacts[running].any()
    assert completed.all()


def test_no_reactive_vehicle_appears_in_front_of_another_however_it_was_recorded():
    # a vehicle that stands in all of its recording comes into sight where, in this traffic, another one is about to be
    ego = Track(x_m=20, speed_mps=10, lane=1)
    world = traffic("reactive", ego, Track(x_m=20, speed_mps=10), Track(x_m=72, speed_mps=0.0, first=45, last=149))
    start(world, 1)
    steps = drive(world, 0.0, 100)
    assert min(least_gap_m(step.state) for step in steps) > 0.0


@pytest.mark.parametrize("split", ["val", "test"])
def test_nobody_drives_through_anybody_on_us101_where_all_react(us101, split):
    world = RecordedTraffic.open(us101, split, RecordedTrafficConfig(others="reactive"))
    world.reset(range(0, world.count, 3))
    deepest = 0.0
    for _ in range(100):
        step = world.step(None)
        state, running = step.state, ~world._over
        for episode in running.nonzero()[:, 0].tolist():
            deepest = min(deepest, least_gap_m(state[episode : episode + 1]))
    assert deepest > -GRAZE_M
