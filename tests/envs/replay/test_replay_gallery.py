"""The list of replays and what its pages may do, without a browser."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest
from example_episodes import highway_episode

from drivecast.envs.replay.episode import Episode
from drivecast.envs.replay.gallery import find_episodes, write_gallery
from drivecast.envs.replay.page import page
from drivecast.envs.replay.template import fill


def index_of(folder: Path, **files: Episode) -> str:
    for name, episode in files.items():
        episode.write(folder / "in" / f"{name}.parquet")
    return write_gallery(folder / "in", find_episodes(folder / "in"), folder / "out").read_text(encoding="utf-8")


def test_policies_come_first_and_crashes_first_within_a_driver(tmp_path: Path) -> None:
    drives = [("idle", 1, "collision"), ("idle", 2, "completed"), ("constant-velocity", 3, "off_road")]
    drives += [("policy:b", 4, "completed"), ("policy:b", 6, "timed_out"), ("policy:b", 5, "collision")]
    drives += [("policy:a", 8, "completed"), ("policy:a", 7, "completed")]
    text = index_of(
        tmp_path,
        **{
            f"e{seed}": highway_episode(steps=3, cars=3, seed=seed, driver=driver, outcome=outcome)
            for driver, seed, outcome in drives
        },
    )
    assert [int(seed) for seed in re.findall(r'href="e(\d)\.html"', text)] == [7, 8, 5, 6, 4, 3, 1, 2]
    assert re.findall(r"<h2>(.*?)</h2>", text) == ["policy:a", "policy:b", "constant-velocity", "idle"]
    assert "<span>3 episodes: collision 1, time ran out 1, completed 1</span>" in text


def test_no_field_of_an_episode_is_markup_in_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crafted file is refused when it is read; were it not, it would still be text."""
    name = "<script>alert(1)</script>"
    episode = highway_episode(steps=3, cars=3, driver=name)
    about = replace(episode.metadata, environment=name, recording=name, vehicle_id=3)
    object.__setattr__(about, "seed", name)
    crafted = replace(episode, metadata=about)
    (tmp_path / "in").mkdir()
    highway_episode(steps=3, cars=3).write(tmp_path / "in" / "<img src=x>.parquet")
    monkeypatch.setattr(Episode, "read", lambda path: crafted)
    paths = find_episodes(tmp_path / "in")
    text = write_gallery(tmp_path / "in", paths, tmp_path / "out").read_text(encoding="utf-8")
    assert text.count("<script>") == 1
    assert "<img" not in text
    assert text.count("&lt;script&gt;alert(1)") >= 4


def test_a_file_name_is_no_script_address(tmp_path: Path) -> None:
    text = index_of(tmp_path, **{"javascript:alert(1)#": highway_episode(steps=3, cars=3)})
    assert 'href="javascript%3Aalert%281%29%23.html"' in text


def test_pages_allow_their_own_script_and_style_by_hash_and_nothing_else(tmp_path: Path) -> None:
    episode = highway_episode(steps=3, cars=3)
    for text in (page(episode), index_of(tmp_path, a=episode)):
        (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
        rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
        for kind, tag in (("script-src", "script"), ("style-src", "style")):
            (own,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
            digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
            assert rules.pop(kind) == f"'sha256-{digest}'"
        assert rules == {"default-src": "'none'", "img-src": "data:", "base-uri": "'none'", "form-action": "'none'"}
        assert " style=" not in text
        assert text.index("Content-Security-Policy") < text.index("<style>")


def test_what_a_part_contains_is_not_filled_in() -> None:
    assert fill("{{a}}-{{b}}", a="{{b}}", b="{{a}}") == "{{b}}-{{a}}"
