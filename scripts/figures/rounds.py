"""What each round of `drivecast train-loop` brought: how its policy drives, what its world model foretells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from drivecast.worldmodel.storage.files import atomic_file

LEAST_SPAN_MPS = 0.5  # above and below: what differs by less looks alike


def draw_rounds(path: Path, rounds: Sequence[Mapping[str, Any]]) -> Path:
    """Three panels over the rounds, one line per environment.

    Args:
        path: PNG to write.
        rounds: Each with `round`, `closed_loop` (results by environment), and after the first one `forecast_before_m`
            and `forecast_after_m`: errors on drives of the round before, by its world model and by this round's.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    numbers = [one["round"] for one in rounds]
    figure, (collisions, speed, error) = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for row, environment in enumerate(drove["environment"] for drove in rounds[0]["closed_loop"]):
        drives = [one["closed_loop"][row] for one in rounds]
        rate, low, high = ([100 * drive[f"collision_{name}"] for drive in drives] for name in ("rate", "low", "high"))
        below = [value - least for value, least in zip(rate, low, strict=True)]
        above = [most - value for value, most in zip(rate, high, strict=True)]
        shift = [number + 0.04 * row for number in numbers]
        collisions.errorbar(shift, rate, [below, above], marker="o", capsize=3, label=environment)
        speed.plot(numbers, [drive["mean_speed_mps"] for drive in drives], marker="o", label=environment)
    collisions.set(title="episodes with a collision, % (95 %)")
    most = max(100 * drove["collision_high"] for one in rounds for drove in one["closed_loop"])
    collisions.set_ylim(-0.03 * most, 1.3 * most)
    speeds = [drove["mean_speed_mps"] for one in rounds for drove in one["closed_loop"]]
    speed.set(title="mean speed, m/s", ylim=(min(speeds) - LEAST_SPAN_MPS, max(speeds) + LEAST_SPAN_MPS))
    later = [one for one in rounds if "forecast_before_m" in one]
    for name, label in (("forecast_before_m", "by the world model before"), ("forecast_after_m", "by this round's")):
        error.plot([one["round"] for one in later], [one[name] for one in later], marker="o", label=label)
    error.set(title="others in drives of the round before:\nerror of the likeliest future at 3 s, m")
    errors = [one[f"forecast_{when}_m"] for one in later for when in ("before", "after")]
    error.set_ylim(0.0, 1.2 * max(errors, default=1.0))
    for axes, place in ((collisions, "upper right"), (speed, "best"), (error, "lower left")):
        axes.set(xlabel="round", xticks=numbers, xlim=(0.7, numbers[-1] + 0.3))
        axes.legend(fontsize=8, loc=place)
        axes.spines[["top", "right"]].set_visible(False)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
    plt.close(figure)
    return path
