"""From episodes to figures: one object per driver and environment (see docs/evaluation.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from drivecast.envs.evaluation.metrics import SHORT_TTC_S
from drivecast.envs.evaluation.statistics import mcnemar, mean_difference, ratio_of_sums, wilson_interval

# what may befall an episode: from the table of episodes, whether it did
EVENTS: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "collision": lambda table: table["outcome"] == "collision",
    "at_fault_collision": lambda table: (table["outcome"] == "collision") & table["at_fault"],
    "off_road": lambda table: table["outcome"] == "off_road",
    "success": lambda table: table["outcome"] == "completed",
    "timed_out": lambda table: table["outcome"] == "timed_out",
    "front": lambda table: table["contact_part"] == "front",
    "side": lambda table: table["contact_part"] == "side",
    "rear": lambda table: table["contact_part"] == "rear",
    "short_ttc": lambda table: table["min_ttc_s"] < SHORT_TTC_S,
}
CONTACT_KINDS = ("front", "side", "rear", "standing_other", "standing_ego")


def summarise(table: pd.DataFrame, driver: str, environment: str) -> dict[str, Any]:
    """The figures of one driver in one environment, from its table of episodes."""
    count = len(table)
    result: dict[str, Any] = {"driver": driver, "environment": environment, "episodes": count}
    for name, happened in EVENTS.items():
        share = wilson_interval(int(happened(table).sum()), count)
        result |= {f"{name}_rate": share.value, f"{name}_low": share.low, f"{name}_high": share.high}
    result["contacts"] = {kind: int((table["contact"] == kind).sum()) for kind in CONTACT_KINDS}
    time_s = table["duration_s"].to_numpy()
    speed = ratio_of_sums(table["distance_m"].to_numpy(), time_s)
    result["mean_speed_mps"] = speed.value
    result |= {"mean_speed_low_mps": _number(speed.low), "mean_speed_high_mps": _number(speed.high)}
    result["distance_m"] = float(table["distance_m"].sum())
    result["duration_s"] = float(time_s.sum())
    result["min_ttc_s"] = _quantiles(table["min_ttc_s"])
    result["short_ttc_time_share"] = float(np.average(table["short_ttc_share"], weights=time_s))
    result["time_headway_s"] = _quantiles(table["time_headway_s"])
    uncomfortable = [column for column in table.columns if column.startswith("uncomfortable_")]
    result["uncomfortable_rate"] = float((table[uncomfortable] > 0).any(axis=1).mean())
    result["uncomfortable_rates"] = {
        column.removeprefix("uncomfortable_"): float((table[column] > 0).mean()) for column in uncomfortable
    }
    result["progress"] = _number(table["progress"].mean())
    result["progress_to_human"] = _number(table["progress_to_human"].mean())
    result["progress_to_human_by_end"] = {
        end: _number(table["progress_to_human"][happened].mean()) for end, happened in _ends(table).items()
    }
    if "net_share" in table:
        result["net_rate"] = float((table["net_share"] > 0).mean())
        result["net_time_share"] = float(np.average(table["net_share"], weights=time_s))
    costs = {column.removeprefix("cost_"): column for column in table.columns if column.startswith("cost_")}
    if costs:
        result["cost"] = {name: float(np.average(table[column], weights=time_s)) for name, column in costs.items()}
    if "imagined_cost" in table:
        gap = mean_difference(table["imagined_cost"].to_numpy(), table["realised_cost"].to_numpy())
        result["imagined_cost"] = float(table["imagined_cost"].mean())
        result["realised_cost"] = float(table["realised_cost"].mean())
        result["imagined_minus_realised"] = {"mean": gap.value, "low": _number(gap.low), "high": _number(gap.high)}
    return result


def compare(tables: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, Any]]:
    """Each driver against each other on the seeds both drove: `{driver: {other: figures}}`."""
    found: dict[str, dict[str, Any]] = {driver: {} for driver in tables}
    for driver, table in tables.items():
        for other, others_table in tables.items():
            if other == driver:
                continue
            pair = table.merge(others_table, on="seed", suffixes=("", "_other"))
            collided, other_collided = (pair[f"outcome{end}"].to_numpy() == "collision" for end in ("", "_other"))
            crashes = mcnemar(collided, other_collided)
            success, other_success = (pair[f"outcome{end}"].to_numpy() == "completed" for end in ("", "_other"))
            completions = mcnemar(success, other_success)
            speed = mean_difference(pair["mean_speed_mps"].to_numpy(), pair["mean_speed_mps_other"].to_numpy())
            found[driver][other] = {
                "episodes": len(pair),
                "collided_only_this": crashes.only_first,
                "collided_only_other": crashes.only_second,
                "collision_p_value": crashes.p_value,
                "succeeded_only_this": completions.only_first,
                "succeeded_only_other": completions.only_second,
                "success_p_value": completions.p_value,
                "speed_difference_mps": _number(speed.value),
                "speed_difference_low_mps": _number(speed.low),
                "speed_difference_high_mps": _number(speed.high),
            }
    return found


def pool(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One driver that was trained several times, from its `results` on the same episodes.

    Shares and speeds are means over the trainings, `_least` and `_most` the extremes among them. Intervals are those of
    as many episodes as one training drove: the episodes were the same ones, so driving them again tells less than
    driving others.
    """
    pooled: dict[str, Any] = {"trainings": len(results), "episodes": min(result["episodes"] for result in results)}
    for name in EVENTS:
        rates = [result[f"{name}_rate"] for result in results]
        share = wilson_interval(float(np.mean(rates)) * pooled["episodes"], pooled["episodes"])
        pooled |= {f"{name}_rate": share.value, f"{name}_low": share.low, f"{name}_high": share.high}
        pooled |= {f"{name}_least": min(rates), f"{name}_most": max(rates)}
    for name in ("mean_speed_mps", "mean_speed_low_mps", "mean_speed_high_mps", "uncomfortable_rate"):
        values = [result[name] for result in results if result[name] is not None]
        pooled[name] = float(np.mean(values)) if values else None
    for name in ("decision_ms_p50", "decision_ms_p99"):
        values = [result[name] for result in results if result.get(name) is not None]
        pooled[name] = float(np.mean(values)) if values else None
    to_human = [result["progress_to_human"] for result in results if result.get("progress_to_human") is not None]
    pooled["progress_to_human"] = float(np.mean(to_human)) if to_human else None
    headways = [result["time_headway_s"]["p50"] for result in results if result["time_headway_s"]["p50"] is not None]
    pooled["time_headway_s"] = float(np.mean(headways)) if headways else None
    return pooled


def frontier(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names of those that nobody beats, from the slowest to the fastest, by the estimates without their intervals.

    Who beats is at least as good in both collisions and speed, and better in one.
    """

    def beaten(one: Mapping[str, Any]) -> bool:
        rate, speed = one["collision_rate"], one["mean_speed_mps"]
        return any(
            other["collision_rate"] <= rate
            and other["mean_speed_mps"] >= speed
            and (other["collision_rate"], other["mean_speed_mps"]) != (rate, speed)
            for other in results.values()
        )

    best = [name for name, one in results.items() if not beaten(one)]
    return sorted(best, key=lambda name: results[name]["mean_speed_mps"])


def mark_frontier(results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The same results, each with `on_frontier`."""
    best = frontier(results)
    return {name: {**one, "on_frontier": name in best} for name, one in results.items()}


def _ends(table: pd.DataFrame) -> dict[str, pd.Series]:
    """How episodes ended, for who must know whether slowness hides behind excuses."""
    collided = table["outcome"] == "collision"
    return {
        "unharmed": table["outcome"].isin(["completed", "timed_out"]),
        "at_fault": (collided & table["at_fault"]) | (table["outcome"] == "off_road"),
        "not_at_fault": collided & ~table["at_fault"],
    }


def _quantiles(values: pd.Series) -> dict[str, float | None]:
    """5th, 50th and 95th percentile over episodes; None stands for "none in sight" (infinite) and for no value."""
    known = values.dropna().to_numpy()
    if len(known) == 0:
        return {"p05": None, "p50": None, "p95": None}
    return {f"p{share:02d}": _number(np.quantile(known, share / 100, method="inverted_cdf")) for share in (5, 50, 95)}


def _number(value: float) -> float | None:
    """JSON has no infinity and no NaN."""
    return float(value) if np.isfinite(value) else None
