"""The commands that the documentation names exist, and the command line accepts them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from scripts.command_line import parse
from scripts.verbs import VERBS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("**/*.md")])


def shell_lines(page: Path) -> list[str]:
    """Lines of the shell blocks of a page, continued lines joined, without prompts and comments."""
    blocks = re.findall(r"^```(?:bash|sh|shell|console)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    joined = "\n".join(blocks).replace("\\\n", " ")
    return [line.strip().removeprefix("$ ") for line in joined.splitlines() if line.strip()]


def drivecast_commands() -> list[tuple[str, list[str]]]:
    found = []
    for page in PAGES:
        for line in shell_lines(page):
            words = shlex.split(line, comments=True)
            names = [index for index, word in enumerate(words) if Path(word).name == "drivecast"]
            if names and len(words) > names[0] + 1 and words[names[0] + 1] in VERBS:
                found.append((page.name, words[names[0] + 1 :]))
    return found


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
