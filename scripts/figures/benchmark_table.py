"""The benchmark's table, for the console and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

COLUMNS = [
    "driver",
    "trainings",
    "episodes",
    "collisions %",
    "at fault %",
    "off road %",
    "completed %",
    "speed m/s",
    "p collisions",
    "speed difference m/s",
    "headway s",
    "uncomfortable %",
    "decision ms",
]


def decision_time(result: Mapping[str, Any]) -> str:
    """Median and 99th percentile of one decision; a dash for who was not asked."""
    p50, p99 = result["decision_ms_p50"], result["decision_ms_p99"]
    return "-" if p50 is None else f"{p50:.1f}, {p99:.1f}"


def rows(results: Sequence[Mapping[str, Any]], pooled: Mapping[str, Mapping[str, Any]]) -> list[list[object]]:
    """One row per label, best first: by collisions, then by speed.

    Args:
        results: Of one suite, one per driver; the first is what the others are tested against.
        pooled: The same by label (`drivecast.envs.evaluation.results.pool`).
    """
    reference = results[0]["driver"]
    order = sorted(pooled, key=lambda label: (pooled[label]["collision_rate"], -pooled[label]["mean_speed_mps"]))
    return [
        _row(label, pooled[label], [result for result in results if result["label"] == label], reference)
        for label in order
    ]


def markdown(
    suite: str,
    results: Sequence[Mapping[str, Any]],
    pooled: Mapping[str, Mapping[str, Any]],
    notes: Sequence[str] = (),
) -> str:
    """The table with its heading, a legend and `notes` below."""
    lines = [f"## {suite}", "", f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    lines += [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows(results, pooled)]
    legend = (
        "95 % intervals in brackets (Wilson; of speeds linearised). \\* on the frontier: by these estimates nobody is "
        "at least as good in both collisions and speed, and better in one. p: exact McNemar test of collisions against "
        f"{results[0]['driver']} on the same episodes. Speed: distance over time of all episodes together; speed "
        "difference: mean over episodes of the difference in their mean speeds, in which those that end early weigh as "
        "much as the others. Headway: median. Decision: median and 99th percentile of one, alone in an episode, here. "
        "Several trainings: the mean, of p the largest; the extremes in parentheses, and the interval of as "
        "many episodes as one drove."
    )
    lines += ["", legend, ""]
    for note in notes:
        lines += [note, ""]
    for result in results:
        if "spot_check" in result:
            check = result["spot_check"]
            same = check["episodes"] - len(check["disagreements"])
            lines += [
                f"Driven again in highway-env itself by {result['driver']}: {same} of {check['episodes']} episodes are "
                f"the same; mean speeds differ by at most {check['largest_speed_difference_mps']:.1e} m/s.",
                "",
            ]
    return "\n".join(lines)


def _row(label: str, pooled: Mapping[str, Any], results: Sequence[Mapping[str, Any]], reference: str) -> list[object]:
    several = len(results) > 1
    tests = [result["against"][reference] for result in results if reference in result["against"]]
    if len(tests) < len(results):  # the reference's own row, whatever other trainings share it
        tests = []
    headway, comfort = pooled["time_headway_s"], pooled["uncomfortable_rate"]
    return [
        label + (" *" if pooled["on_frontier"] else ""),
        len(results),
        pooled["episodes"],
        _share(pooled, "collision", several),
        _percent(pooled["at_fault_collision_rate"]),
        _percent(pooled["off_road_rate"]),
        _share(pooled, "success", False),
        f"{pooled['mean_speed_mps']:.2f}"
        + _interval(pooled["mean_speed_low_mps"], pooled["mean_speed_high_mps"], ".2f"),
        _p_value(max(test["collision_p_value"] for test in tests)) if tests else "-",
        f"{sum(test['speed_difference_mps'] for test in tests) / len(tests):+.2f}" if tests else "-",
        "-" if headway is None else f"{headway:.1f}",
        "-" if comfort is None else f"{100 * comfort:.0f}",
        decision_time(pooled),
    ]


def _share(pooled: Mapping[str, Any], name: str, several: bool) -> str:
    rate, low, high = (100 * pooled[f"{name}_{end}"] for end in ("rate", "low", "high"))
    extremes = f" ({_percent(pooled[f'{name}_least'])}-{_percent(pooled[f'{name}_most'])})" if several else ""
    return f"{rate:.1f}{extremes}{_interval(low, high, '.1f')}"


def _interval(low: float | None, high: float | None, form: str) -> str:
    return "" if low is None or high is None else f" [{low:{form}}, {high:{form}}]"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _p_value(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"
