"""The figure of collisions against speed."""

from __future__ import annotations

import pytest

from drivecast.envs.evaluation.results import mark_frontier
from drivecast.scripts.driving.drive import labels
from drivecast.scripts.figures.frontier import _draw_driver, _draw_frontier, _legend, _scale, draw_frontier
from drivecast.scripts.figures.report import closed_loop_table
from drivecast.scripts.verbs.train_world_model import PANELS


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


def test_a_driver_without_collisions_stands_clear_of_the_axis_and_so_do_its_intervals(axes):
    one = {**driver(0.0, 20.0), "on_frontier": False}
    _scale(axes, 80.0)
    _draw_driver(axes, one, {"marker": "o", "color": "C0"})

    def height(percent):
        """Of the panel, from its lower edge."""
        return axes.transAxes.inverted().transform(axes.transData.transform((20.0, percent)))[1]

    assert height(0.0) > 0.04
    (container,) = axes.containers
    caps, bars = container.lines[1:]
    assert len(caps) == 4  # ends of the intervals that can be told from the axis and from the frontier
    low, high = (height(100 * one[f"collision_{end}"]) for end in ("low", "high"))
    assert [*map(height, bars[1].get_segments()[0][:, 1])] == pytest.approx([low, high])
    assert high - low > 0.05
    assert [tick for tick in axes.get_yticks() if tick < 0] == []


def test_drivers_are_called_the_same_in_the_report_and_in_the_figure():
    drivers = ["policy:runs/demo/policy/policy.safetensors", "idm:20", "idle"]
    assert [*labels(drivers).values()] == ["policy", "idm:20", "idle"]
    several = labels(["policy:a/policy.safetensors", "policy:b/policy.safetensors", "ppo:runs/ppo"])
    assert len(set(several.values())) == 3
    assert all("/" not in name for name in several.values())
    result = driver(0.0, 20.0) | {"driver": drivers[0], "environment": "highway-v0"}
    for name in ("at_fault_collision", "off_road", "success"):
        result |= {f"{name}_rate": 0.0, f"{name}_low": 0.0, f"{name}_high": 0.1}
    assert "<td>policy</td>" in closed_loop_table([result])


@pytest.mark.parametrize("gap", ["latent_gap", "ego_gap"])
def test_training_curves_say_what_a_gap_is_and_in_which_unit(gap):
    (title,) = [title for title, names in PANELS if f"*/{gap}" in names]
    assert "error added" in title
    assert "(unit as in the first panel; 0: the" in title
    assert "0.5: off by 1 m" in next(title for title, names in PANELS if "*/forecast_error" in names)
