"""The report of a demo: one HTML page with the closed-loop table, the figures and the way to the replays."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from drivecast.scripts.driving.drive import labels
from drivecast.worldmodel.storage.files import atomic_file

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1d2733; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid #d8dee6; text-align: right; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; } .note { color: #5a6878; font-size: .9rem; }
a.look { display: inline-block; padding: .5rem 1rem; background: #1f6feb; color: #fff; border-radius: .4rem;
  text-decoration: none; }
"""


@dataclass(frozen=True)
class Report:
    """What goes into the page."""

    folder: Path  # report.html is written there
    results: Path  # results.json of `drivecast evaluate`
    forecast: Path  # forecast.json of `drivecast forecast`
    figures: list[tuple[str, Path]]  # title and PNG file
    replays: Path  # index.html of the replays


def write_report(report: Report) -> Path:
    """Write `report.html`; drivers are called as in the figures. Returns its path."""
    results = json.loads(report.results.read_text(encoding="utf-8"))
    forecast = json.loads(report.forecast.read_text(encoding="utf-8"))
    replays = os.path.relpath(report.replays, report.folder)
    figures = "".join(
        f'<h2>{escape(title)}</h2><img alt="{escape(title)}" src="data:image/png;base64,{_base64(path)}">'
        for title, path in report.figures
    )
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>drivecast: demo</title><style>{STYLE}</style>"
        "<h1>A driver trained by backpropagation through imagined traffic</h1>"
        f"{closed_loop_table(results)}"
        f'<p><a class="look" href="{escape(replays)}">Look at the episodes</a></p>'
        f"{forecast_table(forecast)}{figures}</html>\n"
    )
    path = report.folder / "report.html"
    with atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def closed_loop_table(results: list[dict[str, Any]]) -> str:
    """Safety beside speed, with 95 % intervals: a slow driver is easily a safe one."""
    columns = ["driver", "episodes", "collisions, %", "at fault, %", "off road, %", "completed, %", "mean speed, m/s"]
    names = labels(result["driver"] for result in results)
    rows = [
        [
            names[result["driver"]],
            str(result["episodes"]),
            _share(result, "collision"),
            _percent(result["at_fault_collision_rate"]),
            _percent(result["off_road_rate"]),
            _share(result, "success"),
            f"{result['mean_speed_mps']:.2f}",
        ]
        for result in results
    ]
    environments = ", ".join(dict.fromkeys(result["environment"] for result in results))
    return (
        f"<h2>Closed loop: {escape(environments)}</h2>{_table(columns, rows)}"
        '<p class="note">All drivers on the same seeds; 95 % Wilson intervals in brackets. '
        "Read safety and speed together.</p>"
    )


def forecast_table(forecast: dict[str, Any]) -> str:
    """Forecast errors against constant velocity."""
    columns = ["after", "RMSE, m", "constant velocity, m", "best of samples (final), m"]
    rows = []
    for number, horizon_s in enumerate(forecast["horizons_s"]):
        values = [forecast[name][number] for name in ("rmse_m", "constant_velocity_rmse_m", "min_fde_m")]
        rows.append([f"{horizon_s:g} s", *("–" if value is None else f"{value:.2f}" for value in values)])  # noqa: RUF001
    return (
        f"<h2>Forecasts of recordings the world model did not see</h2>{_table(columns, rows)}"
        f'<p class="note">Best of {forecast["samples"]} sampled futures.</p>'
    )


def _table(columns: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _share(result: dict[str, Any], name: str) -> str:
    low, high = _percent(result[f"{name}_low"]), _percent(result[f"{name}_high"])
    return f"{_percent(result[f'{name}_rate'])} [{low}, {high}]"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")
