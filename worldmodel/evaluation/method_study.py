"""All methods tuned equally, trained on the same recordings and judged on the same futures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from drivecast.worldmodel.energy_methods.coordinates import FutureCoordinates
from drivecast.worldmodel.energy_methods.gaussian import GaussianEnergy
from drivecast.worldmodel.energy_methods.latent_variable import LatentVariable
from drivecast.worldmodel.energy_methods.method import Examples, Method
from drivecast.worldmodel.energy_methods.methods import METHODS, MethodKind
from drivecast.worldmodel.energy_methods.recorded_examples import recorded_examples
from drivecast.worldmodel.energy_methods.training import MethodTrainingConfig, train
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.evaluation.method_exam import (
    Exam,
    best_temperature,
    exam_of,
    sample_quality,
    sampled,
    summary,
    told_apart,
)
from drivecast.worldmodel.recordings.store import WindowStore

VALIDATION_SEED, TEST_SEED, SAMPLING_SEED = 101, 102, 103
YARDSTICK = "Gaussian, no past"
TUNED_SAMPLES = 40  # validation futures that the temperature is chosen on


@dataclass(frozen=True)
class MethodStudyConfig:
    """The study.

    Args:
        horizon_s: Length of the futures that methods are tuned and compared on, s.
        other_horizons_s: Lengths on which each is trained once more, at the value chosen on the first.
        seeds: Trainings of each method.
        examples: Recorded futures to train from.
        vehicles: Recorded futures to judge on, and of each corruption at most.
        sampled: Those of them that samples are drawn for.
        effort: Factor on the steps of all trainings.
    """

    horizon_s: int = 3
    other_horizons_s: tuple[int, ...] = (1, 2, 5, 8)
    seeds: int = 3
    examples: int = 20_000
    vehicles: int = 400
    sampled: int = 150
    effort: float = 1.0

    def __post_init__(self) -> None:
        for name in ("horizon_s", "seeds", "examples", "vehicles", "sampled", "effort"):
            if getattr(self, name) <= 0:
                raise InputError(f"study.{name}: expected more than 0, got {getattr(self, name)}")


@dataclass(frozen=True)
class Course:
    """What is learned from and judged on, of one horizon."""

    examples: Examples
    coordinates: FutureCoordinates
    validation: Exam
    test: Exam


# measures that the caller adds to those of a trained method, given its horizon in s and its seed
More = Callable[[Method, Course, int, int], dict[str, Any]]


class MethodStudy:
    """Runs trainings one by one; what is known already is not run again.

    Args:
        store: The recordings.
        config: The study.
        runs: Results that are known, by `name of run`; new ones are added.
        more: Measures beside those of this module.
        on_run: Told after each run.
    """

    def __init__(
        self,
        store: WindowStore,
        config: MethodStudyConfig,
        runs: dict[str, dict[str, Any]],
        more: More,
        on_run: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self.store, self.config, self.runs, self.more, self.on_run = store, config, runs, more, on_run
        self._courses: dict[int, Course] = {}
        self._known: dict[tuple[str, float, int, int], tuple[Method, dict[str, Any]]] = {}

    def run(self) -> dict[str, float]:
        """All of it; the chosen value of each method's knob."""
        chosen = {}
        for kind in METHODS:
            tries = [self._tried(kind, value) for value in kind.values]
            best = max(range(len(tries)), key=lambda number: tries[number])
            chosen[kind.name] = kind.values[best]
        for horizon_s in (self.config.horizon_s, *self.config.other_horizons_s):
            self._yardstick(horizon_s)
        for seed in range(self.config.seeds):
            for kind in METHODS:
                self._judged(kind, chosen[kind.name], self.config.horizon_s, seed)
        for horizon_s in self.config.other_horizons_s:
            for kind in METHODS:
                self._judged(kind, chosen[kind.name], horizon_s, 0)
        return chosen

    def course(self, horizon_s: int) -> Course:
        """Prepared once for each horizon."""
        if horizon_s not in self._courses:
            store, config = self.store, self.config
            examples, coordinates = recorded_examples(store, "train", horizon_s, config.examples, 0, None)
            exams = [
                exam_of(store, split, horizon_s, coordinates, config.vehicles, seed)
                for split, seed in (("val", VALIDATION_SEED), ("test", TEST_SEED))
            ]
            self._courses[horizon_s] = Course(examples, coordinates, *exams)
        return self._courses[horizon_s]

    def _yardstick(self, horizon_s: int) -> None:
        """What needs no training."""
        name = f"{YARDSTICK} | {horizon_s} s"
        if name not in self.runs:
            dims = self.course(horizon_s).coordinates.dims
            what = {"method": YARDSTICK, "horizon_s": horizon_s, "seed": 0, "dims": dims, "seconds": 0.0}
            measured = self._measured(GaussianEnergy(), horizon_s, 0)
            self._add(name, {**what, "diverged": False, **measured})

    def _tried(self, kind: MethodKind, value: float) -> float:
        """Mean AUROC in validation, see `summary`; nothing where the training diverged."""
        name = f"{kind.name} | {value:g} | validation"
        if name not in self.runs:
            method, measures = self._trained(kind, value, self.config.horizon_s, 0)
            if not measures["diverged"]:
                told = told_apart(method, self.course(self.config.horizon_s).validation)
                measures |= {"told": told, "auroc": summary(told)}
            self._add(name, measures)
        return float(self.runs[name].get("auroc", {}).get("all", 0.0))

    def _judged(self, kind: MethodKind, value: float, horizon_s: int, seed: int) -> None:
        name = f"{kind.name} | {value:g} | {horizon_s} s | {seed}"
        if name in self.runs:
            return
        method, measures = self._trained(kind, value, horizon_s, seed)
        if not measures["diverged"]:
            measures |= self._measured(method, horizon_s, seed)
        self._add(name, measures)

    def _measured(self, method: Method, horizon_s: int, seed: int) -> dict[str, Any]:
        course = self.course(horizon_s)
        told = told_apart(method, course.test)
        measures: dict[str, Any] = {"told": told, "auroc": summary(told), "paired": summary(told, "paired")}
        if isinstance(method, LatentVariable):
            told = told_apart(method, course.test, by_beta=True)
            measures["by_beta"] = {"told": told, "auroc": summary(told), "paired": summary(told, "paired")}
        temperature = best_temperature(method, course.validation.part(TUNED_SAMPLES), SAMPLING_SEED)
        shown = course.test.part(self.config.sampled)
        measures["samples"] = sample_quality(sampled(method, shown, temperature, SAMPLING_SEED), shown)
        measures["temperature"] = temperature
        return measures | self.more(method, course, horizon_s, seed)

    def _trained(self, kind: MethodKind, value: float, horizon_s: int, seed: int) -> tuple[Method, dict[str, Any]]:
        """What was tried is not trained again."""
        key = (kind.name, value, horizon_s, seed)
        if key not in self._known:
            self._known[key] = self._trained_anew(kind, value, horizon_s, seed)
        method, measures = self._known[key]
        return method, dict(measures)

    def _trained_anew(self, kind: MethodKind, value: float, horizon_s: int, seed: int) -> tuple[Method, dict[str, Any]]:
        course = self.course(horizon_s)
        method = kind.seeded(course.coordinates, value, seed)
        config = MethodTrainingConfig(steps=max(round(kind.steps * self.config.effort), 1))
        how = train(method, course.examples, config, seed)
        last = how.losses[-max(len(how.losses) // 10, 1) :]
        measures = {
            "method": kind.name,
            "value": value,
            "horizon_s": horizon_s,
            "seed": seed,
            "dims": course.coordinates.dims,
            "steps": len(how.losses),
            "seconds": how.seconds,
            "diverged": how.diverged,
            "loss": sum(last) / len(last),
        }
        return method, measures

    def _add(self, name: str, measures: dict[str, Any]) -> None:
        self.runs[name] = measures
        self.on_run(name, measures)


def references(exam: Exam, seed: int = SAMPLING_SEED) -> dict[str, dict[str, float]]:
    """What samples are worth that know little: constant velocity, N(0, 1) of the coordinates; and what was recorded."""
    past = exam.recorded.past
    straight = torch.zeros_like(exam.path_m)[:, None].expand(-1, 2, -1, -1)
    time_s = 0.2 * torch.arange(1, exam.coordinates.frames + 1)
    straight = straight + past.velocity_mps[:, None, None] * time_s[:, None]
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(exam.recorded), 6, exam.coordinates.dims, generator=generator)
    return {
        "constant velocity": sample_quality(straight, exam),
        "N(0, 1), no past": sample_quality(exam.coordinates.path_m(noise, past), exam),
        "recorded": sample_quality(exam.path_m[:, None].expand(-1, 2, -1, -1), exam),
    }


def described(config: MethodStudyConfig) -> dict[str, Any]:
    """The study's settings, and each method's knob and tries, as plain JSON."""
    knobs = {kind.name: {"knob": kind.knob, "tried": list(kind.values), "steps": kind.steps} for kind in METHODS}
    return {**asdict(config), "methods": knobs}
