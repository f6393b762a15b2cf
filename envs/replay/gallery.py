"""A folder of episodes as pages, with a list that leads to them."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from drivecast.envs.replay import caption
from drivecast.envs.replay.authorship import MARK
from drivecast.envs.replay.content_policy import content_policy
from drivecast.envs.replay.episode import Episode, EpisodeMetadata, Outcome
from drivecast.envs.replay.episode_file import is_other_table
from drivecast.envs.replay.page import write_page
from drivecast.envs.replay.palette import OUTCOME_COLOURS, style_sheet
from drivecast.envs.replay.template import asset, fill
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.storage.files import atomic_file

INDEX = "index.html"
_COLUMNS = ("Outcome", "Environment", "Seed", "Mean speed, m/s", "Episode")
_NUMBERS = ("Seed", "Mean speed, m/s")
_WORST_FIRST: tuple[Outcome, ...] = ("collision", "off_road", "timed_out", "completed")


def find_episodes(folder: Path) -> list[Path]:
    """The episodes in a folder and below it, in order; other tables beside them are passed over.

    Raises:
        InputError: There are none.
    """
    paths = sorted(path for path in folder.glob("**/*.parquet") if not is_other_table(path))
    if not paths:
        raise InputError(f"{folder}: no episodes (*.parquet) in this folder; give one that `drivecast evaluate` wrote")
    return paths


def page_of(episode: Path, folder: Path) -> Path:
    """Where the page of an episode of `folder` goes, below the gallery's folder."""
    return episode.relative_to(folder).with_suffix(".html")


def write_gallery(
    folder: Path, paths: Sequence[Path], output: Path, on_page: Callable[[], None] = lambda: None
) -> Path:
    """Write a page per episode of `folder` under `output`, and `index.html`; returns the latter's path."""
    rows: dict[str, list[_Row]] = {}
    for path in paths:
        episode = Episode.read(path)
        page = page_of(path, folder)
        write_page(episode, output / page)
        row = _Row(episode.metadata, page, caption.verdict(episode), float(episode.states.speed_mps[:, 0].mean()))
        rows.setdefault(row.about.driver, []).append(row)
        on_page()
    with atomic_file(output / INDEX) as temporary:
        temporary.write_text(_index(rows), encoding="utf-8")
    return output / INDEX


@dataclass(frozen=True)
class _Row:
    """What the list says of an episode."""

    about: EpisodeMetadata
    page: Path
    verdict: str
    mean_speed_mps: float

    def place(self) -> tuple[int, str, int, str]:
        """The worst first."""
        return _WORST_FIRST.index(self.about.outcome), self.about.environment, self.about.seed, self.page.as_posix()

    def text(self) -> str:
        about = self.about
        link = quote(self.page.as_posix())  # also a colon: no name of a file is a "javascript:" address
        cells = (
            f'<i class="{OUTCOME_COLOURS[about.outcome]}"></i>{html.escape(self.verdict)}',
            html.escape(caption.place(about)),
            html.escape(str(about.seed)),
            f"{self.mean_speed_mps:.1f}",
            f'<a href="{html.escape(link)}">{html.escape(self.page.with_suffix("").as_posix())}</a>',
        )
        return "<tr>" + "".join(_cell("td", *pair) for pair in zip(_COLUMNS, cells, strict=True)) + "</tr>\n"


def _index(rows: Mapping[str, Sequence[_Row]]) -> str:
    """One group per driver: policies first, the others by name."""
    drivers = sorted(rows, key=lambda driver: (not driver.startswith(("policy", "planner")), driver))
    style, script = style_sheet() + asset("index.css"), asset("index.js")
    return fill(
        asset("index.html"),
        policy=content_policy(style, script),
        mark=MARK,
        style=style,
        script=script,
        drivers=" ".join(
            f'<a href="#driver-{number}">{html.escape(driver)}</a>' for number, driver in enumerate(drivers)
        ),
        groups="\n".join(_group(number, driver, rows[driver]) for number, driver in enumerate(drivers)),
    )


def _group(number: int, driver: str, rows: Sequence[_Row]) -> str:
    ends = Counter(row.about.outcome for row in rows)
    counts = ", ".join(f"{caption.OUTCOMES[end].lower()} {ends[end]}" for end in _WORST_FIRST if ends[end])
    head = "".join(_cell("th", name, name) for name in _COLUMNS)
    body = "".join(row.text() for row in sorted(rows, key=_Row.place))
    return (
        f'<details open id="driver-{number}"><summary><h2>{html.escape(driver)}</h2> '
        f"<span>{len(rows)} episodes: {counts}</span></summary>\n"
        f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></details>"
    )


def _cell(tag: str, column: str, content: str) -> str:
    kind = "number" if column in _NUMBERS else "outcome" if column == "Outcome" else "text"
    label = f' data-label="{column}"' if tag == "td" and kind == "number" else ""
    return f'<{tag} class="{kind}"{label}>{content}</{tag}>'
