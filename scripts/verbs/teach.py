"""`drivecast teach`: a concept from a few demonstrations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from drivecast.envs.replay.episode import Episode
from drivecast.scripts.command.output import refuse_foreign_file
from drivecast.scripts.driving.registry import resolve_model
from drivecast.scripts.tracking.run import Run
from drivecast.worldmodel.concepts.loading import is_concept, load_concepts
from drivecast.worldmodel.concepts.teaching import Demonstration, taught_concept
from drivecast.worldmodel.errors import InputError
from drivecast.worldmodel.forecaster.loading import PRETRAINED
from drivecast.worldmodel.scene.entities import MOST_ENTITIES
from drivecast.worldmodel.scene.lane_neighbours import nearest_indices

FORM = "EPISODE@FROM-TO[:VEHICLE[+VEHICLE]]"
_DEMONSTRATION = re.compile(r"(?P<file>.+)@(?P<begin>[\d.]+)-(?P<end>[\d.]+)(?::(?P<about>\d+(?:\+\d+)?))?")
MOST_DEMONSTRATIONS = 5


@dataclass(frozen=True)
class TeachConfig:
    """Teach a concept: find the code that a few demonstrations have in common.

    Each demonstration is a stretch of an episode that `drivecast evaluate` kept, in which the ego does what is meant.
    Leaves OUTPUT, a small JSON file: drive by it with `drivecast evaluate --driver planner:PATH --concept OUTPUT`.

    Args:
        demonstration: EPISODE@FROM-TO[:VEHICLE]: file of an episode, the seconds from and to between which it shows the
            concept (about 3 s), and the number that the replay gives the car that it is about, or two of them as 3+5.
            Without one, whom it is about is inferred. Repeatable, up to 5 times.
        output: File of the concept, such as follow.json.
        concepts: Energy of concepts: pretrained:concepts, or one from `drivecast train-concepts`: its file, its
            folder, or models:/NAME/VERSION.
        attends_to: How many others it is about where no demonstration says so: 1 or 2.
        name: What it is called; empty: as its file.
    """

    demonstration: list[str]
    output: Path
    concepts: str = "pretrained:concepts"
    attends_to: int = 1
    name: str = ""

    def __post_init__(self) -> None:
        if not 1 <= len(self.demonstration) <= MOST_DEMONSTRATIONS:
            raise InputError(f"demonstration: expected 1 to {MOST_DEMONSTRATIONS}, got {len(self.demonstration)}")
        if self.attends_to not in (1, 2):
            raise InputError(f"attends_to: expected 1 or 2, got {self.attends_to}")
        for text in self.demonstration:
            _parsed(text)


def run(config: TeachConfig, run: Run) -> None:
    """Read the demonstrations, infer the code, say how well it fits, write it."""
    if config.output.suffix != ".json":
        raise InputError(f"output: expected a file NAME.json, got {config.output}")
    refuse_foreign_file(config.output, is_concept(config.output))
    comes_along = config.concepts.startswith(PRETRAINED)
    model = load_concepts(config.concepts if comes_along else resolve_model(config.concepts))
    shown = [_demonstration(text) for text in config.demonstration]
    name = config.name or config.output.stem
    concept, fits = taught_concept(model, [each for each, _ in shown], name, config.demonstration, config.attends_to)
    config.output.parent.mkdir(parents=True, exist_ok=True)
    concept.write(config.output)
    run.table(
        f"concept '{name}': energy of its demonstrations, and the share of other attention that lies higher",
        ["demonstration", "about", "energy", "higher"],
        [
            (text, "+".join(str(who[i]) for i in fit.about), f"{fit.energy:.3f}", f"{100 * fit.higher:.0f} %")
            for text, (_, who), fit in zip(config.demonstration, shown, fits, strict=True)
        ],
    )
    run.log_metrics({"energy": concept.energy, "higher": sum(fit.higher for fit in fits) / len(fits)}, 0)
    run.log_artifact(config.output)
    run.say(f"concept: {config.output}; drive by it with --driver planner:PATH --concept {config.output}")


def _parsed(text: str) -> tuple[Path, float, float, tuple[int, ...]]:
    found = _DEMONSTRATION.fullmatch(text)
    if found is None:
        raise InputError(f"demonstration '{text}': expected {FORM}, such as runs/idm/episodes/e1.parquet@4-7:3")
    try:
        begin, end = float(found["begin"]), float(found["end"])
    except ValueError:
        raise InputError(f"demonstration '{text}': expected seconds, such as 4.5-7.5") from None
    about = tuple(int(each) for each in (found["about"] or "").split("+") if each)
    if end <= begin:
        raise InputError(f"demonstration '{text}': expected it to end after it begins, in seconds")
    if 0 in about or len(set(about)) < len(about):
        raise InputError(f"demonstration '{text}': expected other vehicles than the ego, each once")
    return Path(found["file"]), begin, end, about


def _demonstration(text: str) -> tuple[Demonstration, Sequence[int]]:
    """The demonstration, and the numbers that the replay gives its vehicles."""
    file, begin, end, about = _parsed(text)
    episode = Episode.read(file)
    dt_s = episode.metadata.dt_s
    first, last = round(begin / dt_s), round(end / dt_s)
    if last > episode.steps:
        raise InputError(f"demonstration '{text}': the episode ends after {episode.duration_s:.1f} s")
    agents = episode.states.valid.shape[1]
    for vehicle in about:
        if vehicle >= agents or not bool(episode.states.valid[first : last + 1, vehicle].all()):
            raise InputError(
                f"demonstration '{text}': vehicle {vehicle} is not there from {begin:g} to {end:g} s; "
                "give a number that the replay shows"
            )
    states = episode.states[None, first : last + 1]
    throughout = states.valid.all(1)
    middle = replace(states[:, states.valid.shape[1] // 2], valid=throughout)
    meant = torch.zeros_like(throughout)
    meant[0, list(about)] = True
    who = nearest_indices(middle, MOST_ENTITIES - 1, meant)[0]
    who = who[throughout[0, who]]
    numbers = who.tolist()
    return Demonstration(states[:, :, who], episode.road, dt_s, tuple(map(numbers.index, about))), numbers
