"""What a joint embedding knows beside a generative model: probes, surprise and effective rank, in tables.

python -m drivecast.scripts.tools.joint_embedding_table --joint-embedding DIR --model DIR --data DIR --output DIR
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from drivecast.scripts.figures.joint_embedding_figure import draw_probes
from drivecast.worldmodel.energy.loaded_model import LoadedModel
from drivecast.worldmodel.evaluation.probe_table import ProbeConfig, probe_table
from drivecast.worldmodel.evaluation.probe_targets import QUANTITIES
from drivecast.worldmodel.evaluation.probes import Probed
from drivecast.worldmodel.evaluation.representations import (
    Representation,
    of_encoder,
    of_joint_embedding,
    of_memory,
    of_raw_state,
)
from drivecast.worldmodel.evaluation.scene_surprise import (
    Noticed,
    SceneEnergy,
    SurpriseConfig,
    of_jerks,
    of_prediction,
    of_scene_model,
    scene_surprise,
)
from drivecast.worldmodel.joint_embedding.energy import PredictionEnergy
from drivecast.worldmodel.joint_embedding.frames import window_frames
from drivecast.worldmodel.joint_embedding.loading import load_joint_embedding
from drivecast.worldmodel.joint_embedding.network import JointEmbedding
from drivecast.worldmodel.joint_embedding.objective import effective_rank
from drivecast.worldmodel.recordings.sampling import WindowRequest, WindowSampler
from drivecast.worldmodel.recordings.store import WindowStore

SCALE_WINDOWS = 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--joint-embedding", type=Path, action="append", default=[], help="folder; several: each a row")
    parser.add_argument("--model", action="append", default=[], help="generative world model; several: each a row")
    parser.add_argument("--data", type=Path, required=True, help="recording store")
    parser.add_argument("--windows", type=int, default=6000, help="to fit probes on")
    parser.add_argument("--scenes", type=int, default=400, help="of which each is spoilt in every way")
    parser.add_argument("--search-steps", type=int, default=20, help="of the search for the generative model's latents")
    parser.add_argument("--split", default="test", help="on which surprise and rank are measured")
    parser.add_argument("--output", type=Path, required=True, help="folder of tables.json and tables.md")
    arguments = parser.parse_args()
    store = WindowStore.open(arguments.data)
    embeddings = {folder.name: load_joint_embedding(folder) for folder in arguments.joint_embedding}
    models = {Path(name).name: LoadedModel.load(name) for name in arguments.model}
    probes = probe_table(_representations(embeddings, models), store, ProbeConfig(windows=arguments.windows))
    sys.stdout.write(_probes_text(probes))
    sys.stdout.flush()  # the rest takes longer
    energies = _energies(embeddings, models, store, arguments.search_steps)
    surprise = scene_surprise(energies, store, arguments.split, SurpriseConfig(windows=arguments.scenes))
    ranks = {name: _rank(model, store, arguments.split) for name, model in embeddings.items()}
    arguments.output.mkdir(parents=True, exist_ok=True)
    text = "\n".join([_probes_text(probes), _surprise_text(surprise), _ranks_text(ranks, embeddings)])
    (arguments.output / "tables.md").write_text(text, encoding="utf-8")
    drawn = {r: {q: [asdict(p) for p in each] for q, each in row.items()} for r, row in probes.items()}
    found = {
        "probes": drawn,
        "surprise": {r: {c: asdict(each) for c, each in row.items()} for r, row in surprise.items()},
        "effective_rank": ranks,
    }
    (arguments.output / "tables.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    draw_probes(drawn, ProbeConfig.seconds, arguments.output / "probes.png")
    sys.stdout.write("\n".join([_surprise_text(surprise), _ranks_text(ranks, embeddings)]))


def _representations(
    embeddings: Mapping[str, JointEmbedding], models: Mapping[str, LoadedModel]
) -> dict[str, Representation]:
    found: dict[str, Representation] = {}
    for name, model in embeddings.items():
        found[f"{name}, predicted"] = of_joint_embedding(model)
        found[f"{name}, encoder and moves"] = of_encoder(model)
    if embeddings:
        architecture = next(iter(embeddings.values())).config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            untrained = JointEmbedding(architecture).eval()
        found["random encoder and moves"] = of_encoder(untrained)
        found["raw state and moves"] = of_raw_state(untrained)
    for name, loaded in models.items():
        found[f"{name}, memory"] = of_memory(loaded.model)
    return found


def _energies(
    embeddings: Mapping[str, JointEmbedding], models: Mapping[str, LoadedModel], store: WindowStore, search_steps: int
) -> dict[str, SceneEnergy]:
    found: dict[str, SceneEnergy] = {}
    request = WindowRequest(round(2.0 / store.dt_s), round(5.0 / store.dt_s), 12)
    (window,) = WindowSampler([store], "train", request).draw(SCALE_WINDOWS, torch.Generator().manual_seed(0))
    for name, model in embeddings.items():
        frames, past = window_frames(window, model.config.dt_s, model.config.stride)
        found[f"{name}, prediction error"] = of_prediction(PredictionEnergy.measured(model, frames, past))
    for name, loaded in models.items():
        found[f"{name}, free energy"] = of_scene_model(loaded.model_energy, search_steps)
    found["no model: largest change of displacement"] = of_jerks()
    return found


@torch.no_grad()
def _rank(model: JointEmbedding, store: WindowStore, split: str) -> float:
    request = WindowRequest(round(2.0 / store.dt_s), round(5.0 / store.dt_s), 12)
    (window,) = WindowSampler([store], split, request).draw(1000, torch.Generator().manual_seed(1))
    frames, _ = window_frames(window, model.config.dt_s, model.config.stride)
    return effective_rank(model.encode(frames)[:, -1])


def _probes_text(probes: Mapping[str, Mapping[str, list[Probed]]]) -> str:
    lines = []
    for quantity in QUANTITIES:
        lines += [
            f"\n{quantity} ({'AUROC' if quantity == 'lane_change' else 'R²'})\n",
            _head(["1 s", "2 s", "3 s", "4 s", "5 s"]),
        ]
        for name, row in probes.items():
            lines.append(_row(name, [f"{each.score:.2f} [{each.low:.2f}, {each.high:.2f}]" for each in row[quantity]]))
    return "\n".join(lines) + "\n"


def _surprise_text(surprise: Mapping[str, Mapping[str, Noticed]]) -> str:
    names = list(next(iter(surprise.values())))
    lines = ["\nAUROC of spoilt scenes\n", _head(names)]
    for name, row in surprise.items():
        lines.append(_row(name, [f"{row[c].auroc:.2f} [{row[c].low:.2f}, {row[c].high:.2f}]" for c in names]))
    return "\n".join(lines) + "\n"


def _ranks_text(ranks: Mapping[str, float], embeddings: Mapping[str, JointEmbedding]) -> str:
    lines = ["\neffective rank\n", _head(["rank", "of dimensions"])]
    lines += [_row(name, [f"{rank:.1f}", str(embeddings[name].config.dims)]) for name, rank in ranks.items()]
    return "\n".join(lines) + "\n"


def _head(columns: list[str]) -> str:
    return _row("", columns) + "\n" + "|---" * (len(columns) + 1) + "|"


def _row(name: str, values: list[str]) -> str:
    return f"| {name} | " + " | ".join(values) + " |"


if __name__ == "__main__":
    main()
