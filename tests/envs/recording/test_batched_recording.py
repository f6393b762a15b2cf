"""Episodes recorded in the batched simulator are those recorded in highway-env itself."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from drivecast.envs.recording import batched_egos as egos
from drivecast.envs.recording import cast as recording_cast
from drivecast.envs.recording.batched_episodes import PART_EPISODES, parts_of, record_part
from drivecast.envs.recording.cast import BEHAVIOURS, RecordingPlan, draw_cast, draw_setting
from drivecast.envs.recording.recorder import processes_for, record_episodes, simulator_of
from drivecast.worldmodel.rules.driver_parameters import DriverParameters

RANGES = {"density": (0.8, 1.5), "speed_scale": (0.8, 1.2), "desired_speed_mps": (15.0, 32.0)}


def plan_of(environment="highway-v0", **values) -> RecordingPlan:
    usual = {"seed": 0, "duration_s": 4.0, "vehicles": (4, 12), "lanes": (2, 4), **RANGES}
    return RecordingPlan(environment, **{**usual, **values})


def differences(plan: RecordingPlan, episodes: int) -> tuple[list[str], Counter]:
    """What differs by more than 1e-6 between the two, and how often each behaviour ended how."""
    batched = {episode.index: episode for episode in record_episodes(plan, episodes, "batched")}
    found, seen = [], Counter()
    for theirs in record_episodes(plan, episodes, "highway-env"):
        ours = batched[theirs.index]
        seen[theirs.behaviour, theirs.ended] += 1
        assert ours.name == theirs.name
        if (ours.behaviour, ours.ended) != (theirs.behaviour, theirs.ended):
            found.append(f"{theirs.name}: {ours.behaviour}, {ours.ended}; {theirs.behaviour}, {theirs.ended}")
            continue
        for lane, other in zip(ours.lanes, theirs.lanes, strict=True):
            assert lane.segments == other.segments
        for name, values in {**theirs.tracks, "controls": theirs.controls}.items():
            mine = {**ours.tracks, "controls": ours.controls}[name]
            if values.dtype.kind == "U":
                same = mine.tolist() == values.tolist()
            else:
                same = mine.shape == values.shape and bool(np.abs(mine - values).max() <= 1e-6)
            if not same:
                found.append(f"{theirs.name} ({theirs.behaviour}): {name}")
    return found, seen


@pytest.mark.parametrize(
    ("environment", "episodes", "values"),
    [
        ("highway-v0", 11, {"seed": 16, "duration_s": 8.0}),
        ("highway-v0", 6, {"seed": 5, "lanes": (1, 1), "vehicles": (0, 3)}),
        ("highway-fast-v0", 6, {"seed": 1}),
        ("merge-v0", 6, {"seed": 2}),
        ("merge-v1", 11, {"seed": 18, "duration_s": 12.0}),
        ("merge-generic-v1", 5, {"seed": 3, "duration_s": 7.0}),
        ("highway-v0", 4, {"seed": 4, "behaviour": "bully"}),
    ],
)
def test_both_simulators_record_the_same_episodes(environment, episodes, values):
    found, seen = differences(plan_of(environment, **values), episodes)
    assert found == []
    if episodes == 11:  # these are chosen to have everything
        assert {behaviour for behaviour, _ in seen} == {name for name, share in BEHAVIOURS.items() if share}
        assert len({ended for _, ended in seen}) > 1


def test_the_comparison_notices_drivers_that_are_a_little_different(monkeypatch):
    def hasty(**own):
        return DriverParameters(**(own | {"time_gap_s": own["time_gap_s"] - 1e-3}))

    monkeypatch.setattr(egos, "DriverParameters", hasty)
    found, _ = differences(plan_of(duration_s=1.0), 3)
    assert found


def test_the_comparison_notices_drivers_that_are_not_polite(monkeypatch):
    monkeypatch.setitem(recording_cast.VARIED_PARAMETERS, "politeness", (2.0, 3.0))
    monkeypatch.setattr(DriverParameters, "polite", property(lambda _: False))
    found, _ = differences(plan_of(vehicles=(12, 12), duration_s=3.0), 6)
    assert found


def test_an_episode_is_the_same_in_whichever_company_it_runs():
    plan = plan_of(duration_s=3.0, lanes=(3, 3))
    alone, together = record_part(plan, [4])[0], record_part(plan, range(9))[4]
    assert alone.index == together.index == 4
    np.testing.assert_array_equal(alone.controls, together.controls)
    for name, values in alone.tracks.items():
        np.testing.assert_array_equal(values, together.tracks[name])


def test_parts_have_one_road_each_and_hold_every_episode_once():
    plan = plan_of()
    parts = parts_of(plan, 600)
    assert sorted(index for part in parts for index in part) == list(range(600))
    assert max(len(part) for part in parts) <= PART_EPISODES
    for part in parts:
        lanes = {draw_setting(plan, np.random.default_rng([plan.seed, i])).scenario.lanes for i in part}
        assert len(lanes) == 1


def test_a_process_is_started_only_where_it_is_worth_it():
    assert processes_for(plan_of(), 4, "highway-env", 8) == 4
    assert processes_for(plan_of(), 100, "batched", 8) == 1
    assert processes_for(plan_of(), 3000, "batched", 2) == 2


@pytest.mark.parametrize(
    ("environment", "wanted", "simulator"),
    [
        ("highway-v0", "batched", "batched"),
        ("merge-generic-v0", "batched", "batched"),
        ("highway-v0", "highway-env", "highway-env"),
        ("exit-v0", "batched", "highway-env"),
        ("roundabout-v1", "batched", "highway-env"),
    ],
)
def test_roads_that_the_batched_simulator_does_not_have_are_highway_envs(environment, wanted, simulator):
    assert simulator_of(environment, wanted) == simulator


def test_nobody_drives_backwards():
    episodes = record_part(plan_of(vehicles=(12, 12), lanes=(2, 2), density=(2.0, 2.0), duration_s=8.0), range(12))
    assert min(episode.tracks["speed_mps"].min() for episode in episodes) > -1e-9


def test_braking_for_no_reason_is_hard_and_lasts_half_a_second_to_two():
    casts = [
        draw_cast(plan_of(duration_s=60.0), "sudden-braking", 3, np.random.default_rng(seed)) for seed in range(20)
    ]
    lengths = []
    for cast in casts:
        braking = cast.whims.braking_mps2
        assert ((braking == 0) | (braking >= 3.0) & (braking <= 8.0)).all()
        edges = np.flatnonzero(np.diff(braking, prepend=0.0, append=0.0))
        lengths += np.diff(edges)[braking[edges[:-1]] > 0].tolist()
    assert len(lengths) > 100
    assert min(lengths) >= 5
    assert max(lengths) <= 20


def test_a_wandering_ego_wanders_as_far_and_as_slowly_as_it_says():
    cast = draw_cast(plan_of(duration_s=5000.0), "noise", 3, np.random.default_rng(0))
    for values, spread, time_s in ((cast.whims.acceleration_mps2, 1.2, 1.5), (cast.whims.steering_rad, 0.006, 0.5)):
        assert np.std(values) == pytest.approx(spread, rel=0.1)
        kept = np.corrcoef(values[:-1], values[1:])[0, 1]
        assert kept == pytest.approx(np.exp(-0.1 / time_s), abs=0.01)


def test_only_those_who_roam_or_brake_or_wander_have_whims():
    for behaviour in ("idm", "idm-any-speed", "tailgater"):
        whims = draw_cast(plan_of(), behaviour, 3, np.random.default_rng(0)).whims
        assert not whims.roams.any()
        assert not whims.braking_mps2.any()
        assert not whims.acceleration_mps2.any()
        assert not whims.steering_rad.any()
