"""Teaches concepts in the plane by few scenes, judges and draws them: `... tools.plane_concepts OUT.png`.

Trains the energy (about five minutes of one core), then says for 1, 3 and 5 demonstrations how often the concept holds
in scenes that the energy makes, and how often it finds of whom it holds; beside random codes and chance.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from drivecast.envs.evaluation.statistics import wilson_interval
from drivecast.worldmodel.concepts.plane import Events, Scenes, attentions, possible
from drivecast.worldmodel.concepts.plane_energy import (
    PlacingConfig,
    energy_of,
    energy_of_attentions,
    identified,
    inferred_places,
    scattered,
    taught,
)
from drivecast.worldmodel.concepts.plane_rules import BY_NAME, CONCEPTS, HELD_OUT, TRAINED
from drivecast.worldmodel.concepts.plane_training import EventBank, PlaneTrainingConfig, train
from drivecast.worldmodel.concepts.relation_energy import RelationEnergy
from drivecast.worldmodel.storage.files import atomic_file

SHOTS = (1, 3, 5)
GENERATION = PlacingConfig(steps=40, step=0.15, noise=0.1)
STARTS, MASK_STEPS = 4, 20  # inference begins anew so often, and the result of least energy is kept
SHADES = ("#D55E00", "#009E73", "#0072B2")
SHOWN = ("distance-0.45-red", "offset-135-green", "between-red", "circle-0.5", "together-3-green", "red-then-blue")
PICTURED = ("distance-0.45-red", "offset-135-green", "between-red")
SHOWN_SHOTS = 3


@dataclass(frozen=True)
class Judged:
    """What came of tasks, `(task,)` each; of taught codes, of random ones (as widely spread), and by chance.

    Attributes:
        concept: Its number.
        generated: Bool `(task, 3)`: it holds of those attended to after inference, or where they began.
        identified: `(task, 3)`: the attention of least energy is right; the last: the share of attentions that are.
        overlap: `(task, 3)`: intersection over union of the attention found by gradient, or drawn, and a right one.
    """

    concept: Tensor
    generated: Tensor
    identified: Tensor
    overlap: Tensor

    def of(self, names: Sequence[str]) -> Judged:
        """Of these concepts alone."""
        some = torch.isin(self.concept, torch.tensor([BY_NAME[name] for name in names]))
        return Judged(*(values[some] for values in vars(self).values()))


def held_in(events: Events, scenes: Scenes) -> Tensor:
    """Bool `(event,)`: the concept of each event holds of `scenes` of those attended to."""
    found = torch.zeros(len(events.concept), dtype=torch.bool)
    for number in events.concept.unique().tolist():
        concept, some = CONCEPTS[number], events.concept == number
        roles = len(concept.colours)
        found[some] = concept.holds(scenes.position[some, :, :roles], scenes.colour[some, :roles])
    return found


def overlap(found: Tensor, positives: Tensor) -> Tensor:
    """Intersection over union `(batch,)` of `found (batch, entity)`, bool, with the nearest of the right attentions."""
    every = attentions()
    both, either = (found[:, None] & every).sum(-1), (found[:, None] | every).sum(-1)
    return (both / either).masked_fill(~positives, 0.0).amax(1)


def generated(model: RelationEnergy, events: Events, code: Tensor, generator: torch.Generator) -> tuple[Scenes, Scenes]:
    """Those attended to with whoever moves placed anew: of several starts the one of least energy, and that start."""
    alone = events.alone.map(lambda values: values.repeat_interleave(STARTS, 0))
    moves, codes = events.moves.repeat_interleave(STARTS, 0), code.repeat_interleave(STARTS, 0)
    start = scattered(alone, moves, generator)
    made = inferred_places(model, start, moves, codes, GENERATION, generator)
    with torch.no_grad():
        least = energy_of(model, made, codes).view(-1, STARTS).argmin(1)
    best = torch.arange(len(code)) * STARTS + least
    return made[best], start[best]


def judged(
    model: RelationEnergy, names: Sequence[str], shots: int, tasks: int, config: PlaneTrainingConfig, seed: int
) -> Judged:
    """`tasks` tasks of each concept, with events that no training has seen."""
    generator = torch.Generator().manual_seed(seed)
    bank = EventBank(names, tasks + shots, generator)
    inference = replace(config.inference, mask_steps=MASK_STEPS)
    parts = []
    for kind, some in enumerate(bank.names):
        concepts = torch.arange(len(some)).repeat_interleave(tasks)
        demonstrations, events = bank.task(kind, concepts, shots, generator)
        code = taught(model, demonstrations, shots, inference)
        alike = code.mean(0) + code.std(0) * torch.randn(code.shape, generator=generator)
        made, right, found = [], [], []
        for each in (code, alike):
            made.append(held_in(events, generated(model, events, each, generator)[0]))
            with torch.no_grad():
                least = energy_of_attentions(model, events.scenes, each).argmin(1)
            right.append(events.positives[torch.arange(len(least)), least].float())
            mask = identified(model, events.scenes, each, inference, STARTS, generator) > 0.5
            found.append(overlap(mask, events.positives))
        there = possible(events.scenes)
        drawn = attentions()[torch.multinomial(there.float(), 1, generator=generator)[:, 0]]
        made.append(held_in(events, scattered(events.alone, events.moves, generator)))
        right.append(events.positives.sum(1) / there.sum(1))
        found.append(overlap(drawn, events.positives))
        parts.append((events.concept, torch.stack(made, 1), torch.stack(right, 1), torch.stack(found, 1)))
    return Judged(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _share(values: Tensor) -> str:
    share = wilson_interval(float(values.sum()), len(values))
    return f"{share.value:5.1%} [{share.low:.1%}, {share.high:.1%}]"


def lines(results: dict[int, Judged]) -> list[str]:
    """The tables as text: all concepts by demonstrations, and families with the middle number of them."""
    head = f"{'tasks':>6} {'generated':>24} {'random':>7} {'chance':>7} {'identified':>24} {'random':>7} {'chance':>7}"
    head += f" {'IoU':>5} {'random':>7} {'chance':>7}"
    shown = [f"{'concepts, demonstrations':30}" + head]
    groups = {"trained": TRAINED, "held out": HELD_OUT}
    for shots, result in results.items():
        shown += [_line(f"{group}, {shots}", result.of(names)) for group, names in groups.items()]
    shots = list(results)[len(results) // 2]
    shown += ["", f"by family, {shots} demonstrations"]
    for group, names in groups.items():
        for family in dict.fromkeys(CONCEPTS[BY_NAME[name]].family for name in names):
            some = [name for name in names if CONCEPTS[BY_NAME[name]].family == family]
            shown.append(_line(f"{family} ({len(some)} {group})", results[shots].of(some)))
    return shown


def _line(label: str, result: Judged) -> str:
    made, right, over = result.generated.float(), result.identified, result.overlap.mean(0)
    cells = [f"{len(made):6}", f"{_share(made[:, 0]):>24}", *(f"{float(made[:, k].mean()):7.1%}" for k in (1, 2))]
    cells += [f"{_share(right[:, 0]):>24}", *(f"{float(right[:, k].mean()):7.1%}" for k in (1, 2))]
    return f"{label:30}" + " ".join([*cells, f"{over[0]:5.2f}", f"{over[1]:7.2f}", f"{over[2]:7.2f}"])


# --- the figure


def draw(path: Path, model: RelationEnergy, config: PlaneTrainingConfig, seed: int) -> None:
    """Demonstrations and generated scenes, and energies of where one entity is."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 11), constrained_layout=True)
    FigureCanvasAgg(figure)
    parts: Any = figure.subfigures(2, 1, height_ratios=(3.0, 2.1))
    upper, lower = parts
    axes = upper.subplots(3, len(SHOWN))
    for column, name in enumerate(SHOWN):
        _draw_generated(axes[:, column], model, name, config, seed)
    for axis, label in zip(axes[:, 0], ("demonstrated (1 of 3)", "generated", "generated"), strict=True):
        axis.set_ylabel(label)
    for axis, name in zip(lower.subplots(1, len(PICTURED)), PICTURED, strict=True):
        mesh = _draw_energy(axis, model, name, config, seed)
        lower.colorbar(mesh, ax=axis, shrink=0.9, label="energy")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=90, format="png")


def _label(name: str) -> str:
    return f"{name}, held out" if name in HELD_OUT else name


def _task(name: str, tasks: int, shots: int, seed: int) -> tuple[Scenes, Events, torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    bank = EventBank([name], tasks + shots, generator)
    return *bank.task(0, torch.zeros(tasks, dtype=torch.long), shots, generator), generator


def _draw_generated(axes: Any, model: RelationEnergy, name: str, config: PlaneTrainingConfig, seed: int) -> None:
    demonstrations, events, generator = _task(name, 2, SHOWN_SHOTS, seed)
    code = taught(model, demonstrations, SHOWN_SHOTS, config.inference)
    made, start = generated(model, events, code, generator)
    holds = held_in(events, made)
    _draw_scene(axes[0], demonstrations[:1], None)
    axes[0].set_title(_label(name), fontsize=9)
    for row in range(2):
        _draw_scene(axes[row + 1], made[row : row + 1], start[row : row + 1])
        axes[row + 1].set_title("holds" if holds[row] else "does not hold", fontsize=8, loc="left")


def _draw_scene(axis: Any, scene: Scenes, start: Scenes | None) -> None:
    """Those attended to; arrows from where they began, or the path over the frames."""
    frames = scene.position.shape[1]
    for entity, colour in enumerate(scene.colour[0].tolist()):
        if colour < 0:
            continue
        path = scene.position[0, :, entity]
        moving = frames > 1 and bool((path[0] - path[-1]).norm() > 1e-6)
        if moving:
            axis.plot(*path.T, color=SHADES[colour], linewidth=1.0, zorder=1)
            for frame, (x, y) in enumerate(path.tolist()):
                axis.annotate(str(frame + 1), (x, y), (4, 4), textcoords="offset points", fontsize=7)
        axis.scatter(
            *path.T, s=22 if moving else 60, color=SHADES[colour], edgecolors="black", linewidths=0.5, zorder=2
        )
        if start is not None and frames == 1:
            begun = start.position[0, 0, entity]
            if float((begun - path[0]).norm()) > 0.05:
                style = {"arrowstyle": "-", "color": SHADES[colour], "alpha": 0.5, "linestyle": "dotted"}
                axis.annotate("", path[0].tolist(), begun.tolist(), arrowprops=style)
    _square(axis)


def _square(axis: Any) -> None:
    axis.set(xlim=(-1.08, 1.08), ylim=(-1.08, 1.08), xticks=[], yticks=[], aspect="equal")


def _draw_energy(axis: Any, model: RelationEnergy, name: str, config: PlaneTrainingConfig, seed: int) -> Any:
    """The energy of where the one that moves is, the others fixed; demonstrations as they stand to those."""
    from matplotlib.colors import LogNorm

    concept, shots = CONCEPTS[BY_NAME[name]], max(SHOTS)
    demonstrations, _, _ = _task(name, 1, shots, seed)
    code = taught(model, demonstrations, shots, config.inference)
    fixed = torch.tensor([[0.0, 0.0]]) if len(concept.colours) == 2 else torch.tensor([[-0.5, -0.3], [0.5, 0.3]])
    line = torch.linspace(-1.0, 1.0, 101)
    grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).flatten(0, 1)
    position = torch.cat([grid[:, None], fixed.expand(len(grid), -1, -1)], 1)[:, None]
    colour = demonstrations.colour[:1, : len(concept.colours)]
    with torch.no_grad():
        energy = energy_of(model, Scenes(position, colour.expand(len(grid), -1)), code.expand(len(grid), -1))
    scale = LogNorm(float(energy.min()), float(energy.quantile(0.9)), clip=True)
    mesh = axis.pcolormesh(line, line, energy.view(101, 101), cmap="magma_r", norm=scale)
    shown = torch.stack([_carried(each, fixed) for each in demonstrations.position[:, 0, : len(concept.colours)]])
    own, *others = [SHADES[one] for one in colour[0].tolist()]
    axis.scatter(*shown.T, s=60, color=own, edgecolors="white", linewidths=1.2, label="demonstrated")
    axis.scatter(*fixed.T, s=110, marker="s", color=others, edgecolors="white", label="the others")
    axis.set_title(f"{_label(name)}: energy of where one is", fontsize=9, loc="left")
    axis.legend(fontsize=8, loc="lower right")
    axis.set(xticks=[], yticks=[], aspect="equal")
    return mesh


def _carried(roles: Tensor, fixed: Tensor) -> Tensor:
    """Where the first of `roles (role, 2)` is once the others are at `fixed`: shifted; for two, turned and scaled."""
    if len(fixed) == 1:
        return roles[0] - roles[1] + fixed[0]
    own, there = torch.view_as_complex(roles[2] - roles[1]), torch.view_as_complex(fixed[1] - fixed[0])
    away = torch.view_as_complex(roles[0] - roles[1]) / own * there
    return fixed[0] + torch.view_as_real(away)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m drivecast.scripts.tools.plane_concepts", description=__doc__)
    parser.add_argument("output", type=Path, help="PNG file to write")
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    parser.add_argument("--steps", type=int, default=PlaneTrainingConfig.steps, help="of the training")
    parser.add_argument("--tasks", type=int, default=20, help="of each concept, judged")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    config = PlaneTrainingConfig(steps=given.steps)
    began = time.process_time()

    def on_step(step: int, parts: dict[str, Tensor]) -> None:
        if (step + 1) % 100 == 0:
            sys.stderr.write(f"step {step + 1} of {given.steps}: loss {float(parts['loss']):.2f}\n")

    model = train(config, given.seed, on_step=on_step)
    trained_s = time.process_time() - began
    names = [*TRAINED, *HELD_OUT]
    results = {shots: judged(model, names, shots, given.tasks, config, 1000 + shots) for shots in SHOTS}
    sys.stdout.write("\n".join(lines(results)) + "\n")
    sys.stdout.write(f"{len(TRAINED)} concepts trained in {given.steps} steps, {trained_s:.0f} s of one core\n")
    draw(given.output, model, config, given.seed)


if __name__ == "__main__":
    main()
