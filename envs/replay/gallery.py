"""A folder of episodes as pages, with a list that leads to them."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from pathlib import Path

from envs.episode import Episode
from envs.episode_file import is_other_table
from envs.replay import caption
from envs.replay.authorship import MARK
from envs.replay.page import write_page
from envs.replay.palette import OUTCOME_COLOURS, style_sheet
from worldmodel.errors import InputError
from worldmodel.files import atomic_file

_STYLE = """
body { margin: 24px auto; max-width: 1240px; padding: 0 16px; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; width: 100%; background: var(--panel); }
th, td { text-align: left; white-space: nowrap; padding: 6px 12px; border-bottom: 1px solid var(--line); }
td.number, th.number { text-align: right; }
a { color: var(--accent); }
i { display: inline-block; width: 10px; height: 10px; border-radius: 5px; margin-right: 8px; }
"""
INDEX = "index.html"
_COLUMNS = ("Episode", "Driver", "Environment", "Seed", "Outcome", "Mean speed, m/s")


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
    rows = []
    for path in paths:
        episode = Episode.read(path)
        page = page_of(path, folder)
        write_page(episode, output / page)
        rows.append(_row(episode, page))
        on_page()
    head = "".join(f"<th{_number(name)}>{name}</th>" for name in _COLUMNS)
    text = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Replays</title>'
        f'<meta name="generator" content="{MARK}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<style>{style_sheet()}{_STYLE}</style></head>\n<body><h1>Replays</h1>\n"
        f"<table><thead><tr>{head}</tr></thead><tbody>\n{''.join(rows)}</tbody></table></body></html>\n"
    )
    with atomic_file(output / INDEX) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return output / INDEX


def _row(episode: Episode, page: Path) -> str:
    about = episode.metadata
    link = f'<a href="{html.escape("/".join(page.parts), quote=True)}">{html.escape(str(page.with_suffix("")))}</a>'
    mark = f'<i style="background: var(--{OUTCOME_COLOURS[about.outcome]})"></i>'
    speed = f"{float(episode.states.speed_mps[:, 0].mean()):.1f}"
    cells = [link, html.escape(about.driver), html.escape(about.environment), str(about.seed)]
    cells += [mark + html.escape(caption.verdict(episode)), speed]
    return "<tr>" + "".join(f"<td{_number(n)}>{c}</td>" for n, c in zip(_COLUMNS, cells, strict=True)) + "</tr>\n"


def _number(column: str) -> str:
    return ' class="number"' if column in ("Seed", "Mean speed, m/s") else ""
