"""Training the energy of concepts: tasks of a few demonstrations each, codes inferred on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from drivecast.worldmodel.concepts.demonstrations import STRETCH_S, Labelled, labelled, stretches, with_other_speeds
from drivecast.worldmodel.concepts.examination import examined
from drivecast.worldmodel.concepts.inference import InferenceConfig
from drivecast.worldmodel.concepts.loading import CONCEPTS_FILE, CONCEPTS_KIND
from drivecast.worldmodel.concepts.objective import ConceptObjectiveConfig, Task, Tasks, loss_of
from drivecast.worldmodel.concepts.relation_energy import RelationEnergy, RelationEnergyConfig
from drivecast.worldmodel.concepts.rules import HELD_OUT, RULES
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.recordings.store import WindowStore
from drivecast.worldmodel.training.optimisation import BestModel, Log, Optimisation

WARMUP = 50  # steps


@dataclass(frozen=True)
class ConceptTrainingConfig:
    """Training of the energy of concepts.

    Args:
        steps: Optimiser steps.
        batch: Concepts of a batch, each with its demonstrations and one more stretch.
        shots: Demonstrations of a concept, at most; each batch has one to so many.
        shortest_frames: Frames of 0.2 s that a stretch is cut to, at least.
        stretches: Of 3 s, drawn from the recordings and labelled once at the start.
        scale: Beside each of them stands the same one with lengths along the road and speeds up to so many times as
            large or small, labelled for itself; 1: none.
        held_out: Concepts that are left out, to be taught later to a model that never saw them.
        learning_rate: Peak of the Adam learning rate.
        weight_decay: AdamW's weight decay.
        gradient_clip: Largest norm of the gradient.
        validate_every: Steps between validations.
        validation_tasks: Tasks of each concept in a validation.
        checkpoint_every: Steps between checkpoints.
        objective: The loss.
        inference: Inference of codes and drives on the way.
    """

    steps: int = 2000
    batch: int = 32
    shots: int = 3
    shortest_frames: int = 6
    stretches: int = 60_000
    scale: float = 2.2
    held_out: tuple[str, ...] = HELD_OUT
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    gradient_clip: float = 5.0
    validate_every: int = 200
    validation_tasks: int = 32
    checkpoint_every: int = 100
    objective: ConceptObjectiveConfig = field(default_factory=ConceptObjectiveConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)

    def __post_init__(self) -> None:
        least = {"batch": 2, "shortest_frames": 2}
        for name in ("steps", "shots", "stretches", "validate_every", "validation_tasks", "checkpoint_every", *least):
            if getattr(self, name) < least.get(name, 1):
                raise InputError(f"training.{name}: expected at least {least.get(name, 1)}, got {getattr(self, name)}")
        known = {rule.name for rule in RULES}
        for name in self.held_out:
            if name not in known:
                raise InputError(f"training.held_out: expected some of {', '.join(sorted(known))}; got '{name}'")
        if self.scale < 1.0:
            raise InputError(f"training.scale: expected at least 1, got {self.scale}")
        if self.learning_rate <= 0.0 or self.gradient_clip <= 0.0:
            raise InputError("training: expected learning_rate and gradient_clip above 0")


@dataclass
class ConceptTrainer:
    """One training run, resumable at every checkpoint to the last bit.

    Args:
        model: Architecture.
        config: Training settings.
        stores: Recordings; stretches of their `train` split are learned from, those of `val` validated on.
        output: Folder of `concepts.safetensors` (the best so far in validation) and `training-state.pt`.
        seed: Seed of weights, stretches and tasks.
        device: Device to train on.
    """

    model: RelationEnergyConfig
    config: ConceptTrainingConfig
    stores: Sequence[WindowStore]
    output: Path
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        config, output = self.config, Path(self.output)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.network = RelationEnergy(self.model).to(self.device)
        names = tuple(rule.name for rule in RULES if rule.name not in config.held_out)
        self.labelled = self._labelled("train", config.stretches, self.seed)
        self.tasks = Tasks(self.labelled, names, config.shots)
        steps = round(STRETCH_S / self.stores[0].dt_s)
        has_validation = any(len(store.rows("val", 1, steps)) for store in self.stores)
        self.validated_on = "val" if has_validation else "train"
        most = max(config.stretches // 5, 1)
        self.unseen = self._labelled(self.validated_on, most, self.seed + 1)
        data = [store.fingerprint for store in self.stores]
        taught = {"trained_on": list(self.tasks.names), "held_out": list(config.held_out)}
        self.optimisation = Optimisation(
            self.network,
            torch.optim.AdamW(self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay),
            config,
            BestModel(
                output / CONCEPTS_FILE,
                CONCEPTS_KIND,
                self.model,
                {"data": data, "inference": asdict(config.inference), **taught},
            ),
            output / "training-state.pt",
            {"model": asdict(self.model), "training": asdict(config), "seed": self.seed, "data": data},
            self.seed,
            warmup=WARMUP,
        )

    def _labelled(self, split: str, most: int, seed: int) -> Labelled:
        generator = torch.Generator().manual_seed(seed)
        found = stretches(self.stores, split, most, generator)
        if split == "train" and self.config.scale > 1.0:
            found = with_other_speeds(found, self.config.scale, generator)
        return labelled(found)

    def resume(self) -> int:
        """Take up `training-state.pt` if there is one; returns the steps already done."""
        return self.optimisation.resume()

    def train(self, log: Log, on_step: Log = lambda *_: None) -> Path:
        """Train to `config.steps`; returns the path of the best model. Resumes where `resume()` left it."""
        return self.optimisation.train(self._step, self._validate, self.validated_on, log, on_step)

    def _step(self) -> dict[str, float]:
        config, optimisation = self.config, self.optimisation
        optimisation.start_step()
        shots = int(torch.randint(1, config.shots + 1, (), generator=optimisation.batches))
        task = self._to_device(self.tasks.draw(config.batch, shots, optimisation.batches, config.shortest_frames))
        parts = loss_of(self.network, task, shots, config.objective, config.inference, optimisation.noise)
        optimisation.descend(parts["loss"], where=f"on concepts {task.concept.tolist()}")
        measures = {name: value.item() for name, value in parts.items()}
        return measures | {"gradient_norm": optimisation.finish_step()}

    def _to_device(self, task: Task) -> Task:
        return Task(**{name: values.to(self.device) for name, values in vars(task).items()})

    def _validate(self) -> tuple[dict[str, float], float]:
        """How well concepts that are trained on, and those held out, are recognised from demonstrations."""
        config = self.config
        measures = {}
        for kind, names in (("", self.tasks.names), ("held_out_", config.held_out)):
            found = examined(
                self.network, self.unseen, names, config.shots, config.validation_tasks, config.inference, self.seed + 2
            )
            if found:
                for measure in ("identified", "retrieval"):
                    values = [getattr(each, measure) for each in found.values()]
                    measures[kind + measure] = sum(values) / len(values)
        if "identified" not in measures:
            raise InputError(
                f"split '{self.validated_on}' shows none of the concepts often enough to validate; record more"
            )
        # of both, for one that knows whom and not what is of no use, nor the other way round
        return measures, -(measures["identified"] + measures["retrieval"])
