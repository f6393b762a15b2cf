"""What does without energies, to compare with: nearest demonstrations, a direct classifier and a regressor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import smooth_l1_loss

from drivecast.worldmodel.concepts.contrasts import LARGE, of_positives
from drivecast.worldmodel.concepts.ego_drive import KNOTS, driven, fitted
from drivecast.worldmodel.concepts.examination import Recogniser
from drivecast.worldmodel.concepts.inference import masks
from drivecast.worldmodel.concepts.objective import Task, Tasks, possible_masks
from drivecast.worldmodel.scene.entities import FRAME_S, MOST_ENTITIES, Entities
from drivecast.worldmodel.scene.relations import RELATION_FEATURES, ego_relations

FAR = 1e3
HIDDEN, CODE = 64, 16
FIRST_FRAMES = 6  # a drive is imitated from a moment on with at least so many frames left


def summary(entities: Entities) -> Tensor:
    """A stretch in numbers, of each entity: means of its relation to the ego, and how that changes, `(batch, entity,
    2 · feature)`."""
    pairs, counts = ego_relations(entities)
    weight = counts[..., None].to(pairs)
    mean = (pairs * weight).sum(1) / weight.sum(1).clamp_min(1.0)
    return torch.cat([mean, (pairs[:, -1] - pairs[:, 0]) * weight[:, 0]], -1)[:, 0]


def by_nearest(spread: Tensor) -> Recogniser:
    """Recognition by the distance to the nearest demonstration, in units of `spread (2 · feature,)`."""

    def recognise(shown: Entities, shots: int, query: Entities, pool: Entities) -> tuple[Tensor, Tensor]:
        known = (summary(shown)[:, 1:] / spread).unflatten(0, (-1, shots))  # (task, shot, 2, ...)
        told = shown.valid.all(1)[:, 1:].unflatten(0, (-1, shots))
        every = masks(MOST_ENTITIES)[:, 1:] > 0
        of_query = summary(query)[:, 1:] / spread
        apart = (of_query[:, None, None] - known[:, :, :, None]).square().sum(-1)  # (task, shot, 2, entity)
        both = told.all(-1).any(1)
        one = apart[:, :, 0]
        first, second = (torch.tensor([row.nonzero()[:, 0].tolist()[i] for row in every]) for i in (0, -1))
        of_one = one[:, :, first]
        of_two = torch.minimum(
            apart[:, :, 0][:, :, first] + apart[:, :, 1][:, :, second],
            apart[:, :, 0][:, :, second] + apart[:, :, 1][:, :, first],
        )
        of_masks = torch.where(both[:, None], of_two.amin(1), of_one.amin(1))
        in_pool = summary(pool)[:, 1:] / spread
        size = (in_pool[None, None] - known[:, :, None]).square().sum(-1) * told[:, :, None]
        missing = told[:, :, None] != pool.valid.all(1)[None, None, :, 1:]
        return of_masks, (size + FAR * missing).sum(-1).amin(1)

    return recognise


class Encoder(nn.Module):
    """A stretch and whom it is about as one vector: a mean over pairs and frames, `(batch, code)`."""

    def __init__(self, outputs: int = CODE) -> None:
        super().__init__()
        self.each = nn.Sequential(nn.Linear(RELATION_FEATURES, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU())
        self.all = nn.Sequential(nn.Linear(2 * HIDDEN, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, outputs))

    def pairs(self, entities: Entities) -> Tensor:
        """Of each entity `(batch, entity, 2 · hidden)`: its mean, and how that changes."""
        pairs, counts = ego_relations(entities)
        seen = self.each(pairs) * counts[..., None]
        mean = seen.sum(1) / counts.sum(1)[..., None].clamp_min(1)
        return torch.cat([mean, seen[:, -1] - seen[:, 0]], -1)[:, 0]

    def forward(self, entities: Entities) -> Tensor:
        return self.all(self.pairs(entities).sum(1))

    def of_tasks(self, shown: Entities, shots: int) -> Tensor:
        """The mean over each task's demonstrations `(task · shot, ...)`, `(task, code)`."""
        return self(shown).unflatten(0, (-1, shots)).mean(1)


class DirectClassifier(nn.Module):
    """Scores a stretch and whom it is about, given the mean encoding of demonstrations: no inference."""

    def __init__(self) -> None:
        super().__init__()
        self.shown, self.seen = Encoder(), Encoder()
        self.judge = nn.Sequential(nn.Linear(2 * CODE, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 1))

    def of_masks(self, query: Entities, code: Tensor) -> Tensor:
        """Low on whom it is about, `(task, mask)`."""
        summed = torch.einsum("beh,me->bmh", self.seen.pairs(query)[:, 1:], masks(MOST_ENTITIES)[:, 1:].to(code))
        seen = self.seen.all(summed)
        return self.judge(torch.cat([seen, code[:, None].expand_as(seen)], -1))[..., 0]

    def of_stretches(self, stretches: Entities, code: Tensor) -> Tensor:
        """Low on where it holds, `(task, stretch)`."""
        seen = self.seen(stretches)
        both = torch.cat([seen.expand(len(code), *seen.shape), code[:, None].expand(-1, len(seen), -1)], -1)
        return self.judge(both)[..., 0]

    def recogniser(self) -> Recogniser:
        """As others recognise."""

        @torch.no_grad()
        def recognise(shown: Entities, shots: int, query: Entities, pool: Entities) -> tuple[Tensor, Tensor]:
            code = self.shown.of_tasks(shown, shots)
            return self.of_masks(query, code), self.of_stretches(pool, code)

        return recognise

    def loss(self, task: Task, shots: int) -> Tensor:
        """The same contrasts as the energy's, of whom and of what."""
        code = self.shown.of_tasks(task.demonstrations, shots)
        of_masks = torch.where(possible_masks(task.query), self.of_masks(task.query, code), LARGE)
        of_stretches = self.of_stretches(task.query.entities(task.about), code)
        same = task.also[:, task.concept].T & ~torch.eye(len(code), dtype=torch.bool)
        of_stretches = torch.where(same, LARGE, of_stretches)
        of_concepts = (of_stretches.diagonal() + torch.logsumexp(-of_stretches, 1)).mean()
        return of_positives(of_masks, task.positives) + of_concepts


class Regressor(nn.Module):
    """What the ego does next, by knots, given the mean encoding of demonstrations and how those meant stand now."""

    def __init__(self) -> None:
        super().__init__()
        self.shown = Encoder()
        self.drive = nn.Sequential(
            nn.Linear(CODE + 2 * (RELATION_FEATURES + 1), HIDDEN),
            nn.SiLU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.SiLU(),
            nn.Linear(HIDDEN, 2 * KNOTS),
        )

    def forward(self, now: Entities, code: Tensor) -> Tensor:
        """Knots `(batch, knot, 2)`; `now (batch, frame, 3)`, of which the last frame counts."""
        return self.drive(torch.cat([present(now), code], -1)).unflatten(-1, (KNOTS, 2))

    def loss(self, task: Task, shots: int) -> Tensor:
        """Distance from where the ego went, in m."""
        query = task.query.entities(task.about)
        start, _ = fitted(query)
        knots = self(query.frames(0, 1), self.shown.of_tasks(task.demonstrations, shots))
        went = driven(query, start, knots)
        along = smooth_l1_loss(went.along_m[:, :, 0], query.along_m[:, :, 0])
        return along + 4.0 * smooth_l1_loss(went.across_m[:, :, 0], query.across_m[:, :, 0])


def present(now: Entities) -> Tensor:
    """How the two that are meant stand in the last frame of `now (batch, frame, 3)`: `(batch, 2 · (feature + 1))`."""
    pairs, counts = ego_relations(now)
    there = counts[:, -1, 0, 1:, None].to(pairs)
    return torch.cat([pairs[:, -1, 0, 1:] * there, there], -1).flatten(1)


@dataclass(frozen=True)
class NearestDrive:
    """Knots of the moment of the demonstrations in which those meant stand most alike.

    Attributes:
        moments: `(moment, 2 · (feature + 1))`.
        knots: `(moment, knot, 2)`. What was done from there on.
        long_s: `(moment,)`. For how long that was.
    """

    moments: Tensor
    knots: Tensor
    long_s: Tensor

    @staticmethod
    def of(shown: Entities) -> NearestDrive:
        """Of demonstrations `(shot, frame, 3)`."""
        frames = shown.valid.shape[1]
        moments, knots, long_s = [], [], []
        for first in range(frames - FIRST_FRAMES + 1):
            rest = shown.frames(first, frames - first)
            moments.append(present(rest.frames(0, 1)))
            knots.append(fitted(rest)[1])
            long_s.append(torch.full((len(rest.valid),), (frames - first - 1) * FRAME_S))
        return NearestDrive(torch.cat(moments), torch.cat(knots), torch.cat(long_s))

    def __call__(self, now: Entities) -> tuple[Tensor, Tensor]:
        """Knots `(batch, knot, 2)`, and over how long they are spread, `(batch,)`, s."""
        nearest = torch.cdist(present(now), self.moments).argmin(1)
        return self.knots[nearest], self.long_s[nearest]


def trained(
    network: DirectClassifier | Regressor,
    tasks: Tasks,
    steps: int,
    shots: int,
    seed: int,
    report: Callable[[int, float], None] = lambda *_: None,
    batch: int = 32,
    learning_rate: float = 2e-3,
) -> None:
    """Train a rival on the tasks of the energy; what the ego does, on whole stretches."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, learning_rate / 50)
    for step in range(steps):
        drawn = int(torch.randint(1, shots + 1, (), generator=generator))
        shortest = FIRST_FRAMES if isinstance(network, DirectClassifier) else tasks.labelled.entities.valid.shape[1]
        loss = network.loss(tasks.draw(batch, drawn, generator, shortest), drawn)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        report(step + 1, loss.item())
    network.eval().requires_grad_(False)
