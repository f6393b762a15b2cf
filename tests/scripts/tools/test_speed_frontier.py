"""The frontier of asked speeds: a row for each driver and speed, and a figure."""

from __future__ import annotations

from drivecast.scripts.tools.speed_frontier import main


def test_who_is_asked_for_more_drives_faster(tmp_path, capsys):
    figure = tmp_path / "new" / "frontier.png"
    given = ["--driver", "idm", "--suite", "merge", "--speeds", "12", "25", "--episodes", "4", "--workers", "1"]
    assert main([*given, "--output", str(figure)]) == 0
    rows = [line.split(":")[-1].split() for line in capsys.readouterr().out.splitlines()[:-1]]
    slow, fast = (float(row[0]) for row in rows)
    assert slow + 3.0 < fast < 25.5
    assert figure.stat().st_size > 10_000


def test_what_is_not_known_is_refused_in_one_line(tmp_path, capsys):
    assert main(["--driver", "idm", "--suite", "recorded", "--output", str(tmp_path / "frontier.png")]) == 1
    assert capsys.readouterr().err.startswith("speed_frontier: suite: expected some of highway")
    assert not (tmp_path / "frontier.png").exists()
