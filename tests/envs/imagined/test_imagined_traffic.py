"""Claims about traffic that a world model imagines."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from imagined_scenes import EVERY_S, SPEED_MPS, by_hand, flowing_scene, write_world_model
from recorded_scenes import Track, straight_scene, straight_store

from drivecast.envs.imagined.arrivals import LEAST_GAP_M, Entry
from drivecast.envs.imagined.traffic import REST_S, ImaginedTraffic, ImaginedTrafficConfig, admitted
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.contact import separation_m
from drivecast.worldmodel.scene.kinematics import bicycle_step
from drivecast.worldmodel.scene.traffic import Controls, TrafficState


@pytest.fixture(scope="module")
def scene():
    return flowing_scene()


def traffic(scene, **config) -> ImaginedTraffic:
    return ImaginedTraffic({"made": scene}, by_hand(), ImaginedTrafficConfig(**config))


def controls(batch: int, acceleration: float = 0.0, steering: float = 0.0) -> Controls:
    return Controls(torch.full((batch,), acceleration), torch.full((batch,), steering))


def drive(world: ImaginedTraffic, seeds, steps: int, acceleration: float = 0.0) -> TrafficState:
    """All scenes from the start on, `(batch, step, agent)`."""
    states = [world.reset(seeds).history[:, -1]]
    states += [world.step(controls(len(seeds), acceleration)).state for _ in range(steps)]
    return TrafficState.stack(states, 1)


def test_episodes_begin_at_the_recorded_scenes_with_two_seconds_of_history(scene):
    world = traffic(scene)
    start = world.reset(range(6))
    assert start.history.valid.shape == (6, 21, world.slots)
    assert start.history.valid[:, :, 0].all()
    for episode, task in enumerate(start.task):
        vehicle = int(task["vehicle_id"]) - 1
        frame = round(float(task["start_s"]) / 0.1)
        torch.testing.assert_close(
            start.history.position_m[episode, :, 0], scene.states.position_m[frame - 20 : frame + 1, vehicle]
        )
        assert start.history.valid[episode, -1].sum() == scene.states.valid[frame].sum()
    assert all(torch.isfinite(values).all() for values in vars(start.history).values())
    assert len({(task["vehicle_id"], task["start_s"]) for task in start.task}) == 6
    assert world.reset([0, world.count]).task[0] == world.reset([world.count]).task[0]


def test_an_episode_is_completed_when_it_has_lasted_and_stays_as_it_is(scene):
    world = traffic(scene, duration_s=2.0)
    world.reset([0, 1])
    for _ in range(19):
        assert not world.step(controls(2)).ended.any()
    last = world.step(controls(2))
    assert last.completed.all()
    after = world.step(controls(2))
    assert not after.ended.any()
    torch.testing.assert_close(after.state.position_m, last.state.position_m)


def test_running_into_the_leader_is_a_collision_and_leaving_every_lane_is_off_road(scene):
    world = traffic(scene)
    world.reset([0, 1])
    given = Controls(torch.tensor([6.0, 0.0]), torch.tensor([0.0, 0.3]))
    ended = {}
    for number in range(100):
        step = world.step(given)
        for episode in step.ended.nonzero()[:, 0].tolist():
            ended[episode] = (step.collided[episode], step.off_road[episode], step.hit[episode], number)
    collided, off_road, hit, _ = ended[0]
    assert collided
    assert not off_road
    assert hit > 0
    assert ended[1][1]


def test_the_ego_obeys_the_bicycle_within_its_limits(scene):
    world = traffic(scene)
    before = world.reset([3]).history[:, -1]
    for acceleration, steering, held in ((1.0, 0.02, (1.0, 0.02)), (50.0, 0.0, (6.0, 0.0)), (-50.0, 0.0, (-8.0, 0.0))):
        step = world.step(controls(1, acceleration, steering))
        ego = before[:, 0]
        given = torch.tensor([held[0]]), torch.tensor([held[1]])
        position, heading, speed = bicycle_step(
            ego.position_m, ego.heading_rad, ego.speed_mps, ego.length_m, *given, world.dt_s
        )
        torch.testing.assert_close(step.state.position_m[:, 0], position)
        torch.testing.assert_close(step.state.heading_rad[:, 0], heading)
        torch.testing.assert_close(step.state.speed_mps[:, 0], speed)
        torch.testing.assert_close(step.controls.acceleration_mps2, given[0])
        before = step.state


def test_others_enter_at_the_start_of_the_section_at_the_recorded_rate_and_speed(scene):
    batch, seconds = 8, 24
    states = drive(traffic(scene), range(batch), seconds * 10)
    entered = states.valid[:, 1:] & ~states.valid[:, :-1]
    recorded = 2 / EVERY_S  # two lanes
    assert entered.sum() / (batch * seconds) == pytest.approx(recorded, rel=0.2)
    episode, time, agent = entered.nonzero(as_tuple=True)
    place, speed = states.position_m[episode, time + 1, agent], states.speed_mps[episode, time + 1, agent]
    torch.testing.assert_close(place[:, 0], torch.zeros(len(place)), atol=0.5, rtol=0)
    assert set(place[:, 1].round().tolist()) == {0.0, -4.0}
    assert speed.median() == pytest.approx(SPEED_MPS, rel=0.1)
    assert speed.max() <= SPEED_MPS + 0.1


def test_nobody_enters_on_top_of_somebody_even_when_the_entrance_is_blocked(scene):
    world = traffic(scene)
    early = [s for s in range(100) if float(world.reset([s]).history.position_m[0, -1, 0, 0]) < 50][:4]
    states = drive(world, early, 290, acceleration=-6.0)  # a queue grows behind the ego, back to the entrance
    entered = states.valid[:, 1:] & ~states.valid[:, :-1]
    episode, time, agent = entered.nonzero(as_tuple=True)
    assert len(episode) > 10
    now = states[episode, time + 1]
    index = torch.arange(len(agent))
    gap = separation_m(now.map(lambda tensor: tensor[index, agent][:, None]), now)
    gap = gap.masked_fill(~now.valid, torch.inf)
    gap[index, agent] = torch.inf
    assert gap.min() > 0.9
    own_lane = (now.position_m[index, agent][:, None] - now.position_m)[..., 1].abs() < 1
    assert gap.masked_fill(~own_lane, torch.inf).min() > LEAST_GAP_M - 0.1  # of the scene before
    of_ego = (states.position_m[episode, time + 1, agent] - states.position_m[episode, time + 1, 0])[:, 1].abs() < 1
    assert (time[of_ego] < 50).any()
    assert (time[of_ego] < 240).all()
    assert (time[~of_ego] > 240).any()


def test_others_leave_at_the_end_of_the_section_but_not_beside_the_ego(scene):
    world = traffic(scene, near_m=60.0)
    states = drive(world, range(6), 250)
    gone = states.valid[:, :-1] & ~states.valid[:, 1:]
    episode, time, agent = gone.nonzero(as_tuple=True)
    assert len(episode) > 20
    last = states[episode, time]
    x, ego_x = last.position_m[torch.arange(len(agent)), agent, 0], last.position_m[:, 0, 0]
    assert x.min() > 295
    assert (x - ego_x).abs().min() > 55
    beyond = states.valid & (states.position_m[..., 0] > 320)
    assert beyond[..., 1:].any()  # those around the ego go on with it
    assert states.valid[..., 0].all()


def test_a_slot_is_taken_again_only_after_a_rest(scene):
    states = drive(traffic(scene, near_m=0.0), range(4), 290)
    again = 0
    for valid in states.valid.transpose(1, 2).flatten(0, 1):  # (time,) of a slot
        changes = valid[1:].int() - valid[:-1].int()
        left, came = (changes == -1).nonzero()[:, 0], (changes == 1).nonzero()[:, 0]
        for gone in left.tolist():
            later = came[came > gone]
            again += len(later)
            assert not len(later) or later[0] - gone >= REST_S * 10
    assert again > 0


def test_one_seed_is_one_episode_whatever_the_batch(scene):
    world = traffic(scene)
    alone, among = drive(world, [5], 150), drive(world, [11, 2, 5, 40], 150)
    assert torch.equal(alone.valid[0], among.valid[2])
    there = alone.valid[0]
    torch.testing.assert_close(alone.position_m[0][there], among.position_m[2][there], atol=2e-3, rtol=0)
    again = drive(world, [5], 150)
    assert torch.equal(alone.position_m, again.position_m)


def test_the_same_start_under_another_seed_has_another_future(scene):
    world = traffic(scene)
    states = drive(world, [5, 5 + world.count], 50)
    assert torch.equal(states.position_m[0, 0], states.position_m[1, 0])
    moved = (states.position_m[0, -1] - states.position_m[1, -1]).norm(dim=-1)
    assert moved[states.valid[:, -1].all(0)].max() > 0.3


def test_an_ego_that_brakes_to_a_stand_makes_its_followers_stand(scene):
    world = traffic(scene)
    seed = next(s for s in range(50) if 150 < float(world.reset([s]).history.position_m[0, -1, 0, 0]) < 200)
    states = drive(world, [seed], 120, acceleration=-3.0)
    x, y = states.position_m[0, 0].unbind(-1)
    behind = states.valid[0, 0] & ((y - y[0]).abs() < 1) & (x < x[0] - 1) & (x > x[0] - 65)
    beside = states.valid[0, 0] & ((y - y[0]).abs() > 3) & (x < x[0])
    assert behind.sum() == 2
    assert states.speed_mps[0, -1, behind].max() < 3
    assert states.speed_mps[0, -1, beside & states.valid[0, -1]].min() > 10


def test_who_enters_remembers_nothing_of_the_one_before_in_its_slot(scene):
    world = traffic(scene)
    world.reset([0, 1])
    world.step(controls(2))
    memory = world._memory
    vehicle = memory.scene[:, 0]
    memory = replace(memory, hidden=torch.ones_like(memory.hidden), embedded=torch.ones_like(memory.embedded))
    entry = Entry(torch.tensor([False, True]), torch.tensor([0, 7]), vehicle)
    new = admitted(memory, entry, torch.tensor([1]))
    assert (new.hidden[1, 7] == 0).all()
    assert (new.embedded[1, 7] == 0).all()
    assert not new.seen.valid[1, 7]
    torch.testing.assert_close(new.scene.position_m[1, 7], vehicle.position_m[1])
    untouched = torch.ones(2, world.slots, dtype=torch.bool)
    untouched[1, 7] = False
    assert (new.hidden[untouched] == 1).all()


def test_nobody_enters_a_lane_that_is_closed_at_its_start(scene):
    road = replace(scene.road, open_start=torch.tensor([[True, False]]))
    states = drive(traffic(replace(scene, road=road)), range(4), 100)
    entered = (states.valid[:, 1:] & ~states.valid[:, :-1]).nonzero(as_tuple=True)
    assert (states[:, 1:].position_m[entered][:, 1].round() == 0).all()
    assert len(entered[0]) > 5


def test_what_cannot_be_imagined_is_refused_in_one_line(scene, tmp_path):
    world = traffic(scene)
    world.reset([0])
    with pytest.raises(InputError, match="driver 'human': imagined traffic has no recorded ego"):
        world.step(None)
    with pytest.raises(InputError, match=r"the model steps by 0.1 s and recording 'made' by 0.2 s"):
        traffic(replace(scene, dt_s=0.2))
    with pytest.raises(InputError, match="no vehicle of 1 recordings has 20 s of history"):
        traffic(scene, history_s=20.0)
    with pytest.raises(InputError, match="at least one recording"):
        ImaginedTraffic({}, by_hand())
    with pytest.raises(InputError, match=r"imagined.duration_s: expected more than 0"):
        ImaginedTrafficConfig(duration_s=0.0)
    store = straight_store(tmp_path / "data", [Track(20, 10.0)])
    model = write_world_model(tmp_path / "wm", 0)
    assert ImaginedTraffic.open(model, store, "test").count > 0
    with pytest.raises(InputError, match="expected a split"):
        ImaginedTraffic.open(model, store, "tset")


def test_a_road_on_which_nobody_is_ahead_has_no_headways_and_still_imagines():
    world = traffic(straight_scene([Track(20, 10.0)]))
    assert drive(world, [0, 1], 30).valid[..., 0].all()
