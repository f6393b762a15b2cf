"""The closed loop: what is measured, what is kept, and what drivers are shown."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from recorded_scenes import Track, straight_scene

from drivecast.envs.batched.traffic import BatchedHighwayTraffic
from drivecast.envs.drivers import ConstantVelocityDriver, HumanDriver, IdleDriver, IDMDriver
from drivecast.envs.evaluation.closed_loop import IMAGINED_AGENTS, ClosedLoopConfig, run_episodes
from drivecast.envs.evaluation.metrics import DriveLog
from drivecast.envs.evaluation.results import compare, summarise
from drivecast.envs.highway.traffic import HighwayTraffic
from drivecast.envs.lockstep import LockstepStep
from drivecast.envs.recorded.traffic import RecordedTraffic
from drivecast.envs.replay.episode import Episode
from drivecast.envs.replay.readings import Readings
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.contact import ego_separation_m, nearest_contact
from drivecast.worldmodel.scene.driver import Imagination
from drivecast.worldmodel.scene.road import Road
from drivecast.worldmodel.scene.traffic import Controls, TrafficState

PLATOON = [Track(x_m=20 + 30 * i, speed_mps=20 - 4 * i, last=100) for i in range(3)]  # closing in on each other
SPREAD = [Track(x_m=20 + 60 * i, speed_mps=10, lane=i % 2, last=80 + i) for i in range(6)]


def traffic(tracks=SPREAD, frames: int = 200) -> RecordedTraffic:
    return RecordedTraffic({"made": straight_scene(tracks, frames)})


class Watching(IdleDriver):
    """Notes what it is shown."""

    history_steps = 4

    def __init__(self) -> None:
        self.seen = []

    def act(self, history, road, goal):
        self.seen.append(history)
        return super().act(history, road, goal)


class Dreaming(IdleDriver):
    """Imagines the same cost for every step to come."""

    history_steps = 2
    cost = 3.0

    def imagine(self, history, road, goal):
        batch, _, agents = history.valid.shape
        plan = history.position_m[:, -1:, 0].expand(batch, 5, 2)
        cost = {"effort": torch.full((batch, 5), self.cost), "unknown": torch.full((batch, 5), 100.0)}
        return Imagination(plan, torch.zeros(batch, 2, 5, agents, 2), cost)


def effort(states, controls, road, goal):
    """Two for each step."""
    assert states.valid.shape[1] == controls.steering_rad.shape[1] + 1
    return {"effort": torch.full_like(controls.steering_rad, 2.0)}


def test_table_has_one_row_per_seed_in_order():
    world = traffic()
    result = run_episodes(world, HumanDriver(), range(world.count), ClosedLoopConfig(batch=4, keep="none"))
    assert result.table["seed"].tolist() == list(range(6))
    assert (result.table["outcome"] == "completed").all()
    assert result.table["mean_speed_mps"].to_numpy() == pytest.approx(10)
    assert result.table["distance_m"].to_numpy() == pytest.approx(result.table["duration_s"].to_numpy() * 10, rel=1e-5)
    assert not result.episodes


def test_batch_size_changes_nothing():
    world = traffic(PLATOON)
    tables = [run_episodes(world, IDMDriver(), range(3), ClosedLoopConfig(batch=size)).table for size in (1, 3)]
    for column in tables[0].columns:
        one, three = (table[column].to_numpy() for table in tables)
        if one.dtype.kind == "f":
            np.testing.assert_allclose(one, three, rtol=1e-5)
        else:
            assert (one == three).all()


def test_drivers_see_the_recorded_past_first_and_then_their_own():
    driver = Watching()
    run_episodes(traffic(SPREAD[:1]), driver, [0])
    lengths = [history.valid.shape[1] for history in driver.seen]
    assert set(lengths) == {4}
    first, later = driver.seen[0], driver.seen[5]
    assert first.position_m[0, :, 0, 0].tolist() == pytest.approx([27, 28, 29, 30])
    assert later.position_m[0, :, 0, 0].tolist() == pytest.approx([32, 33, 34, 35])


def test_rear_end_by_the_ego_is_its_fault_and_being_hit_is_not():
    world = traffic(PLATOON)
    crash = run_episodes(world, ConstantVelocityDriver(), range(3)).table.set_index("vehicle_id")
    assert crash.loc[1, ["outcome", "contact", "at_fault"]].tolist() == ["collision", "front", True]
    assert crash.loc[3, ["outcome", "contact", "at_fault"]].tolist() == ["collision", "rear", False]
    assert crash.loc[1, "min_ttc_s"] < 0.1
    assert crash.loc[1, "short_ttc_share"] == pytest.approx(10 / 54, abs=0.05)


def test_headway_is_front_to_front_over_speed():
    tracks = [Track(x_m=20, speed_mps=10, last=90), Track(x_m=50, speed_mps=10, length_m=9.0)]
    table = run_episodes(traffic(tracks), HumanDriver(), range(2)).table.set_index("vehicle_id")
    assert table.loc[1, "time_headway_s"] == pytest.approx((30 + 2) / 10)
    assert np.isnan(table.loc[2, "time_headway_s"])


def test_a_replay_reads_the_headway_and_the_time_to_collision_of_the_results():
    tracks = [Track(x_m=20 + 25 * i, speed_mps=12 + 3 * (i % 3), lane=i % 2, last=90) for i in range(30)]
    result = run_episodes(traffic(tracks), IDMDriver(), range(8), ClosedLoopConfig(keep="all"))
    assert result.table["time_headway_s"].notna().any()
    assert np.isfinite(result.table["min_ttc_s"]).any()
    for episode, (_, row) in zip(result.episodes, result.table.iterrows(), strict=True):
        read = Readings.of(episode)
        known = read.time_to_collision_s[np.isfinite(read.time_to_collision_s)]
        assert known.min(initial=np.inf) == pytest.approx(row["min_ttc_s"], rel=1e-5)
        headway = np.nanmedian(read.headway_s) if np.isfinite(read.headway_s).any() else np.nan
        assert headway == pytest.approx(row["time_headway_s"], rel=1e-5, nan_ok=True)
        following = read.leader >= 0
        assert (following == np.isfinite(read.gap_m)).all()
        assert episode.states.valid.numpy()[np.flatnonzero(following), read.leader[following]].all()


def test_harsh_braking_is_uncomfortable_and_cruising_is_not():
    class Braking(IdleDriver):
        def act(self, history, road, goal):
            nothing = torch.zeros_like(history.speed_mps[:, -1, 0])
            return Controls(nothing - 6.0, nothing)

    world = traffic(SPREAD[:1])
    calm = summarise(run_episodes(world, IdleDriver(), [0]).table, "idle", "made")
    harsh = summarise(run_episodes(world, Braking(), [0]).table, "braking", "made")
    assert calm["uncomfortable_rate"] == 0.0
    assert harsh["uncomfortable_rates"]["longitudinal_acceleration"] == 1.0
    assert harsh["uncomfortable_rates"]["lateral_acceleration"] == 0.0


@pytest.mark.parametrize(("keep", "kept"), [("none", 0), ("sample", 2), ("crashes", 2), ("all", 3)])
def test_kept_episodes(keep, kept):
    config = ClosedLoopConfig(keep=keep, keep_at_most=2 if keep == "crashes" else 1)
    result = run_episodes(traffic(PLATOON), IdleDriver(), range(3), config, config_hash="abc")
    assert len(result.episodes) == kept
    if keep == "crashes":
        assert {episode.metadata.outcome for episode in result.episodes} == {"collision"}


def test_kept_episode_begins_at_the_start_and_ends_with_the_event(tmp_path):
    result = run_episodes(traffic(PLATOON), IdleDriver(), range(3), ClosedLoopConfig(keep="all"), config_hash="abc")
    for episode, (_, row) in zip(result.episodes, result.table.iterrows(), strict=True):
        assert episode.duration_s == pytest.approx(row["duration_s"])
        assert episode.metadata.vehicle_id == row["vehicle_id"]
        assert (episode.metadata.collided_with is not None) == (row["outcome"] == "collision")
        episode.write(tmp_path / "episode.parquet")
        assert Episode.read(tmp_path / "episode.parquet").metadata == episode.metadata


def test_only_those_who_were_imagined_have_futures():
    tracks = [Track(x_m=20 + 12 * i, speed_mps=10, lane=i % 2, last=60) for i in range(30)]
    driver = Dreaming()
    episode = run_episodes(traffic(tracks), driver, [0], ClosedLoopConfig(keep="all")).episodes[0]
    futures = episode.imaginations[0].futures_m[0]
    imagined = futures.isfinite().all(-1).all(0).all(0)
    assert imagined.sum() == IMAGINED_AGENTS < 30
    assert torch.equal(imagined, ~futures.isnan().any(-1).any(0).any(0))
    distance = (episode.states.position_m[0] - episode.states.position_m[0, 0]).norm(dim=-1)
    assert distance[imagined].max() <= distance[~imagined].min()


def test_imagined_cost_is_compared_with_what_came_about_term_by_term():
    config = ClosedLoopConfig(keep="all", imagine_every_s=1.0)
    result = run_episodes(traffic(), Dreaming(), range(6), config, score=effort)
    assert result.table["cost_effort"].to_numpy() == pytest.approx(2.0)
    assert result.table["imagined_cost"].to_numpy() == pytest.approx(3.0)  # the term "unknown" never comes about
    assert result.table["realised_cost"].to_numpy() == pytest.approx(2.0)
    summary = summarise(result.table, "dreaming", "made")
    assert summary["imagined_minus_realised"]["mean"] == pytest.approx(1.0)
    episode = result.episodes[0]
    assert sorted(episode.imaginations) == list(range(0, episode.steps, 10))
    assert episode.costs["effort"].shape == (episode.steps,)


def test_controls_that_are_not_finite_stop_the_evaluation_in_one_line():
    class Broken(IdleDriver):
        name = "broken"

        def act(self, history, road, goal):
            return Controls(torch.full_like(history.speed_mps[:, -1, 0], torch.nan), history.speed_mps[:, -1, 0])

    with pytest.raises(InputError, match="driver 'broken': its controls are not finite at step 0"):
        run_episodes(traffic(), Broken(), [0])


def test_summary_is_json_and_pairs_are_by_seed():
    world = traffic(PLATOON)
    tables = {
        driver.name: run_episodes(world, driver, range(3)).table for driver in (HumanDriver(), ConstantVelocityDriver())
    }
    summary = summarise(tables["constant-velocity"], "constant-velocity", "made")
    json.dumps(summary, allow_nan=False)
    assert summary["collision_rate"] == pytest.approx((tables["constant-velocity"]["outcome"] == "collision").mean())
    assert summary["collision_low"] < summary["collision_rate"] < summary["collision_high"] or (
        summary["collision_rate"] == 1.0
    )
    assert summary["mean_speed_mps"] == pytest.approx(summary["distance_m"] / summary["duration_s"])
    shuffled = {name: table.sample(frac=1.0, random_state=1) for name, table in tables.items()}
    assert compare(shuffled) == compare(tables)
    pair = compare(tables)["constant-velocity"]["human"]
    assert pair["speed_difference_mps"] == pytest.approx(
        (tables["constant-velocity"]["mean_speed_mps"] - tables["human"]["mean_speed_mps"]).mean()
    )


def test_unknown_keep_is_refused():
    with pytest.raises(InputError, match="keep: expected one of"):
        ClosedLoopConfig(keep="some")


@pytest.mark.parametrize("simulator", [BatchedHighwayTraffic, HighwayTraffic])
def test_a_rear_end_is_judged_before_highway_env_pushes_the_cars_apart(simulator):
    """In these episodes the pushed cars stand bumper to bumper, no longer one in the other."""
    world = simulator("highway-v0", vehicles=50, lanes=4, density=1.5)
    seeds = [3_100_000_022, 3_100_000_047, 3_100_000_061]
    result = run_episodes(world, IdleDriver(), seeds, ClosedLoopConfig(keep="all"))
    assert result.table["contact"].tolist() == ["front"] * 3
    assert result.table["at_fault"].all()
    assert (result.table["min_ttc_s"] == 0).all()
    for episode in result.episodes:  # and that is what a replay shows
        last = episode.states[-1:]
        assert int(nearest_contact(last)) == episode.metadata.collided_with
        assert float(ego_separation_m(last).min()) < 0


def test_an_impact_is_taken_back_from_the_scene_that_is_judged_and_left_in_the_state():
    batched, other = (
        make("highway-v0", vehicles=50, lanes=4, density=1.5) for make in (BatchedHighwayTraffic, HighwayTraffic)
    )
    for world in (batched, other):
        world.reset([3_100_000_022])
    nothing = Controls(torch.zeros(1), torch.zeros(1))
    for _ in range(14):
        steps = [world.step(nothing) for world in (batched, other)]
    assert all(bool(step.collided) for step in steps)
    moved = [step.state.position_m - step.scene.position_m for step in steps]
    assert float(moved[0].norm(dim=-1).max()) > 0.1
    torch.testing.assert_close(moved[0], moved[1], atol=1e-4, rtol=0)
    torch.testing.assert_close(steps[0].scene.position_m, steps[1].scene.position_m, atol=1e-4, rtol=0)


class Steady(IdleDriver):
    """Always accelerates alike."""

    def __init__(self, acceleration_mps2: float) -> None:
        self.acceleration_mps2 = acceleration_mps2

    def act(self, history, road, goal):
        nothing = torch.zeros_like(history.speed_mps[:, -1, 0])
        return Controls(nothing + self.acceleration_mps2, nothing)


def test_contacts_are_split_into_front_side_and_rear():
    summary = summarise(run_episodes(traffic(PLATOON), ConstantVelocityDriver(), range(3)).table, "cv", "made")
    shares = [summary[f"{part}_rate"] for part in ("front", "side", "rear")]
    assert sum(shares) == pytest.approx(summary["collision_rate"])
    assert shares[0] > 0
    assert shares[2] > 0
    assert summary["front_low"] <= summary["front_rate"] <= summary["front_high"]


def test_contact_with_a_standing_vehicle_counts_where_it_touched():
    tracks = [Track(x_m=20, speed_mps=10, last=90), Track(x_m=80, speed_mps=0.0)]
    table = run_episodes(traffic(tracks), ConstantVelocityDriver(), range(1)).table
    assert table.loc[0, ["contact", "contact_part"]].tolist() == ["standing_other", "front"]
    stopped = run_episodes(traffic([tracks[0], Track(x_m=0, speed_mps=10)]), Steady(-8.0), range(2)).table
    hit = stopped[stopped["contact"] == "standing_ego"]
    assert hit["contact_part"].tolist() == ["rear"]


def test_progress_to_human_is_one_for_the_human_and_more_for_who_is_faster():
    world = traffic(SPREAD[:1])
    human, slower, faster = (
        run_episodes(world, driver, [0]).table.loc[0, "progress_to_human"]
        for driver in (HumanDriver(), Steady(-0.5), Steady(0.5))
    )
    assert human == pytest.approx(1.0)
    assert slower == pytest.approx((10 - 0.25 * 7) / 10, abs=0.02)  # at the human's goal, 7 s on
    assert 1.05 < faster < 1.5


def test_being_run_into_does_not_excuse_slowness():
    # a follower drives through the one that brakes: not its fault, and not for its benefit
    tracks = [Track(x_m=40, speed_mps=10, last=80), Track(x_m=20, speed_mps=10)]
    table = run_episodes(traffic(tracks), Steady(-3.0), range(2)).table.set_index("vehicle_id")
    hit = table.loc[1]
    assert (hit["outcome"], bool(hit["at_fault"])) == ("collision", False)
    assert hit["progress_to_human"] == pytest.approx(hit["progress"])  # as if it stood from then on
    summary = summarise(table.reset_index().iloc[:1], "braking", "made")
    ends = summary["progress_to_human_by_end"]
    assert set(ends) == {"unharmed", "at_fault", "not_at_fault"}


@pytest.mark.parametrize(("over_m", "fault"), [(0.2, False), (0.5, True)])
def test_a_contact_at_the_side_is_no_fault_of_who_reaches_a_little_over_the_marking(over_m, fault):
    """Wide cars on narrow lanes do: 0.3 m are allowed."""
    road, dt_s = Road.straight(2, lane_width_m=3.2), 0.5
    ego, other = (0.0, -0.6 - over_m), (-1.0, -2.5 - over_m)
    boxes = torch.full((1, 2), 2.0)
    state = TrafficState(
        torch.tensor([[ego, other]]), torch.zeros(1, 2), 10 + 0 * boxes, 2.5 * boxes, boxes, torch.ones(1, 2).bool()
    )
    log, no, yes = DriveLog(state, road, dt_s), torch.tensor([False]), torch.tensor([True])
    nothing = Controls(torch.zeros(1), torch.zeros(1))
    for collided in (no, no, no, no, yes):
        log.add(LockstepStep(state, nothing, collided, no, no, no))
    assert log.table().loc[0, ["contact", "at_fault"]].tolist() == ["side", fault]
