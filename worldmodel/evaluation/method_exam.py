"""What a trained energy tells apart, and what its samples are worth, on recorded futures of one length."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from drivecast.worldmodel.energy.scoring import fair_energy_score
from drivecast.worldmodel.energy_methods.coordinates import FutureCoordinates
from drivecast.worldmodel.energy_methods.langevin import LangevinConfig, langevin
from drivecast.worldmodel.energy_methods.latent_variable import LatentVariable
from drivecast.worldmodel.energy_methods.method import Examples, Method
from drivecast.worldmodel.energy_methods.recorded_examples import own_path_m, recorded_rows, window_of
from drivecast.worldmodel.energy_methods.surroundings import Surroundings, surroundings_of
from drivecast.worldmodel.evaluation.auroc import auroc
from drivecast.worldmodel.evaluation.corruptions import CORRUPTIONS
from drivecast.worldmodel.recordings.store import WindowStore

MILD = 0.1  # of a gross corruption's way from the recorded future
OF_ANOTHER = "another's future"
BRAKING_AMONG, MOST_BRAKING = (
    20_000,
    100,
)  # vehicles among which those that braked behind a braking leader are looked for
SAMPLES = 6
SAMPLING = LangevinConfig(steps=100, step_size=0.1, last_step_size=0.005)
TEMPERATURES = (0.01, 0.03, 0.1, 0.3, 1.0)  # tried on the validation split
BETA_SEED = 11


@dataclass(frozen=True)
class Exam:
    """Recorded futures and what was made of them.

    Attributes:
        recorded: As they were.
        coordinates: Of the futures.
        path_m: As they were, `(example, frame, 2)`.
        corrupted: By the corruption's name: numbers of the examples that it applies to, and their futures then.
    """

    recorded: Examples
    coordinates: FutureCoordinates
    path_m: Tensor
    corrupted: dict[str, tuple[Tensor, Tensor]]

    def part(self, count: int) -> Exam:
        """The first `count` recorded futures, without corruptions."""
        rows = torch.arange(min(count, len(self.recorded)))
        return Exam(self.recorded[rows], self.coordinates, self.path_m[rows], {})


def mild(name: str) -> str:
    """The name of a tenth of a corruption."""
    return f"a tenth: {name}"


def exam_of(
    store: WindowStore, split: str, horizon_s: float, coordinates: FutureCoordinates, vehicles: int, seed: int
) -> Exam:
    """Up to `vehicles` recorded futures of `split`, and each corruption of those that it applies to.

    Gross ones also by a tenth, and the displacement of another vehicle. Who braked with its leader is rare: such
    vehicles come last, beyond `vehicles`, and only that corruption is made of them.
    """
    rows = recorded_rows(store, split, horizon_s, BRAKING_AMONG, seed)
    rows = torch.cat([rows[:vehicles], _braking(store, rows[vehicles:], horizon_s)])
    window = window_of(store, rows, horizon_s)
    past = surroundings_of(window.history, window.future, window.road, store.dt_s)
    path = own_path_m(window.future, past, store.dt_s)
    recorded = coordinates.vector(path, past)
    usual = torch.arange(len(rows)) < vehicles
    corrupted = {}
    for corruption in CORRUPTIONS:
        future, applies = corruption.apply(window, store.dt_s)
        chosen = (applies & (usual | (not corruption.is_gross))).nonzero()[:, 0]
        spoilt = coordinates.vector(own_path_m(future, past, store.dt_s), past)
        corrupted[corruption.name] = (chosen, spoilt[chosen])
        if corruption.is_gross:
            corrupted[mild(corruption.name)] = (chosen, torch.lerp(recorded, spoilt, MILD)[chosen])
    chosen = usual.nonzero()[:, 0]
    corrupted[OF_ANOTHER] = (chosen, recorded[chosen].roll(1, 0))
    return Exam(Examples(past, recorded), coordinates, path, corrupted)


def _braking(store: WindowStore, rows: Tensor, horizon_s: float) -> Tensor:
    """Those of `rows` that braked while their leader did, at most `MOST_BRAKING`."""
    corruption = next(each for each in CORRUPTIONS if not each.is_gross)
    found = [rows[:0]]
    for some in rows.split(1024):
        found.append(some[corruption.apply(window_of(store, some, horizon_s), store.dt_s)[1]])
        if sum(map(len, found)) >= MOST_BRAKING:
            break
    return torch.cat(found)[:MOST_BRAKING]


def energies(method: Method, past: Surroundings, future: Tensor, by_beta: bool = False) -> Tensor:
    """`(example,)` of `future (example, dim)`; of a latent model F_inf, or F_1 if `by_beta`."""
    context = method.look(past)
    if by_beta:
        assert isinstance(method, LatentVariable)
        return method.free_energy(context, future[:, None], torch.Generator().manual_seed(BETA_SEED))[:, 0]
    return method.energy(context, future[:, None])[:, 0]


def told_apart(method: Method, exam: Exam, by_beta: bool = False) -> dict[str, dict[str, float | int]]:
    """By corruption: `auroc` against the recorded futures of the same vehicles, and how many `vehicles`.

    `paired` is the share of vehicles whose corrupted future has more energy than their own recorded one.
    """
    low = energies(method, exam.recorded.past, exam.recorded.future, by_beta)
    found: dict[str, dict[str, float | int]] = {}
    for name, (rows, future) in exam.corrupted.items():
        if not len(rows):
            continue
        high = energies(method, exam.recorded.past[rows], future, by_beta)
        paired = float((high > low[rows]).double().mean())
        found[name] = {"auroc": auroc(low[rows], high), "paired": paired, "vehicles": len(rows)}
    return found


def summary(told: dict[str, dict[str, float | int]], measure: str = "auroc") -> dict[str, float]:
    """Means: `gross` corruptions, a tenth of each (`mild`), `another`'s future, and the mean of these three, `all`."""
    names = [corruption.name for corruption in CORRUPTIONS if corruption.is_gross]
    groups = {"gross": names, "mild": [mild(name) for name in names], "another": [OF_ANOTHER]}
    found = {}
    for group, members in groups.items():
        values = [float(told[name][measure]) for name in members if name in told]
        found[group] = sum(values) / len(values)
    return {**found, "all": sum(found.values()) / len(found)}


def sampled(method: Method, exam: Exam, temperature: float, seed: int) -> Tensor:
    """Paths `(example, SAMPLES, frame, 2)`: by Langevin steps from N(0, 1), or from the decoder of a latent model."""
    generator = torch.Generator().manual_seed(seed)
    past = exam.recorded.past
    with torch.no_grad():
        context = method.look(past)
        if isinstance(method, LatentVariable):
            drawn = method.samples(context, SAMPLES, len(exam.recorded), generator)
            return exam.coordinates.path_m(drawn, past)
    start = torch.randn(len(exam.recorded), SAMPLES, exam.coordinates.dims, generator=generator)
    drawn = langevin(lambda future: method.energy(context, future), start, SAMPLING, generator, temperature)
    return exam.coordinates.path_m(drawn, past)


def best_temperature(method: Method, exam: Exam, seed: int) -> float:
    """The one of `TEMPERATURES` whose samples have the least energy score; a latent model needs none."""
    if isinstance(method, LatentVariable):
        return 1.0
    scores = [sample_quality(sampled(method, exam, each, seed), exam)["energy_score_m"] for each in TEMPERATURES]
    return min(zip(scores, TEMPERATURES, strict=True))[1]


def sample_quality(path_m: Tensor, exam: Exam) -> dict[str, float]:
    """Of `path_m (example, sample, frame, 2)`.

    Returns `min_ade_m` (of the sample nearest to what happened), `ade_m` (of all), `energy_score_m` (fair, a mean over
    frames) and `impossible`: the share of samples whose centre leaves the road or whose box overlaps another one.
    """
    samples, truth = path_m.transpose(0, 1), exam.path_m
    error = (samples - truth).norm(dim=-1).mean(-1)  # (sample, example)
    return {
        "min_ade_m": float(error.amin(0).mean()),
        "ade_m": float(error.mean()),
        "energy_score_m": float(fair_energy_score(samples, truth).mean()),
        "impossible": float(is_impossible(path_m, exam.recorded.past).double().mean()),
    }


def is_impossible(path_m: Tensor, past: Surroundings) -> Tensor:
    """Bool `(example, sample)`: off the road or into one of the others at some frame; boxes lie along the lane."""
    left = path_m[..., 1]
    off_road = (left > past.edge_m[:, None, None, 0]) | (-left > past.edge_m[:, None, None, 1])
    apart = (past.other_path_m[:, None] - path_m[:, :, :, None]).abs()  # (example, sample, frame, other, 2)
    overlaps = (apart < past.size_m[:, None, None]).all(-1) & past.other_valid[:, None, None]
    return off_road.any(-1) | overlaps.any(-1).any(-1)


def landscape(method: Method, past: Surroundings, coordinates: FutureCoordinates, end_m: Tensor) -> Tensor:
    """Energies `(point,)` of one vehicle's future over where it ends, against constant velocity, `end_m (point, 2)`.

    The displacement grows with the square of time, as under constant acceleration along and across.
    """
    share = torch.arange(1, coordinates.frames + 1) / coordinates.frames
    displacement = end_m[:, None] * share[:, None].square()
    future = (displacement.flatten(1) - coordinates.mean_m) @ coordinates.into.T
    return method.energy(method.look(past), future[None])[0].detach()
