"""`drivecast replay`."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from example_episodes import highway_episode

from drivecast.envs.replay.film import FilmConfig
from drivecast.scripts.tracking.run import ConsoleRun
from drivecast.scripts.verbs.replay import ReplayConfig, run
from drivecast.worldmodel.errors import InputError


@pytest.fixture(scope="module")
def episode(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("episodes") / "idle-7.parquet"
    highway_episode(steps=6, cars=4, outcome="collision", driver="idle").write(path)
    return path


def test_a_page_is_written_beside_the_episode_by_default_and_kept_with_the_run(episode: Path, capsys) -> None:
    tracked = ConsoleRun()
    run(ReplayConfig(episode), tracked)
    page = episode.with_suffix(".html")
    assert page.read_text().startswith("<!doctype html>")
    assert tracked.artifacts == [(page, "replays")]
    assert "idle on highway-v0, seed 7. Collision with car 1 after 0.6 s" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a.mp4", "a.gif"])
def test_the_suffix_chooses_a_film(episode: Path, tmp_path: Path, name: str) -> None:
    run(ReplayConfig(episode, tmp_path / name, FilmConfig(width_px=320, speed=4)), ConsoleRun())
    start = (tmp_path / name).read_bytes()[:12]
    assert start.startswith(b"GIF89a") if name == "a.gif" else start[4:8] == b"ftyp"


@pytest.mark.parametrize("name", ["a.avi", "a"])
def test_an_unknown_suffix_is_refused_with_one_line(episode: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"expected a name ending in \.html, \.mp4 or \.gif") as error:
        run(ReplayConfig(episode, tmp_path / name), ConsoleRun())
    assert "\n" not in str(error.value)
    assert not (tmp_path / name).exists()


def test_a_folder_becomes_pages_and_a_list_of_them(tmp_path: Path) -> None:
    for seed, driver in ((1, "idle"), (2, "<b>bold</b>")):
        highway_episode(steps=4, cars=3, seed=seed, driver=driver).write(tmp_path / "in" / "kept" / f"{seed}.parquet")
    pq.write_table(pa.table({"collisions": [0]}), tmp_path / "in" / "episodes.parquet")  # a table beside them
    run(ReplayConfig(tmp_path / "in", tmp_path / "out"), ConsoleRun())
    listed = (tmp_path / "out" / "index.html").read_text()
    assert (tmp_path / "out" / "kept" / "1.html").is_file()
    assert 'href="kept/2.html"' in listed
    assert "&lt;b&gt;bold" in listed
    assert "<b>" not in listed


def test_a_broken_episode_in_a_folder_is_told_in_one_line(episode: Path, tmp_path: Path) -> None:
    (tmp_path / "half.parquet").write_bytes(episode.read_bytes()[:500])
    with pytest.raises(InputError, match=r"half\.parquet: not a whole Parquet file"):
        run(ReplayConfig(tmp_path), ConsoleRun())


def test_a_folder_without_episodes_is_refused_with_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no episodes"):
        run(ReplayConfig(tmp_path), ConsoleRun())
