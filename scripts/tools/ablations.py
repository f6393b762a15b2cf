"""What each part of the method is worth, as the paper asked: `... tools.ablations --data DIR --output DIR`.

A network alone (no laws beneath it, no lanes chosen) is trained through world models of one recipe, each variant on
each seed, and drives the test split of recorded traffic. Stopped and started again, it goes on. Leaves ablations.png
and the benchmark's table.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from drivecast.scripts.command.parsing import parse
from drivecast.scripts.command.stages import Stages
from drivecast.scripts.command.verb import VERBS
from drivecast.scripts.tracking.run import ConsoleRun, TrackingConfig
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.loading import POLICY_FILE, WORLD_MODEL_FILE
from drivecast.worldmodel.storage.files import atomic_file

WORLD_MODELS = {  # beside the preset train-world-model-ngsim
    "dropout": (),
    "no-dropout": ("--training.objective.latent-dropout", "0"),
    "deterministic": ("--model.latent-dims", "0"),
    "ppuu": (
        *("--model.latent-hold-steps", "1", "--training.horizon-steps", "20"),
        *("--training.objective.latent-dropout-variant", "prior"),
    ),
}
LENGTHS = (1, 5, 10, 20, 40, 60)  # steps of 0.1 s
VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {  # world model, and beside the preset train-policy-network
    **{f"length-{steps}": ("dropout", ("--training.horizon-steps", str(steps))) for steps in LENGTHS},
    "no-uncertainty": ("dropout", ("--training.use-uncertainty", "false")),
    "deterministic": ("deterministic", ()),
    "no-latent-dropout": ("no-dropout", ()),
    "ppuu": ("ppuu", ("--training.horizon-steps", "30")),
}
REFERENCE = "length-40"  # what the variants that are not lengths differ from in one thing
TRAINING = ("--config", "train-policy-network", "--training.learning-rate", "0.001", "--training.batch", "48")
GOALS = ("--training.starts.desired-speed-mps", "[8.0, 25.0]", "--training.lane-choice.enabled", "false")
PAPER = {1: 9.8, 3: 16.2, 5: 22.4, 10: 58.3, 20: 59.2, 30: 75.2}  # success in %, I-80; Henaff, Canziani, LeCun 2019


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, drive, draw."""
    parser = argparse.ArgumentParser(prog="python -m drivecast.scripts.tools.ablations", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="recording store of real traffic")
    parser.add_argument("--output", type=Path, required=True, help="folder for everything")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each variant")
    parser.add_argument("--steps", type=int, default=250, help="of each training of a policy")
    parser.add_argument("--only", nargs="+", default=list(VARIANTS), choices=list(VARIANTS), help="these variants")
    given = parser.parse_args(arguments)
    try:
        results = ablate(given.data, given.output, given.seeds, given.steps, given.only)
    except InputError as error:
        sys.stderr.write(f"ablations: {error}\n")
        return 2
    draw(results, given.output / "ablations.png")
    sys.stdout.write(f"{given.output / 'ablations.png'}, {given.output / 'benchmark' / 'table.md'}\n")
    return 0


def ablate(data: Path, output: Path, seeds: int, steps: int, variants: Sequence[str]) -> dict[str, Any]:
    """The figures of the benchmark's recorded suite, by variant."""
    models = list(dict.fromkeys(VARIANTS[name][0] for name in variants))
    stages = Stages(
        output, ConsoleRun(), TrackingConfig(enabled=False), len(models) + seeds * len(variants), "ablations"
    )
    output.mkdir(parents=True, exist_ok=True)

    def stage(verb: str, folder: Path, product: str, options: Sequence[str], after: str = "") -> str:
        _, config_class = VERBS[verb].load()
        command = parse(VERBS[verb], config_class, ["--data", str(data), "--output", str(folder), *options])
        return stages.do(verb, command.config, folder, folder / product, f"{folder.parent.name}/{folder.name}", after)

    made: dict[str, str] = {}
    for name in models:
        options = ("--config", "train-world-model-ngsim", *WORLD_MODELS[name])
        made[name] = stage("train-world-model", output / "world-model" / name, WORLD_MODEL_FILE, options)
    drivers: list[str] = []
    for seed in range(seeds):
        for name in variants:
            model, more = VARIANTS[name]
            folder = output / "policy" / f"{name}-{seed}"
            of_model = ("--world-model", str(output / "world-model" / model / WORLD_MODEL_FILE), "--seed", str(seed))
            options = (*TRAINING, *GOALS, "--training.steps", str(steps), *of_model, *more)
            stage("train-policy", folder, POLICY_FILE, options, after=made[model])
            drivers += ["--driver", f"{name}=policy:{folder}"]
    verb = VERBS["benchmark"]
    module, config_class = verb.load()
    suite = ("--suite", "recorded", "--data", str(data), "--driver", "human")
    command = parse(verb, config_class, [*suite, *drivers, "--output", str(output / "benchmark")])
    module.run(command.config, ConsoleRun())
    return dict(json.loads((output / "benchmark" / "pooled.json").read_text(encoding="utf-8"))["recorded"])


def draw(results: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Success by the length of rollouts, beside the paper's; and of the other variants beside `REFERENCE`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4.0), constrained_layout=True)
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=[3, 2], sharey=True)
    lengths = [steps for steps in LENGTHS if f"length-{steps}" in results]
    of_length = [_success(results[f"length-{steps}"]) for steps in lengths]
    left.errorbar(
        lengths, *_bars(of_length), marker="o", capsize=3, label="here: US-101, mean and extremes of trainings"
    )
    left.plot(list(PAPER), list(PAPER.values()), "--s", color="0.6", label="paper: I-80, another policy and cost")
    left.set(xscale="log", xlabel="steps of a rollout in training (0.1 s each)", ylabel="episodes completed, %")
    left.set_xticks(sorted({*lengths, *PAPER}), [str(steps) for steps in sorted({*lengths, *PAPER})])
    left.minorticks_off()
    left.set_ylim(-3, 103)
    left.legend(fontsize=8)
    others = [name for name in VARIANTS if not name.startswith("length")]
    names = [name for name in (REFERENCE, *others) if name in results]
    middle, spread = _bars([_success(results[name]) for name in names])
    right.bar(range(len(names)), middle, yerr=spread, capsize=3, color=["C0", *["0.7"] * (len(names) - 1)])
    shown = [f"{_called(name)} ({results[name]['trainings']})" for name in names]
    right.set_xticks(range(len(names)), shown, rotation=25, ha="right", fontsize=8)
    right.set_xlabel("in parentheses: trainings")
    for axes in (left, right):
        axes.grid(alpha=0.3, axis="y")
        axes.spines[["top", "right"]].set_visible(False)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def _called(name: str) -> str:
    return "all of it" if name == REFERENCE else name.replace("-", " ")


def _success(pooled: Mapping[str, Any]) -> tuple[float, float, float]:
    """Mean, least and most over the trainings, %."""
    return 100 * pooled["success_rate"], 100 * pooled["success_least"], 100 * pooled["success_most"]


def _bars(values: Sequence[tuple[float, float, float]]) -> tuple[list[float], list[list[float]]]:
    """Middles, and how far the extremes lie below and above them."""
    below, above = ([abs(value[end] - value[0]) for value in values] for end in (1, 2))
    return [value[0] for value in values], [below, above]


if __name__ == "__main__":
    sys.exit(main())
