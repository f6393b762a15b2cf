"""Trains one energy of futures in every way and compares them: `... tools.energy_methods --data D --output OUT`.

Stopped and started again, it goes on with the trainings that are missing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from drivecast.scripts.driving.candidate_plans import CandidatePlans, CandidatePlansConfig, candidate_plans
from drivecast.scripts.driving.plan_energies import energies_of_plans, surroundings_of_plans
from drivecast.scripts.driving.plan_ranking import ranking
from drivecast.scripts.figures.method_figures import draw_landscapes, draw_scaling
from drivecast.worldmodel.energy_methods.method import Method
from drivecast.worldmodel.energy_methods.methods import METHODS
from drivecast.worldmodel.energy_methods.surroundings import FRAME_S, Surroundings
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.evaluation.corruptions import CORRUPTIONS
from drivecast.worldmodel.evaluation.method_exam import OF_ANOTHER, Exam, landscape
from drivecast.worldmodel.evaluation.method_study import (
    YARDSTICK,
    Course,
    MethodStudy,
    MethodStudyConfig,
    described,
    references,
)
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.storage.files import atomic_file

ALONG_M, LEFT_M = torch.linspace(-16.0, 16.0, 41), torch.linspace(-7.0, 7.0, 29)
RESULTS = "energy-methods.json"


class PlansToRank:
    """Candidate plans of one horizon, and what surrounds them."""

    def __init__(self, scenes: int, horizon_s: int, seed: int = 0) -> None:
        self.plans: CandidatePlans = candidate_plans(CandidatePlansConfig(scenes, horizon_s=float(horizon_s)), seed)
        steps = self.plans.controls.steering_rad.shape[-1]
        self.past: dict[str, Surroundings] = {
            "straight": surroundings_of_plans(self.plans, steps, answering=False),
            "answering": surroundings_of_plans(self.plans, steps, answering=True),
        }

    def ranked(self, method: Method, course: Course) -> dict[str, Any]:
        """Spearman and regret by what is taken for the others' motion."""
        found = {}
        for name, past in self.past.items():
            scored = ranking(energies_of_plans(method, course.coordinates, self.plans, past), self.plans)
            found[name] = {
                "spearman": vars(scored.spearman),
                "regret": vars(scored.regret),
                "picks_contact": scored.picks_contact,
            }
        return found


def pictured(exam: Exam, frames: int) -> int:
    """The vehicle to picture: it leaves constant velocity most, of those with three others near it at the end."""
    past = exam.recorded.past
    off = (exam.path_m[:, -1] - past.velocity_mps * frames * FRAME_S).abs()
    place = (past.other_path_m[:, -1] - exam.path_m[:, None, -1]).abs()
    near = (place[..., 0] < ALONG_M[-1]) & (place[..., 1] < LEFT_M[-1]) & past.other_valid
    fits = (near.sum(1) >= 2) & (off[:, 0] < 10.0) & (off[:, 1] < 5.0)
    return int((off[:, 1] * fits).argmax())


def scenery(exam: Exam, vehicle: int) -> dict[str, Any]:
    """What stands around the landscape of one vehicle."""
    past, frames = exam.recorded.past, exam.coordinates.frames
    origin = past.velocity_mps[vehicle] * frames * FRAME_S
    others = past.other_path_m[vehicle, -1] - origin
    boxes = torch.cat([others, past.size_m[vehicle] / 2], -1)[past.other_valid[vehicle]]
    left, right = past.edge_m[vehicle].tolist()
    drift = float(origin[1])
    return {
        "along_m": ALONG_M.tolist(),
        "left_m": LEFT_M.tolist(),
        "recorded_m": (exam.path_m[vehicle, -1] - origin).tolist(),
        "others_m": boxes.tolist(),
        "edges_m": [left - drift, -right - drift],
    }


def landscape_rows(method: Method, exam: Exam, vehicle: int) -> list[list[float]]:
    """Energies, a list of rows of `LEFT_M`."""
    left, along = torch.meshgrid(LEFT_M, ALONG_M, indexing="ij")
    ends = torch.stack([along, left], -1).flatten(0, 1)
    past = exam.recorded.past[torch.tensor([vehicle])]
    energy = landscape(method, past, exam.coordinates, ends)
    return [[round(value, 3) for value in row] for row in energy.view(left.shape).tolist()]


# --- the tables


def of(runs: dict[str, dict[str, Any]], method: str, horizon_s: int) -> list[dict[str, Any]]:
    """The judged trainings of a method."""
    return [
        run for run in runs.values() if run["method"] == method and run["horizon_s"] == horizon_s and "samples" in run
    ]


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else float("nan")


def _spread(values: Sequence[float], digits: int = 3) -> str:
    if not values:
        return "-"
    return f"{_mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def tables(result: dict[str, Any]) -> list[str]:
    """Markdown: what is told apart, plans and samples, and what the length of futures does."""
    return [*_told_table(result), "", *_quality_table(result), "", *_scaling_table(result)]


def _told_table(result: dict[str, Any]) -> list[str]:
    """AUROC by corruption, and means with their extremes over seeds."""
    names = [corruption.name for corruption in CORRUPTIONS]
    heads = [*names, "gross: mean (seeds)", "a tenth of each: mean (seeds)", OF_ANOTHER, "paired: gross, a tenth"]
    shown = ["| AUROC | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for method in (YARDSTICK, *result["chosen"]):
        judged = of(result["runs"], method, result["config"]["horizon_s"])
        parts = {method: judged}
        if judged and "by_beta" in judged[0]:
            parts = {f"{method}, F_inf": judged, f"{method}, F_1": [run["by_beta"] for run in judged]}
        shown += [_told_line(label, runs, names) for label, runs in parts.items()]
    return shown


def _told_line(label: str, runs: list[dict[str, Any]], names: list[str]) -> str:
    cells = [f"{_mean([run['told'][name]['auroc'] for run in runs if name in run['told']]):.3f}" for name in names]
    cells += [_spread([run["auroc"][group] for run in runs]) for group in ("gross", "mild")]
    cells.append(f"{_mean([run['auroc']['another'] for run in runs]):.3f}")
    cells.append(", ".join(f"{_mean([run['paired'][group] for run in runs]):.3f}" for group in ("gross", "mild")))
    return f"| {label} | " + " | ".join(cells) + " |"


def _quality_table(result: dict[str, Any]) -> list[str]:
    runs, config, chosen = result["runs"], result["config"], result["chosen"]
    heads = "minADE of 6, m | ADE, m | energy score, m | impossible | rank, others straight | rank, answering"
    shown = [f"| method | {heads} | regret | contact | s of a core | diverged |", "|---" * 11 + "|"]
    for method in (YARDSTICK, *chosen):
        judged = of(runs, method, config["horizon_s"])
        every = [run for run in runs.values() if run["method"] == method]
        samples = [run["samples"] for run in judged]
        ranks = [run["plans"] for run in judged if "plans" in run]
        cells = [f"{_mean([s[key] for s in samples]):.2f}" for key in ("min_ade_m", "ade_m", "energy_score_m")]
        cells += [f"{_mean([s['impossible'] for s in samples]):.1%}"]
        cells += [_spread([r[name]["spearman"]["value"] for r in ranks], 2) for name in ("straight", "answering")]
        cells += [f"{_mean([r['straight']['regret']['value'] for r in ranks]):.2f}"]
        cells += [f"{_mean([r['straight']['picks_contact'] for r in ranks]):.1%}"]
        cells += [
            f"{_mean([run['seconds'] for run in judged]):.0f}",
            f"{sum(run['diverged'] for run in every)}/{len(every)}",
        ]
        shown.append(f"| {method} | " + " | ".join(cells) + " |")
    for name, quality in result["references"][str(config["horizon_s"])].items():
        cells = [f"{quality[key]:.2f}" for key in ("min_ade_m", "ade_m", "energy_score_m")]
        shown.append(f"| {name} | " + " | ".join([*cells, f"{quality['impossible']:.1%}", *[""] * 6]) + " |")
    return shown


def scaling(result: dict[str, Any]) -> dict[str, list[dict[str, float]]]:
    """By method, of each horizon: the trainings of seed 0."""
    config = result["config"]
    horizons = sorted({config["horizon_s"], *config["other_horizons_s"]})
    found = {}
    for method in (YARDSTICK, *result["chosen"]):
        rows = [run for horizon_s in horizons for run in of(result["runs"], method, horizon_s) if run["seed"] == 0]
        keys = ("dims", "horizon_s", "temperature", "seconds")
        found[method] = [{**{key: run[key] for key in keys}, **run["auroc"], **run["samples"]} for run in rows]
    return found


def _scaling_table(result: dict[str, Any]) -> list[str]:
    config = result["config"]
    horizons = sorted({config["horizon_s"], *config["other_horizons_s"]})
    heads = "".join(f" {h} s, {10 * h} dims |" for h in horizons)
    shown = ["| AUROC of gross corruptions; of a tenth of each; energy score, m |" + heads]
    shown.append("|---" * (len(horizons) + 1) + "|")
    for method, points in scaling(result).items():
        cells = [f"{p['gross']:.3f}; {p['mild']:.3f}; {p['energy_score_m']:.2f}" for p in points]
        shown.append(f"| {method} | " + " | ".join(cells) + " |")
    straight = [f"{result['references'][str(h)]['constant velocity']['energy_score_m']:.2f}" for h in horizons]
    shown.append("| constant velocity | " + " | ".join(straight) + " |")
    return shown


# --- the command


def _read(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """What is known from before, of the same study; seeds and other horizons may be added to it."""
    identity = {name: value for name, value in config.items() if name not in ("seeds", "other_horizons_s")}
    known: dict[str, Any] = {"identity": identity, "runs": {}}
    if path.exists():
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["identity"] != identity:
            raise InputError(f"{path}: it is of another study; give another --output")
    return {**known, "config": config}


def _write(path: Path, result: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(result, indent=1), encoding="utf-8")


def studied(data: Path, output: Path, config: MethodStudyConfig, scenes: int) -> dict[str, Any]:
    """Runs what is missing; the result, which also lies in `output`."""
    path, store = output / RESULTS, WindowStore.open(data)
    described_as = {"data": data.name, "plan_scenes": scenes, **described(config)}
    result = _read(path, json.loads(json.dumps(described_as)))
    began, plans = time.monotonic(), cache(lambda: PlansToRank(scenes, config.horizon_s))

    def more(method: Method, course: Course, horizon_s: int, seed: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if horizon_s == config.horizon_s:
            if scenes:
                found["plans"] = plans().ranked(method, course)
            if seed == 0:
                vehicle = pictured(course.test, course.coordinates.frames)
                found["landscape"] = landscape_rows(method, course.test, vehicle)
        return found

    def on_run(name: str, run: dict[str, Any]) -> None:
        _write(path, result)
        told = f"AUROC {run['auroc']}" if "auroc" in run else "diverged"
        sys.stderr.write(f"{time.monotonic() - began:6.0f} s  {name}: {told}, {run['seconds']:.0f} s of a core\n")

    study = MethodStudy(store, config, result["runs"], more, on_run)
    result["chosen"] = study.run()
    horizons = (config.horizon_s, *config.other_horizons_s)
    result["references"] = {str(h): references(study.course(h).test.part(config.sampled)) for h in horizons}
    exam = study.course(config.horizon_s).test
    result["scenery"] = scenery(exam, pictured(exam, exam.coordinates.frames))
    _write(path, result)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m drivecast.scripts.tools.energy_methods", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="recording store")
    parser.add_argument("--output", type=Path, required=True, help="folder for results, tables and figures")
    parser.add_argument("--horizon-s", type=int, default=MethodStudyConfig.horizon_s, help="of the comparison, s")
    parser.add_argument("--other-horizons-s", type=int, nargs="*", default=MethodStudyConfig.other_horizons_s)
    parser.add_argument("--seeds", type=int, default=MethodStudyConfig.seeds, help="trainings of each method")
    parser.add_argument("--effort", type=float, default=1.0, help="factor on the steps of all trainings")
    parser.add_argument("--examples", type=int, default=MethodStudyConfig.examples, help="to train from")
    parser.add_argument("--vehicles", type=int, default=MethodStudyConfig.vehicles, help="to judge on")
    parser.add_argument("--sampled", type=int, default=MethodStudyConfig.sampled, help="those that are sampled for")
    parser.add_argument("--plan-scenes", type=int, default=50, help="simulated moments with plans to rank; 0: none")
    given = parser.parse_args(arguments)
    try:
        config = MethodStudyConfig(
            given.horizon_s,
            tuple(given.other_horizons_s),
            given.seeds,
            given.examples,
            given.vehicles,
            given.sampled,
            given.effort,
        )
        result = studied(given.data, given.output, config, given.plan_scenes)
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    text = "\n".join(tables(result))
    with atomic_file(given.output / "energy-methods.md") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    names = (YARDSTICK, *(kind.name for kind in METHODS))
    firsts = {name: of(result["runs"], name, config.horizon_s) for name in names}
    pictures = {name: run["landscape"] for name, runs in firsts.items() for run in runs if "landscape" in run}
    draw_landscapes(given.output / "landscapes.png", {**result["scenery"], "energy": pictures})
    straight = {float(h): each["constant velocity"]["energy_score_m"] for h, each in result["references"].items()}
    draw_scaling(given.output / "dimensions.png", scaling(result), straight)
    sys.stdout.write(text + "\n")
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
