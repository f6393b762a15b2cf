"""`drivecast forecast`: how good a world model's forecasts are, against constant velocity."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from drivecast.scripts.command.device import available_device
from drivecast.scripts.tracking.run import Run
from drivecast.worldmodel.evaluation.calibration_figure import draw_calibration
from drivecast.worldmodel.evaluation.figure import draw_forecasts
from drivecast.worldmodel.evaluation.forecasts import ForecastEvaluationConfig, evaluate_forecasts
from drivecast.worldmodel.forecaster.loading import load_world_model
from drivecast.worldmodel.forecaster.sampler import ModelSampler
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.storage.files import atomic_file

RATES = ("lane_changes_per_minute", "recorded_lane_changes_per_minute")
LOGGED = (
    "rmse_m",
    "constant_velocity_rmse_m",
    "sample_mean_rmse_m",
    "ade_m",
    "fde_m",
    "min_ade_m",
    "min_fde_m",
    "joint_min_ade_m",
    "joint_min_fde_m",
    "crps_m",
    "crps_left_m",
    "energy_score_m",
    "coverage",
    "touch_rate",
    "lane_change_recall",
    *RATES,
)


@dataclass(frozen=True)
class ForecastConfig:
    """Report how good a world model's forecasts are at 1 to 8 s, with 3 s of history and nobody's future known.

    Errors, proper scores, calibration, lane changes and contacts of sampled futures. Writes OUTPUT/forecast.json,
    OUTPUT/forecasts.png (sampled futures over real ones) and OUTPUT/calibration.png.

    Args:
        model: Model file, its folder, pretrained:us101, pretrained:highway, or models:/NAME/VERSION of the registry.
        data: Folder of the recording store.
        output: Folder of the report.
        split: Which recordings to forecast: train, val, test or all.
        seed: Seed of the sampled futures.
        device: `cpu`, or `cuda` where there is one.
        evaluation: How it is measured.
    """

    model: str
    data: Path
    output: Path
    split: Literal["train", "val", "test", "all"] = "test"
    seed: int = 0
    device: str = "cpu"
    evaluation: ForecastEvaluationConfig = field(default_factory=ForecastEvaluationConfig)


def run(config: ForecastConfig, run: Run) -> None:
    """Measure, show and store."""
    from drivecast.scripts.driving.registry import resolve_model

    device = available_device(config.device)
    model = load_world_model(resolve_model(config.model), device)
    store = WindowStore.open(config.data)
    with run.progress(1.0, f"forecasting '{config.split}'") as progress:
        shown = [0.0]

        def on_progress(done: int, total: int) -> None:
            progress.advance(done / total - shown[0], scenes=done)
            shown[0] = done / total

        result: dict[str, Any] = evaluate_forecasts(
            ModelSampler(model), store, config.split, config.evaluation, device, config.seed, on_progress
        )
    result["model"], result["data"] = str(config.model), str(config.data)
    output = Path(config.output)
    with atomic_file(output / "forecast.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1))
    figure = output / "forecasts.png"
    draw_forecasts(model, store, config.split, result, figure, config.seed)
    draw_calibration(result, output / "calibration.png")
    for number, horizon in enumerate(result["horizons_s"]):
        run.log_metrics({name: result[name][number] for name in LOGGED if result[name][number] is not None}, horizon)
    run.log_metrics({"energy_score": result["energy_score"]})
    run.log_artifact(output / "forecast.json")
    for path in (figure, output / "calibration.png"):
        run.log_figure(path)
    run.table(*forecast_table(result))
    run.table(*future_table(result))
    sampled, off_road = result["sampled_collision_rate"], result["sampled_off_road_rate"]
    if sampled is not None:
        run.say(
            f"at 3 s, of vehicles in sampled futures: {sampled:.2%} touch another "
            f"(recorded: {result['recorded_collision_rate']:.2%}), {off_road:.2%} are off the road "
            f"(recorded: {result['recorded_off_road_rate']:.2%})"
        )
    run.say(f"written: {output / 'forecast.json'} and {figure}")


def forecast_table(result: dict[str, Any]) -> tuple[str, list[str], list[list[str]]]:
    """Title, columns and rows of the errors, of single guesses and of the best sample."""
    columns = ["horizon", "windows", "constant velocity", "RMSE", "change", "ADE", "FDE"]
    columns += [f"min ADE of {result['samples']}", "min FDE", "joint min ADE", "joint min FDE"]
    rows = []
    for number, horizon in enumerate(result["horizons_s"]):
        rmse, baseline = result["rmse_m"][number], result["constant_velocity_rmse_m"][number]
        if rmse is None:
            rows.append([f"{horizon} s", "0"] + ["-"] * (len(columns) - 2))
            continue
        names = ("ade_m", "fde_m", "min_ade_m", "min_fde_m", "joint_min_ade_m", "joint_min_fde_m")
        errors = [f"{result[name][number]:.2f} m" for name in names]
        change = f"{rmse / baseline - 1:+.0%}"
        count = f"{result['windows'][number]:,}"
        rows.append([f"{horizon} s", count, f"{baseline:.2f} m", f"{rmse:.2f} m", change, *errors])
    return f"forecasts on '{result['split']}'", columns, rows


def future_table(result: dict[str, Any]) -> tuple[str, list[str], list[list[str]]]:
    """Title, columns and rows of what sampled futures are worth: scores, calibration, lane changes, contacts."""
    columns = ["horizon", "CRPS", "CRPS to the left", "energy score"]
    columns += [f"in region of {region['ideal']:.0%}" for region in result["regions"]]
    columns += ["lane changes met", "lane changes a minute (recorded)", "touching (recorded)"]
    rows = []
    for number, horizon in enumerate(result["horizons_s"]):
        if result["crps_m"][number] is None:
            continue
        scores = [f"{result[name][number]:.2f} m" for name in ("crps_m", "crps_left_m", "energy_score_m")]
        inside = [f"{region['along'][number]:.0%}, {region['left'][number]:.0%}" for region in result["regions"]]
        met, recorded = result["lane_change_recall"][number], result["recorded_lane_changes"][number]
        rate, real = (result[name][number] for name in RATES)
        touch, really = result["touch_rate"][number], result["recorded_touch_rate"][number]
        rows.append(
            [
                f"{horizon} s",
                *scores,
                *inside,
                "-" if met is None else f"{met:.0%} of {recorded}",
                f"{rate:.2f} ({real:.2f})" if rate is not None else "-",
                f"{touch:.2%} ({really:.2%})",
            ]
        )
    return f"{result['samples']} sampled futures on '{result['split']}' (regions: along, left)", columns, rows
