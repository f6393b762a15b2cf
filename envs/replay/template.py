"""Pages from the templates beside this file."""

from __future__ import annotations

import re
from importlib.resources import files

_PLACE = re.compile(r"\{\{(\w+)\}\}")


def asset(name: str) -> str:
    """The text of a file of `assets`."""
    return (files("drivecast.envs.replay") / "assets" / name).read_text("utf-8")


def fill(template: str, **parts: str) -> str:
    """The template with each `{{name}}` replaced by that part, all at once: what a part contains is not looked at."""
    return _PLACE.sub(lambda place: parts[place[1]], template)
