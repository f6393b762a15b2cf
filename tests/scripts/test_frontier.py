"""The figure of collisions against speed."""

from __future__ import annotations

import pytest

from envs.results import mark_frontier
from scripts.frontier import _draw_frontier, _legend, draw_frontier


def driver(rate, speed, interval=0.5):
    rates = {"collision_rate": rate, "collision_low": rate / 2, "collision_high": min(1.0, 0.01 + 2 * rate)}
    ends = {"mean_speed_low_mps": speed - interval, "mean_speed_high_mps": speed + interval} if interval else {}
    return {
        **rates,
        "mean_speed_mps": speed,
        "mean_speed_low_mps": None,
        "mean_speed_high_mps": None,
        **ends,
        "episodes": 9,
    }


@pytest.fixture
def axes():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def test_the_line_never_promises_a_speed_at_fewer_collisions_than_anybody_drove(axes):
    axes.set(xlim=(15, 30), ylim=(0, 100))
    _draw_frontier(axes, [driver(0.4, 27.0), driver(0.0, 20.0)])
    (line,) = axes.lines
    assert line.get_drawstyle() == "steps-pre"  # up at the slower one's speed, and only then to the faster one
    assert [*map(float, line.get_xdata())] == [15, 20, 27, 27]
    assert [*map(float, line.get_ydata())] == [0, 0, 40, 100]


def test_the_legend_says_for_all_panels_what_the_outline_means():
    *drivers, outlined = _legend({"idm": {"marker": "o", "color": "C0"}, "ppo": {"marker": "s", "color": "C1"}})
    assert [entry.get_label() for entry in drivers] == ["idm", "ppo"]
    assert all(entry.get_markeredgecolor() == entry.get_color() for entry in drivers)
    assert outlined.get_markeredgecolor() == "black"
    assert outlined.get_label().startswith("outlined: nobody beats it")


def test_many_drivers_one_driver_and_one_episode_are_drawn(tmp_path):
    many = mark_frontier({f"policy-{n}-of-a-long-name": driver(n / 20, 20.0 + n) for n in range(14)})
    alone = mark_frontier({"idm": driver(0.0, 20.0, interval=0.0)})
    draw_frontier(tmp_path / "frontier.png", {"highway": many, "merge": alone})
    assert (tmp_path / "frontier.png").read_bytes().startswith(b"\x89PNG")
