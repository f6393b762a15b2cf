"""Optimising a network: learning rate, loop, best weights, and the state that resumes it to the last bit."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.storage.checkpoint import load_training_state, save_model, save_training_state
from drivecast.worldmodel.storage.interrupts import held_back
from drivecast.worldmodel.training.crew import Crew

Log = Callable[[int, Mapping[str, float]], None]
LOG_EVERY = 10  # steps
SEEDS_BETWEEN_PROCESSES = 1_000_003
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Schedule(Protocol):
    """What an optimisation takes from the settings of its training; they explain the values."""

    @property
    def steps(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def gradient_clip(self) -> float: ...
    @property
    def validate_every(self) -> int: ...
    @property
    def checkpoint_every(self) -> int: ...


def learning_rate_share(step: int, steps: int, warmup: int = 100, falls_from: int = 100) -> float:
    """Share of the peak learning rate at `step`: a linear warm-up times a cosine from `falls_from` down to 2 %."""
    progress = min(max(step - falls_from, 0) / max(steps - falls_from, 1), 1.0)
    return min((step + 1) / warmup, 1.0) * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * progress)))


@dataclass(frozen=True)
class BestModel:
    """Where the weights go that are the best so far in validation, and what is stored with them.

    Attributes:
        path: The model file.
        kind: What it is, e.g. `world-model`.
        config: Architecture.
        extra: Plain JSON; the step, its validation and the seed are added to it.
    """

    path: Path
    kind: str
    config: object
    extra: Mapping[str, Any]


@dataclass
class Optimisation:
    """One optimisation of one network, resumable at every checkpoint to the last bit.

    The caller draws its batches with `batches` and all other noise with `noise`; both are resumed. Where `torchrun` has
    started several processes, each draws its share of a batch (`crew.share`) with generators of its own.

    Args:
        network: What is optimised, on its device.
        optimizer: Its optimiser; the learning rate is set here.
        schedule: Length, learning rate and cadence.
        best_model: Where the best weights go.
        state_path: Where the state to resume from goes.
        identity: All that the outcome depends on, plain JSON. Another identity's state is not resumed.
        seed: Seed of the generators.
        warmup: Steps of the learning rate's linear warm-up.
        falls_from: Step from which the learning rate falls.
        crew: The processes that train together.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    best_model: BestModel
    state_path: Path
    identity: Mapping[str, Any]
    seed: int = 0
    warmup: int = 100
    falls_from: int = 100
    crew: Crew = field(default_factory=Crew.launched)
    done_steps: int = field(default=0, init=False)
    best: float = field(default=math.inf, init=False)
    saved_at: int | None = field(default=None, init=False)  # step of the last checkpoint

    def __post_init__(self) -> None:
        several = {"processes": self.crew.count} if self.crew.count > 1 else {}
        self.identity = json.loads(json.dumps({**self.identity, **several}))  # compares equal to what was stored
        device = next(self.network.parameters()).device
        seed = self.seed + SEEDS_BETWEEN_PROCESSES * self.crew.rank
        self.batches = torch.Generator().manual_seed(seed)
        self.noise = torch.Generator(device).manual_seed(seed + 1)

    def train(
        self,
        step: Callable[[], dict[str, float]],
        validate: Callable[[], tuple[dict[str, float], float]],
        split: str,
        log: Log,
        on_step: Log = lambda *_: None,
    ) -> Path:
        """Go on to the last step; returns the path of the best model.

        Args:
            step: One step of the optimiser (`start_step`, `descend`, `finish_step`); returns what it measured.
            validate: Returns what it measured and the score by which models are compared; less is better.
            split: What `validate` looks at.
            log: Told the measures, as `train/NAME` and `SPLIT/NAME`.
            on_step: Told the measures of each step.

        Asked to end (Ctrl-C, or a signal that raises `KeyboardInterrupt`), it ends its step and writes a checkpoint
        first; asked a second time, it ends at once. Of several processes all end with the one that is asked.

        Raises `InputError` where there is no room left for what is written, `FloatingPointError` where a loss is not
        finite; the last checkpoint stands.
        """
        try:
            with held_back() as interrupts:
                while self.done_steps < self.schedule.steps:
                    self._advance(step, validate, split, log, on_step)
                    if self.crew.any(interrupts.waiting):
                        if self.saved_at != self.done_steps:
                            self.save_state()
                        interrupts.deliver()
                        if self.crew.count > 1:  # whoever was not asked itself ends, too
                            raise KeyboardInterrupt
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            raise InputError(
                f"{self.state_path.parent}: nothing can be written at step {self.done_steps} ({error.strerror}); "
                f"{self._last_checkpoint()}; make room and start again with the same settings to go on from there"
            ) from error
        return self.best_model.path

    def _advance(
        self,
        step: Callable[[], dict[str, float]],
        validate: Callable[[], tuple[dict[str, float], float]],
        split: str,
        log: Log,
        on_step: Log,
    ) -> None:
        """One step, with the validation and the checkpoint that are due after it: then everything is consistent."""
        measures = self.crew.average(step())
        self.done_steps += 1
        on_step(self.done_steps, measures)
        if self.done_steps % LOG_EVERY == 0:
            log(self.done_steps, {f"train/{name}": value for name, value in measures.items()})
        if self._is_due(self.schedule.validate_every) and self.crew.leads:
            validation, score = validate()
            log(self.done_steps, {f"{split}/{name}": value for name, value in validation.items()})
            self._keep_if_best(validation, score)
        if self._is_due(self.schedule.checkpoint_every):
            self.save_state()

    def _is_due(self, every: int) -> bool:
        return self.done_steps % every == 0 or self.done_steps == self.schedule.steps

    def _last_checkpoint(self) -> str:
        if self.saved_at is None:
            return "no checkpoint was written yet"
        return f"the last good checkpoint is {self.state_path}, of step {self.saved_at}"

    def start_step(self) -> None:
        """Set the learning rate of this step and forget the last gradient."""
        share = learning_rate_share(self.done_steps, self.schedule.steps, self.warmup, self.falls_from)
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.learning_rate * share
        self.optimizer.zero_grad(set_to_none=True)

    def descend(self, loss: Tensor, name: str = "loss", where: str = "") -> None:
        """Add the gradient of `loss`, of one part of the batch; `name` and `where` (which part) are for the error."""
        if not torch.isfinite(loss):
            at = f"step {self.done_steps} {where}".rstrip()
            raise FloatingPointError(f"{name} is {loss.item()} at {at}; {self._last_checkpoint()}")
        loss.backward()

    def finish_step(self) -> float:
        """Move by the clipped gradient; returns its norm before. One that isn't finite loses its turn, not the run."""
        self.crew.average_gradients(self.network.parameters())
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.schedule.gradient_clip)
        if torch.isfinite(norm):
            self.optimizer.step()
        return float(norm)

    def _keep_if_best(self, validation: Mapping[str, float], score: float) -> None:
        if score < self.best:
            self.best = score
            best = self.best_model
            extra = {**best.extra, "step": self.done_steps, "validation": validation, "seed": self.seed}
            save_model(best.path, self.network, best.kind, best.config, extra)

    def save_state(self) -> None:
        """Write all that `resume` needs, atomically."""
        batches, noise = self.crew.gather(self.batches.get_state()), self.crew.gather(self.noise.get_state())
        if self.crew.leads:
            save_training_state(
                self.state_path,
                config=self.identity,
                network=self.network.state_dict(),
                optimizer=self.optimizer.state_dict(),
                batches=batches,
                noise=noise,
                done_steps=self.done_steps,
                best=self.best,
            )
        self.saved_at = self.done_steps

    def resume(self) -> int:
        """Take up the saved state if there is one; returns the steps already done."""
        if not self.state_path.is_file():
            return 0
        state = load_training_state(self.state_path)
        if state["config"] != self.identity:
            others = "" if state["config"].get("processes", 1) == self.crew.count else " or another number of processes"
            raise InputError(
                f"{self.state_path}: belongs to a run with other settings{others}; choose another --output or delete it"
            )
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.batches.set_state(self.crew.own(state["batches"]))
        self.noise.set_state(self.crew.own(state["noise"]))
        self.done_steps, self.best = state["done_steps"], state["best"]
        self.saved_at = self.done_steps
        return self.done_steps
