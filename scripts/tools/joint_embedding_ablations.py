"""What each term of a joint embedding's loss is for: trained without it, and what becomes of rank, probes and plans.

python -m drivecast.scripts.tools.joint_embedding_ablations --data DIR --output DIR
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from drivecast.planner.planning.readout_fitting import ReadoutFittingConfig, fit_readout
from drivecast.scripts.driving.candidate_plans import CandidatePlans, CandidatePlansConfig, candidate_plans
from drivecast.scripts.driving.plan_ranking import embedded_cost, ranking
from drivecast.scripts.figures.joint_embedding_figure import draw_collapse
from drivecast.worldmodel.evaluation.probe_table import ProbeConfig, probe_table
from drivecast.worldmodel.evaluation.representations import of_joint_embedding
from drivecast.worldmodel.evaluation.scene_surprise import SurpriseConfig, of_prediction, scene_surprise
from drivecast.worldmodel.joint_embedding.energy import PredictionEnergy
from drivecast.worldmodel.joint_embedding.frames import window_frames
from drivecast.worldmodel.joint_embedding.network import JointEmbedding, JointEmbeddingConfig
from drivecast.worldmodel.joint_embedding.objective import JointEmbeddingObjectiveConfig
from drivecast.worldmodel.joint_embedding.trainer import JointEmbeddingTrainer, JointEmbeddingTrainingConfig
from drivecast.worldmodel.recordings.sampling import WindowRequest, WindowSampler
from drivecast.worldmodel.recordings.store import WindowStore

MODEL = JointEmbeddingConfig(dims=64, hidden=128)
FULL = JointEmbeddingTrainingConfig(batch=96)
FITTING = ReadoutFittingConfig(windows=4000, steps=3000)
SECONDS = (1, 3, 5)


def without(**terms: float) -> JointEmbeddingTrainingConfig:
    """The full training with other weights of these terms."""
    return replace(FULL, objective=replace(JointEmbeddingObjectiveConfig(), **terms))


VARIANTS: dict[str, tuple[JointEmbeddingConfig, JointEmbeddingTrainingConfig]] = {
    "all terms": (MODEL, FULL),
    "no variance": (MODEL, without(variance=0.0)),
    "no covariance": (MODEL, without(covariance=0.0)),
    "no inverse dynamics": (MODEL, without(inverse_dynamics=0.0)),
    "no similarity": (MODEL, without(similarity=0.0)),
    "recorded ways only": (MODEL, replace(FULL, other_ways_share=0.0)),
    "four latents": (replace(MODEL, latent_dims=4), FULL),
    "prediction alone": (MODEL, without(variance=0.0, covariance=0.0, inverse_dynamics=0.0)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="recording store")
    parser.add_argument("--output", type=Path, required=True, help="folder of the models, results.json and figure")
    parser.add_argument("--steps", type=int, default=800, help="of each training")
    parser.add_argument("--scenes", type=int, default=30, help="whose plans are ranked")
    parser.add_argument("--windows", type=int, default=3000, help="that probes are fitted on")
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    store = WindowStore.open(arguments.data)
    config = CandidatePlansConfig(scenes=arguments.scenes)
    plans = candidate_plans(config, arguments.seed)
    results: dict[str, dict[str, Any]] = {}
    for name in arguments.variants:
        model, curves = trained(name, store, arguments.output, arguments.steps, arguments.seed)
        results[name] = {"curves": curves, **measured(model, store, plans, config, arguments.windows)}
        sys.stdout.write(f"{row(name, results[name])}\n")
        sys.stdout.flush()
        (arguments.output / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    (arguments.output / "table.md").write_text(table(results), encoding="utf-8")
    draw_collapse({name: each["curves"] for name, each in results.items()}, arguments.output / "collapse.png")


def trained(
    name: str, store: WindowStore, output: Path, steps: int, seed: int
) -> tuple[JointEmbedding, list[dict[str, float]]]:
    """The last model of a variant, and its measures on validation through training."""
    architecture, training = VARIANTS[name]
    every = max(steps // 16, 1)
    training = replace(training, steps=steps, validate_every=every, checkpoint_every=steps)
    folder = output / name.replace(" ", "-")
    trainer = JointEmbeddingTrainer(architecture, training, [store], folder, seed)
    curves: list[dict[str, float]] = []

    def log(step: int, values: Mapping[str, float]) -> None:
        seen = {key.partition("/")[2]: value for key, value in values.items() if key.startswith(trainer.validated_on)}
        if seen:
            curves.append({"step": step, **seen})

    trainer.resume()
    trainer.train(log)
    # the losses of variants differ, and so do the models that are best by them: all are judged as they ended
    return trainer.network.eval().requires_grad_(False), curves


def measured(
    model: JointEmbedding, store: WindowStore, plans: CandidatePlans, config: CandidatePlansConfig, windows: int
) -> dict[str, Any]:
    """Probes, surprise, readout and plan ranking of one model."""
    fitted = WindowSampler([store], "train", _request(store))
    readout, unexplained = fit_readout(model, fitted, FITTING)
    ranked = ranking(embedded_cost(model, readout, plans, config), plans)
    probes = probe_table({"it": of_joint_embedding(model)}, store, ProbeConfig(SECONDS, windows))["it"]
    (window,) = fitted.draw(400, torch.Generator().manual_seed(0))
    frames, past = window_frames(window, model.config.dt_s, model.config.stride)
    energy = of_prediction(PredictionEnergy.measured(model, frames, past))
    noticed = scene_surprise({"it": energy}, store, "test", SurpriseConfig())["it"]
    return {
        "unexplained": unexplained,
        "spearman": [ranked.spearman.value, ranked.spearman.low, ranked.spearman.high],
        "probes": {quantity: [each.score for each in row] for quantity, row in probes.items()},
        "surprise": {kind: each.auroc for kind, each in noticed.items()},
    }


def _request(store: WindowStore) -> WindowRequest:
    return WindowRequest(round(2.0 / store.dt_s), round(5.0 / store.dt_s), FULL.max_agents)


HEAD = (
    "| trained | effective rank | least spread | gap R² 1/3/5 s | speed R² 1/3/5 s | surprise, mean AUROC "
    "| proximity unexplained | Spearman [95 %] |\n|---|---|---|---|---|---|---|---|"
)


def row(name: str, result: Mapping[str, Any]) -> str:
    last, (value, low, high) = result["curves"][-1], result["spearman"]
    gap, speed = (" / ".join(f"{each:.2f}" for each in result["probes"][quantity]) for quantity in ("gap", "speed"))
    surprise = sum(result["surprise"].values()) / len(result["surprise"])
    cells = [
        f"{last['effective_rank']:.1f}",
        f"{last['least_std']:.2f}",
        gap,
        speed,
        f"{surprise:.2f}",
        f"{result['unexplained']['proximity']:.2f}",
        f"{value:.2f} [{low:.2f}, {high:.2f}]",
    ]
    return f"| {name} | " + " | ".join(cells) + " |"


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    return "\n".join([HEAD, *(row(name, result) for name, result in results.items())]) + "\n"


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
