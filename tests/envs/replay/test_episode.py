"""Episodes on disk."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from attending import attending
from example_episodes import highway_episode, weighing

from drivecast.envs.replay.episode import Episode, EpisodeMetadata
from drivecast.envs.replay.weighing import in_words
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.scene.traffic import Controls


@pytest.fixture(scope="module")
def episode() -> Episode:
    return highway_episode(steps=40, cars=6, outcome="collision")


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_states_controls_costs_and_road_come_back_bit_for_bit(episode: Episode, tmp_path: Path) -> None:
    episode.write(tmp_path / "a.parquet")
    again = Episode.read(tmp_path / "a.parquet")
    for record in ("states", "controls", "road"):
        for f in fields(getattr(episode, record)):
            written, read = (getattr(getattr(e, record), f.name) for e in (episode, again))
            assert read.dtype == written.dtype, f.name
            assert torch.equal(read, written), f.name
    assert again.metadata == episode.metadata
    assert list(again.costs) == list(episode.costs)
    assert all(torch.equal(again.costs[term], episode.costs[term]) for term in episode.costs)


def test_imaginations_come_back_the_futures_to_half_a_centimetre(episode: Episode, tmp_path: Path) -> None:
    episode.write(tmp_path / "a.parquet")
    again = Episode.read(tmp_path / "a.parquet")
    assert list(again.imaginations) == list(episode.imaginations)
    for step, written in episode.imaginations.items():
        read = again.imaginations[step]
        assert torch.equal(read.plan_m, written.plan_m)
        assert read.futures_m.shape == written.futures_m.shape
        assert (read.futures_m - written.futures_m).abs().max() < 0.0051
        assert all(torch.equal(read.cost[term], written.cost[term]) for term in written.cost)


def test_plans_that_were_weighed_come_back_to_half_a_centimetre(episode: Episode, tmp_path: Path) -> None:
    written = weighing(episode)
    written.write(tmp_path / "a.parquet")
    again = Episode.read(tmp_path / "a.parquet")
    for step, imagined in written.imaginations.items():
        read, wanted = again.imaginations[step].weighed, imagined.weighed
        assert read is not None
        assert wanted is not None
        assert (read.path_m - wanted.path_m).abs().max() < 0.0051
        for name in ("energy", "lanes", "brakes"):
            assert torch.equal(getattr(read, name), getattr(wanted, name)), name
        assert all(torch.equal(read.cost[term], wanted.cost[term]) for term in wanted.cost)
        assert (read.every, read.ago) == (wanted.every, wanted.ago)


def test_plans_that_do_not_fit_together_are_refused(episode: Episode) -> None:
    imagined = weighing(episode).imaginations[0]
    broken = replace(imagined, weighed=replace(imagined.weighed, lanes=imagined.weighed.lanes[:, :2]))
    with pytest.raises(ValueError, match=r"weighed plans at step 0: lanes must be of \(1, 3\)"):
        replace(episode, imaginations={0: broken})


def test_whom_a_concept_is_about_comes_back(episode: Episode, tmp_path: Path) -> None:
    written = attending(episode, 2, 4, since=10)
    untaught = replace(written.imaginations[20], attended=None)
    written = replace(written, imaginations=written.imaginations | {20: untaught})
    written.write(tmp_path / "a.parquet")
    again = {step: imagined.attended for step, imagined in Episode.read(tmp_path / "a.parquet").imaginations.items()}
    assert again.pop(20) is None
    for step, attended in again.items():
        assert attended is not None
        assert attended.dtype == torch.bool
        assert attended.tolist() == [[False, False, step >= 10, False, step >= 10, False]]


@pytest.mark.parametrize(
    "attended", [torch.ones(1, 5, dtype=torch.bool), torch.ones(6, dtype=torch.bool), torch.ones(1, 6)]
)
def test_attention_to_other_agents_than_the_episodes_is_refused(episode: Episode, attended: torch.Tensor) -> None:
    broken = replace(episode.imaginations[0], attended=attended)
    with pytest.raises(ValueError, match=r"attended at step 0 must be bool \(1, 6\); got "):
        replace(episode, imaginations={0: broken})


def test_a_file_that_attends_to_nobody_there_is_refused_with_one_line(episode: Episode, tmp_path: Path) -> None:
    attending(episode, 2).write(tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    elsewhere = pa.array([[99]] * table.num_rows, pa.list_(pa.int32()))
    place = table.column_names.index("attended")
    pq.write_table(table.set_column(place, "attended", elsewhere), tmp_path / "b.parquet")
    with pytest.raises(InputError) as error:
        Episode.read(tmp_path / "b.parquet")
    assert "damaged episode" in one_line(error)


def test_plans_are_told_in_words(episode: Episode) -> None:
    written = weighing(episode)
    weighed = written.imaginations[5].weighed
    words = in_words(weighed, written.states, written.road, 5, 0.1)
    lane = int(weighed.lanes[0, 0, 0])
    assert words == ["keep the lane", "left at 1.0 s" if lane else "keep the lane", "right now, left at 1.0 s"]
    brakes = replace(weighed, brakes=~weighed.brakes)
    assert in_words(brakes, written.states, written.road, 5, 0.1) == ["brake fully"] * 3


def test_an_imagination_may_leave_out_cost_terms_and_samples(episode: Episode, tmp_path: Path) -> None:
    full = episode.imaginations[0]
    bare = replace(full, cost={}, futures_m=full.futures_m[:, :0])
    replace(episode, imaginations={0: full, 7: bare}).write(tmp_path / "a.parquet")
    again = Episode.read(tmp_path / "a.parquet").imaginations
    assert set(again[0].cost) == set(full.cost)
    assert again[7].cost == {}
    assert again[7].futures_m.shape == bare.futures_m.shape
    replace(episode, imaginations={0: bare}).write(tmp_path / "bare.parquet")
    assert Episode.read(tmp_path / "bare.parquet").imaginations[0].cost == {}


def test_who_was_not_imagined_has_no_future_and_takes_no_space(episode: Episode, tmp_path: Path) -> None:
    full = episode.imaginations[0]
    futures = full.futures_m.clone()
    futures[:, :, :, 3:] = torch.nan
    some = replace(episode, imaginations={0: replace(full, futures_m=futures)})
    some.write(tmp_path / "some.parquet")
    again = Episode.read(tmp_path / "some.parquet").imaginations[0].futures_m
    assert torch.equal(again.isnan(), futures.isnan())
    assert (again - futures)[..., :3, :].abs().max() < 0.0051
    replace(episode, imaginations={0: full}).write(tmp_path / "full.parquet")
    assert (tmp_path / "some.parquet").stat().st_size < (tmp_path / "full.parquet").stat().st_size


def test_an_episode_of_the_first_format_is_read(episode: Episode, tmp_path: Path) -> None:
    episode.write(tmp_path / "now.parquet")
    table = pq.read_table(tmp_path / "now.parquet")
    header = json.loads(table.schema.metadata[b"drivecast.episode"]) | {"version": 1}
    earlier = table.drop_columns(["futures_agents"])
    pq.write_table(earlier.replace_schema_metadata({b"drivecast.episode": json.dumps(header)}), tmp_path / "a.parquet")
    now, then = (Episode.read(tmp_path / name).imaginations for name in ("now.parquet", "a.parquet"))
    assert all(torch.equal(now[step].futures_m, then[step].futures_m) for step in now)


@pytest.mark.parametrize(("version", "missing"), [(2, ["weighed", "attended"]), (3, ["attended"])])
def test_an_episode_of_a_format_without_some_columns_is_read(
    episode: Episode, tmp_path: Path, version: int, missing: list[str]
) -> None:
    attending(weighing(episode), 2).write(tmp_path / "now.parquet")
    table = pq.read_table(tmp_path / "now.parquet")
    header = json.loads(table.schema.metadata[b"drivecast.episode"]) | {"version": version}
    earlier = table.drop_columns(missing)
    pq.write_table(earlier.replace_schema_metadata({b"drivecast.episode": json.dumps(header)}), tmp_path / "a.parquet")
    now, then = (Episode.read(tmp_path / name).imaginations for name in ("now.parquet", "a.parquet"))
    for step in now:
        assert torch.equal(now[step].plan_m, then[step].plan_m)
        assert (then[step].weighed is None) == ("weighed" in missing)
        assert then[step].attended is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", "<script>alert(1)</script>"),
        ("seed", True),
        ("driver", 3),
        ("dt_s", float("nan")),
        ("vehicle_id", "7"),
        ("collided_with", 99),
        ("collided_with", "<b>"),
        ("at_fault", 1),
        ("desired_speed_mps", [25]),
        ("extras", []),
    ],
)
def test_a_file_with_metadata_of_another_kind_is_refused_with_one_line(
    episode: Episode, tmp_path: Path, field: str, value: object
) -> None:
    episode.write(tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    header = json.loads(table.schema.metadata[b"drivecast.episode"])
    header["metadata"][field] = value
    pq.write_table(table.replace_schema_metadata({b"drivecast.episode": json.dumps(header)}), tmp_path / "b.parquet")
    with pytest.raises(InputError) as error:
        Episode.read(tmp_path / "b.parquet")
    assert f"{field} must be" in one_line(error)


def test_an_episode_is_compact(tmp_path: Path) -> None:
    highway_episode(steps=300, cars=21, every=5, samples=8).write(tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 1_200_000


def test_an_episode_of_no_steps_can_be_kept(episode: Episode, tmp_path: Path) -> None:
    empty = Controls(*(torch.zeros(0) for _ in range(2)))
    short = replace(episode, states=episode.states[:1], controls=empty, costs={}, imaginations={})
    short.write(tmp_path / "a.parquet")
    assert Episode.read(tmp_path / "a.parquet").steps == 0


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_truncated_episode_is_refused_with_one_line(episode: Episode, tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.parquet"
    episode.write(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError) as error:
        Episode.read(path)
    assert "not a whole Parquet file" in one_line(error)


def test_foreign_parquet_is_refused_with_one_line(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x_m": [1.0]}), tmp_path / "tracks.parquet")
    with pytest.raises(InputError) as error:
        Episode.read(tmp_path / "tracks.parquet")
    assert "not an episode" in one_line(error)


def test_missing_file_is_refused_with_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        Episode.read(tmp_path / "nowhere.parquet")


def test_episode_without_one_of_its_columns_is_refused_with_one_line(episode: Episode, tmp_path: Path) -> None:
    episode.write(tmp_path / "a.parquet")
    pq.write_table(pq.read_table(tmp_path / "a.parquet").drop_columns(["speed_mps"]), tmp_path / "b.parquet")
    with pytest.raises(InputError) as error:
        Episode.read(tmp_path / "b.parquet")
    assert "speed_mps" in one_line(error)


def test_failed_write_leaves_nothing_behind(episode: Episode, tmp_path: Path) -> None:
    unwritable = replace(episode, metadata=replace(episode.metadata, extras={"driver": object()}))
    with pytest.raises(TypeError):
        unwritable.write(tmp_path / "a.parquet")
    assert list(tmp_path.iterdir()) == []


def test_shapes_that_disagree_are_refused(episode: Episode) -> None:
    with pytest.raises(ValueError, match="one per step"):
        replace(episode, states=episode.states[:-1])
    with pytest.raises(ValueError, match="imagination at step 999"):
        replace(episode, imaginations={999: episode.imaginations[0]})


def test_unknown_outcome_is_refused() -> None:
    with pytest.raises(ValueError, match="outcome must be one of"):
        EpisodeMetadata(driver="idle", environment="recorded", seed=0, dt_s=0.1, outcome="won")  # type: ignore[arg-type]
