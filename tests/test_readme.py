"""What the documentation shows works: its commands are accepted, its Python runs, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
from traffic_scenes import platoon_store

from drivecast.scripts.command.parsing import parse
from drivecast.scripts.command.verb import VERBS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("**/*.md")])


FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
SHELLS = ("bash", "sh", "shell", "console")
README_LINES = 150


def shell_lines(page: Path) -> list[str]:
    """Commands of the shell blocks of a page, fenced or indented; continued lines joined, without prompts."""
    text = page.read_text(encoding="utf-8")
    blocks = [block for language, block in FENCED.findall(text) if language in SHELLS]
    blocks += re.findall(r"(?:^ {4,}.*\n)+", FENCED.sub("", text), re.M)
    joined = "\n".join(blocks).replace("\\\n", " ")
    return [line.strip().removeprefix("$ ") for line in joined.splitlines() if line.strip()]


def python_blocks(page: Path) -> list[str]:
    return [block for language, block in FENCED.findall(page.read_text(encoding="utf-8")) if language == "python"]


def drivecast_commands() -> list[tuple[str, list[str]]]:
    found = []
    for page in PAGES:
        for line in shell_lines(page):
            words = _words(line)
            names = [index for index, word in enumerate(words) if Path(word).name == "drivecast"]
            if names and len(words) > names[0] + 1 and words[names[0] + 1] in VERBS:
                found.append((page.name, words[names[0] + 1 :]))
    return found


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError:  # an indented line that is no command
        return []


COMMANDS = drivecast_commands()


@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=[f"{page}-{words[0]}" for page, words in COMMANDS])
def test_documented_commands_are_accepted(page, words, monkeypatch):
    monkeypatch.chdir(ROOT)  # presets are named as configs/...
    verb = VERBS[words[0]]
    _, config_class = verb.load()
    if {"--help", "-h", "--print-config", "--print_config"} & set(words):
        with pytest.raises(SystemExit) as ended:
            parse(verb, config_class, words[1:])
        assert ended.value.code == 0
    else:
        parse(verb, config_class, words[1:])


def test_indented_commands_are_seen_as_well_as_fenced_ones():
    assert {"benchmark.md", "evaluation.md", "oracle.md", "baselines.md", "replay.md"} <= {page for page, _ in COMMANDS}
    recorded = next(words for page, words in COMMANDS if page == "evaluation.md")
    assert recorded[-2:] == ["--output", "OUT"]  # of the line that it goes on in


@pytest.fixture(scope="module")
def with_recordings(tmp_path_factory) -> Path:
    """A folder with small stores in the places where snippets look for recorded traffic."""
    folder = tmp_path_factory.mktemp("snippets")
    (folder / "data").mkdir()
    for name in ("mine", "us101"):
        platoon_store(folder / "data" / name)
    return folder


@pytest.mark.parametrize("page", [page for page in PAGES if python_blocks(page)], ids=lambda page: page.name)
def test_python_in_the_documentation_runs(page, with_recordings, monkeypatch):
    monkeypatch.chdir(with_recordings)
    names: dict[str, object] = {}  # a snippet may go on from the one before it
    for block in python_blocks(page):
        if "data/" in block:
            assert block.startswith("# needs recorded traffic in data/"), "say that the snippet needs data"
        if "stable_baselines3" in block and find_spec("stable_baselines3") is None:
            continue
        exec(compile(block, page.name, "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_are_spelt_with_dashes(page):
    assert not re.findall(r"(?<![\w-])--[a-z][a-z.-]*_[\w.]*", page.read_text(encoding="utf-8"))


def test_options_in_what_the_program_says_are_spelt_with_dashes():
    """But for the one place that hands them to jsonargparse."""
    files = [file for room in ("envs", "planner", "scripts", "worldmodel") for file in (ROOT / room).rglob("*.py")]
    found = {
        (file.name, option)
        for file in files
        for option in re.findall(r"(?<![\w-])--[a-z][a-z.-]*_[\w.]*", file.read_text(encoding="utf-8"))
    }
    assert found == {("parsing.py", "--print_config")}


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


def test_readme_shows_the_two_commands_and_the_four_jobs():
    lines = shell_lines(ROOT / "README.md")
    verbs = {words[0] for page, words in COMMANDS if page == "README.md"}
    assert any(line.startswith("make demo") for line in lines)
    assert any(line.startswith("make test") for line in lines)
    assert {"train-world-model", "train-policy", "evaluate", "replay"} <= verbs


def test_documented_make_targets_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {target for page in PAGES for line in shell_lines(page) for target in re.findall(r"^make ([\w-]+)", line)}
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_local_links_and_pictures_exist(page):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing
