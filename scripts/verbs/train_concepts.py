"""`drivecast train-concepts`: an energy under which concepts are taught by a few demonstrations."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from drivecast.scripts.command.device import available_device
from drivecast.scripts.tracking.run import Run
from drivecast.scripts.verbs.training import train
from drivecast.worldmodel.concepts.relation_energy import RelationEnergyConfig
from drivecast.worldmodel.concepts.trainer import ConceptTrainer, ConceptTrainingConfig
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.scene.relations import RELATION_FEATURES

PANELS = [
    ("contrasts, nats", ["train/masks", "train/concepts", "train/drives", "train/shifted"]),
    ("energy: demonstrated (low), found by the sampler (high)", ["train/low", "train/high"]),
    ("share of stretches in which the right one is identified", ["*/identified", "*/held_out_identified"]),
    ("AUROC of stretches where it holds", ["*/retrieval", "*/held_out_retrieval"]),
]


@dataclass(frozen=True)
class TrainConceptsConfig:
    """Train the energy of concepts, under which `drivecast teach` finds what a few demonstrations have in common.

    It learns from recorded traffic in which rules say what holds of whom: follow at a time gap, keep beside or between,
    merge, open a gap, pass, match a speed. What a concept is is never told: its code is inferred, in each step, from
    demonstrations. Leaves OUTPUT/concepts.safetensors, the best in validation, and training-curves.png. Started again
    with the same settings, it goes on where it was stopped, to the last bit.

    Args:
        data: Folders of recording stores (from `drivecast ingest` or `drivecast record`); best of several kinds of
            traffic.
        output: Folder of the model.
        seed: Seed of weights, stretches and tasks.
        device: `cpu`, or `cuda` where there is one.
        model: Architecture.
        training: Training settings.
        name: Name under which the model is registered.
    """

    data: list[Path]
    output: Path
    seed: int = 0
    device: str = "cpu"
    model: RelationEnergyConfig = field(default_factory=RelationEnergyConfig)
    training: ConceptTrainingConfig = field(default_factory=ConceptTrainingConfig)
    name: str = "concepts"

    def __post_init__(self) -> None:
        if self.model.features != RELATION_FEATURES or self.model.all_pairs:
            raise InputError(f"model: traffic has {RELATION_FEATURES} features, and relations of the ego alone")


def run(config: TrainConceptsConfig, run: Run) -> None:
    """Label, train, report and register."""
    device = available_device(config.device)
    stores = [WindowStore.open(folder) for folder in config.data]
    run.say(f"looking for concepts in {config.training.stretches} stretches of 3 s, as recorded and at other speeds")
    trainer = ConceptTrainer(config.model, config.training, stores, config.output, config.seed, device)
    run.table(
        "concepts in stretches of 3 s",
        ["concept", "train", trainer.validated_on, "learned from"],
        [
            (name, str(count), str(trainer.unseen.counts()[name]), "yes" if name in trainer.tasks.names else "no")
            for name, count in trainer.labelled.counts().items()
        ],
    )
    done = trainer.resume()
    parameters = sum(parameter.numel() for parameter in trainer.network.parameters())
    run.log_params({"parameters": parameters, "labels": len(trainer.labelled.stretch)})
    train(trainer, done, run, "concepts", config.name, ["loss"], PANELS)
